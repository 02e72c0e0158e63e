"""What UMEC's two figures share: accuracy and AUC against the compression ratio, of it and its
baselines."""

import json
import statistics
from collections import defaultdict
from collections.abc import Sequence
from itertools import chain
from operator import itemgetter
from typing import Any

from matplotlib.axes import Axes

from studies import pooling
from studies.choice import SEEDS, words
from studies.figures import budget_curve, by_epoch
from studies.figures.styles import UMEC
from studies.kinds import FINETUNED, Results
from studies.page import RUNS, Number, Page, number, runs_of, shown
from studies.table import Table, spread

SIZE = (7.0, 4.8)  # inches: both columns of a page
WIDTH = 0.8  # of a budget's place, that the methods share
MEASURES = {"test_accuracy": "test accuracy", "test_auc": "test AUC"}
DENSE, CHANCE = "dense", "random"
# the table's columns in their order; others come behind them
COLUMNS = ("umec", "magnitude", "as-umec", "taylor", "handmade", "group-lasso", "random",
           "umec, one descent")
DENSE_ACCURACY = 0.78978  # of the paper's whole model
Curves = dict[str, dict[float, list[dict[str, Any]]]]  # method -> budget -> results


def build(page: Page, results: Results, joint: bool, methods: Sequence[str],
          paper: dict[float, float]) -> Page:
    """Fill the page of a figure.

    Args:
        results: of any data sets and models.
        joint: fields and neurons, or fields alone.
        methods: that should be there.
        paper: UMEC's accuracy in the paper's figure by budget.
    """
    mine = [result for result in results if _belongs(result, page.dataset, joint)]
    data = pooling.data_of(mine, results, page.dataset)
    if data.words:
        page.of_sample(data.words)
    found = _of_one_setting(page, mine, data, results)
    curves: Curves = defaultdict(lambda: defaultdict(list))
    for result in found:
        curves[_label(result)][result["compression"]["budget"]].append(result)
    page.behind += found
    for method in methods:
        for budget in [1.0] if method == DENSE else paper:
            absent = [seed for seed in SEEDS
                      if seed not in {run["seed"] for run in curves[method].get(budget, [])}]
            if absent:
                page.missing.append(f"{method} at budget {budget:g}: seed{'s' * (len(absent) > 1)} "
                                    f"{words(absent)}")
    dense = {run["seed"]: run for run in chain.from_iterable(curves[DENSE].values())}
    for method, by_budget in curves.items():
        for budget, runs in sorted(by_budget.items(), reverse=True):
            page.rows += [_row(method, budget, run) for run in runs]
            page.numbers += _numbers(method, budget, runs, dense, paper)
    beside = ("The paper gives accuracy alone, of one seed, and some of its models exceed their "
              "budget; its numbers, read off its figure, stand beside ours as differences from its "
              "whole model. ")
    beside = "" if page.sample else beside
    page.notes.append(
        "x is 1 less the resource of the exported model, counted from its layers. "
        f"{beside}Every baseline was trained for as many further steps as UMEC; validation chose "
        f"the epoch. Units removed at random may lie below the picture. Data: "
        f"{shown(page.dataset)}.")
    if found:
        page.tables.append(_table(curves))
        _draw(page, {method: by_budget for method, by_budget in curves.items() if by_budget})
    return page


def _belongs(result: dict[str, Any], dataset: str, joint: bool) -> bool:
    about = result.get("compression")
    return (result["stage"] == FINETUNED and result["settings"]["dataset"] == dataset
            and about is not None and "budget" in about
            and (about["method"] == DENSE or about["dynamics"]["joint"] == joint)
            and (about["groups"], about["resource"]) == ("field", "flops_top"))


def _label(result: dict[str, Any]) -> str:
    about = result["compression"]
    variants = {"faithful": about["dynamics"].get("faithful"), "scratch": about["scratch"],
                "one descent": about.get("along")}
    return ", ".join([about["method"], *(name for name, on in variants.items() if on)])


def _own_settings(result: dict[str, Any]) -> str:
    """What a method was asked for, but for what its curve and figure say."""
    about = result["compression"]
    dynamics = {name: value for name, value in about["dynamics"].items()
                if name not in ("faithful", "joint")}
    return json.dumps([dynamics, about.get("keep_fields"), about.get("strength")], sort_keys=True)


def _of_one_setting(page: Page, results: Results, data: pooling.Data,
                    every: Results) -> list[dict[str, Any]]:
    """Those of the setting with the most runs, one a seed: trained alike, for as long, from the
    same training; and of each method those that were asked for the same.

    Args:
        data: that the page shows.
        every: in which the whole models are looked up that the small ones were made of.
    """
    by_id = pooling.by_run(every)
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for result in results:
        own = {key: value for key, value in result["identity"]["settings"].items()
               if key != "max_epochs"}
        about = result["compression"]
        base = by_id.get(about.get("base", ""))
        trained = [pooling.settings_of(base), base["settings"]["max_epochs"]] if base else None
        setting = [own, about["epochs"], about["finetune_epochs"], result["manifest"], trained]
        groups[json.dumps(setting, sort_keys=True)].append(result)
    if not groups:
        return []
    most = max(groups.values(),
               key=lambda runs: (data.manifest in (None, runs[0]["manifest"]), len(runs)))
    curves: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for result in most:
        curves[_label(result)][_own_settings(result)].append(result)
    points: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for label, forms in curves.items():
        for result in max(forms.values(), key=len):
            # the whole model once, though both figures ask for it
            points[label, result["compression"]["budget"] if label != DENSE else 1].append(result)
    if left := len(results) - sum(map(len, points.values())):
        page.left_out.append(f"Left out: {pooling.words({'other settings or data': left})}.")
    found = list(chain.from_iterable(map(pooling.one_a_seed, points.values())))
    return sorted(found, key=lambda result: (_label(result), -result["compression"]["budget"],
                                             result["seed"]))


def _row(method: str, budget: float, run: dict[str, Any]) -> dict[str, Any]:
    about = run["compression"]
    return {"method": method, "budget": budget, "seed": run["seed"],
            "compression": round(1 - about["resource_left"], 4),
            "fields": sum(width > 0 for width in about["widths"].values()),
            "neurons": " ".join(map(str, about["neurons"])),
            **{name: run[name] for name in (*MEASURES, "test_logloss", "validation_auc")},
            RUNS: runs_of([run])}


def _table(curves: Curves) -> Table:
    """Test AUC of each method at each budget; first the whole model, trained as long."""
    methods = [method for method in dict.fromkeys((*COLUMNS, *curves))
               if method != DENSE and curves.get(method)]
    budgets = sorted(set().union(*(curves[method] for method in methods)), reverse=True)
    whole = chain.from_iterable(curves[DENSE].values())
    rows = [(shown(DENSE), _auc(list(whole)), *[""] * (len(methods) - 1))]
    rows += [(f"{budget:g}", *(_auc(curves[method].get(budget, ())) for method in methods))
             for budget in budgets]
    return Table(("test AUC at budget", *map(shown, methods)), rows)


def _auc(runs: Results) -> str:
    return spread([run["test_auc"] for run in runs]) if runs else ""


def _numbers(method: str, budget: float, runs: Results, dense: dict[int, dict[str, Any]],
             paper: dict[float, float]) -> list[Number]:
    where = shown(method) + ("" if method == DENSE else f" at {budget:g}")
    numbers = [number(f"{name}, {where}", runs, itemgetter(field))
               for field, name in (("test_auc", "AUC"), ("test_logloss", "log-loss"),
                                   ("test_accuracy", "accuracy"))]
    beside = [run for run in runs if run["seed"] in dense]
    if method == "umec" and beside:
        published = paper[budget] - DENSE_ACCURACY if budget in paper else None
        numbers.append(number(
            f"accuracy less the whole model's, {where}", beside,
            lambda run: run["test_accuracy"] - dense[run["seed"]]["test_accuracy"],
            published, "other data" if published is not None else "", ".5f"))
    return numbers


def _draw(page: Page, curves: Curves) -> None:
    """Accuracy above, AUC below: a place for each budget, in which the methods stand side by side.

    Units removed at random may fall so far below all others that these could not be told apart:
    such points lie below the picture.
    """
    page.figure = budget_curve.new_figure(SIZE)
    panels = page.figure.subplots(2, 1, sharex=True)
    methods = [method for method in curves if method != DENSE]
    budgets = sorted(set().union(*(curves[method] for method in methods)), reverse=True)
    for axes, (field, label) in zip(panels, MEASURES.items(), strict=True):
        lowest, highest = _range(curves, field)
        for number_of, method in enumerate(methods):
            aside = WIDTH * ((number_of + 0.5) / len(methods) - 0.5)
            places = {budgets.index(budget) + aside: [run[field] for run in runs]
                      for budget, runs in curves[method].items() if runs}
            if points := [(place, values) for place, values in places.items()
                          if statistics.mean(values) >= lowest]:
                _points(axes, method, points)
            else:
                axes.plot([], [], ".", color=budget_curve.INK,
                          label=f"{shown(method)}: below the picture")
        for runs in curves.get(DENSE, {}).values():
            budget_curve.horizontal(axes, DENSE, statistics.mean(run[field] for run in runs))
        axes.set_ylim(lowest, highest)
        by_epoch.finish(axes, "", label)
        axes.grid(visible=False, axis="x")
        for edge in range(1, len(budgets)):
            axes.axvline(edge - 0.5, color=budget_curve.INK, alpha=0.3, linewidth=0.6)
    axes.set_xticks(range(len(budgets)), [_compression(curves, budget) for budget in budgets])
    axes.set_xlabel("share taken away (1 - budget), mean of the methods", fontsize=8)
    budget_curve.legend_below(page.figure, panels)
    page.figure.suptitle(page.title, fontsize=8)


def _compression(curves: Curves, budget: float) -> str:
    """The measured compression ratio at a budget, over all methods."""
    runs = chain.from_iterable(by_budget.get(budget, ()) for method, by_budget in curves.items()
                               if method != DENSE)
    ratios = [1 - run["compression"]["resource_left"] for run in runs]
    return f"{statistics.mean(ratios):.3g}"


def _range(curves: Curves, field: str) -> tuple[float, float]:
    """Of a score's axis: every run but those of units removed at random."""
    ends: list[float] = []
    for method, by_budget in curves.items():
        for runs in by_budget.values() if method != CHANCE or len(curves) == 1 else ():
            values = [run[field] for run in runs]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            ends += [statistics.mean(values) - spread, statistics.mean(values) + spread]
    margin = 0.05 * (max(ends) - min(ends)) or 0.01
    return min(ends) - margin, max(ends) + margin


def _points(axes: Axes, method: str, points: Sequence[tuple[float, list[float]]]) -> None:
    """One method: means and standard deviations, joined by a faint line."""
    ordered = sorted(points)
    places = [place for place, _ in ordered]
    means = [statistics.mean(values) for _, values in ordered]
    spreads = [statistics.stdev(values) if len(values) > 1 else 0.0 for _, values in ordered]
    colour, marker, line = UMEC.get(method, (budget_curve.INK, ".", ":"))
    axes.plot(places, means, color=colour, linestyle=line, linewidth=0.7, alpha=0.35)
    axes.errorbar(places, means, yerr=spreads if any(spreads) else None, label=shown(method),
                  color=colour, marker=marker, linestyle="none", markersize=4, linewidth=1.1)
