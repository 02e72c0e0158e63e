"""PEP beside its baselines: test AUC and log-loss against parameters and bytes, as a table and a
picture, which Figures 2 to 4 and Table 1 are made of."""

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from studies import choice, pooling, tuning
from studies.figures import budget_curve
from studies.figures.styles import STYLES, Style, styles_for
from studies.kinds import PEP, PRUNED, STEPPING_STONE, Results, kind
from studies.names import setting, shown
from studies.page import Page
from studies.series import all_by_budget, from_last
from studies.table import Table, spread
from utils.files import read_record

SIZE = (7.0, 5.6)  # inches: both columns of a page
# across
QUANTITIES = {"num_embedding_params": "embedding parameters",
              "inference_bytes": "bytes at inference"}
SCORES = {"test_auc": "test AUC", "test_logloss": "test log-loss"}  # up
FEW = 3  # curves, which do not crowd
BESIDE = "as published"  # settings of PEP at budgets beside those that it was tuned at
HEAD = ("scheme", "settings", "parameters", "bytes", "test AUC", "test log-loss", "seeds")


class Entry(NamedTuple):
    """One scheme at one size, over seeds."""

    scheme: str
    settings: str  # that set it apart, as text
    results: Results
    from_last: bool  # cut from a search's last table

    def mean(self, name: str) -> float:
        """Of a field of the results."""
        return statistics.mean(result[name] for result in self.results)

    def spread(self, name: str) -> float:
        """Standard deviation of a sample of a field; 0 for one seed."""
        return statistics.stdev(self.of(name)) if len(self.results) > 1 else 0.0

    def of(self, name: str) -> list[float]:
        """A field of all results."""
        return [result[name] for result in self.results]

    def has(self, name: str) -> bool:
        """Whether all results have a field; older ones lack `inference_bytes`."""
        return all(name in result for result in self.results)


def tuned_in(out: Path, dataset: str, model: str,
             results: Results = ()) -> dict[str, Sequence[dict[str, Any]]]:
    """The chosen trials of each tuned scheme, and LR's where it has a recipe: from out/tuned, and
    those of the shipped settings of which `results` has a run.

    Raises:
        ValueError: a file there is corrupt.

    >>> tuned_in(Path("no/such/folder"), "movielens", "fm")
    {}
    """
    found: dict[str, Sequence[dict[str, Any]]] = {}
    there = {run["run_id"] for run in results}
    own = out / "tuned"
    for folder in (own, tuning.SHIPPED):
        linear = folder.glob(f"recipe_{dataset}_linear.json")
        for path in [*linear, *sorted(folder.glob(f"{dataset}_{model}_*.json"))]:
            name = path.stem.removeprefix(f"{dataset}_{model}_")
            name = "LR" if name == path.stem else name
            try:
                chosen = read_record(path)["chosen"]
                ids = {trial["run_id"] for trial in chosen}
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"{path} is corrupt ({error}); delete it, or run `reproduce.py tune`"
                ) from error
            if name not in found and (folder == own or ids & there):
                found[name] = chosen
    return found


def entries(page: Page, results: Results,
            tuned: dict[str, Sequence[dict[str, Any]]]) -> list[Entry]:
    """Every scheme at every size, by scheme and rising parameters; LR first.

    A scheme that was tuned has the settings that validation chose, PEP also those published at the
    other budgets above the smallest. Of the others, PEP, pruned tables and uniform ones are shown
    with the published settings, and the rest not at all. The page learns what is missing for that.

    Args:
        page: whose results these are.
        results: of one data set and model, and of LR, as `choice.of` gives them.
        tuned: scheme -> its chosen trials.
    """
    by_id = pooling.by_run(results)
    counted = [run for run in results if not pooling.rewound_alone(run)]
    found: list[Entry] = []
    for scheme, trials in tuned.items():
        for trial in trials:
            text = _settings_text(trial, by_id)
            own = by_id.get(trial["run_id"])
            if own is None:
                page.missing.append(f"{scheme} ({text}): the run that the tuning chose, "
                                    f"{trial['run_id']}, is not here or may not stand here")
                continue
            same = pooling.one_a_seed([run for run in counted if _alike(run, own, by_id)])
            if same:
                found.append(Entry(kind(own), text, same, from_last(same)))
            else:
                others = [run for run in results if _alike(run, own, by_id)]
                page.missing.append(
                    f"{kind(own)} ({text}) at {_budget(own):,} parameters: no run "
                    f"(seeds {choice.words(choice.SEEDS)}){choice.rewound_words(others)}"
                )
    published = [run for run in counted if run["stage"] != "search"
                 and pooling.published(run, by_id)]
    done = tuned_schemes(tuned)
    sizes = [_budget(by_id[trial["run_id"]]) for trial in tuned.get("pep", ())
             if trial["run_id"] in by_id]
    for (scheme, text), members in _by_curve(published).items():
        for budget, runs in all_by_budget(members).items():
            if scheme not in done or (scheme == PEP and _beside(budget, sizes)):
                taken = max(pooling.averaged(runs, by_id), key=len)
                text_here = BESIDE if scheme in done else text
                found.append(Entry(scheme, text_here, taken, from_last(taken)))
    _list_rewound(page, [run for run in results if kind(run) not in done
                         or (kind(run) == PEP and _beside(_budget(run), sizes))], found, by_id)
    order = {name: number for number, name in enumerate(("LR", *STYLES))}
    return sorted(found, key=lambda entry: (order.get(entry.scheme, len(order)), entry.scheme,
                                            entry.mean("num_embedding_params")))


def tuned_schemes(tuned: Mapping[str, Any]) -> set[str]:
    """The tuned schemes by the labels of their curves.

    >>> sorted(tuned_schemes({"pep": [], "mde": [], "random": []}))
    ['PEP', 'mde', 'random mask']
    """
    return {PEP if scheme == "pep" else PRUNED.get(scheme, scheme) for scheme in tuned}


def _beside(budget: int, tuned: Sequence[int]) -> bool:
    """Whether a budget is above the smallest one of a tuning, and none of them."""
    return bool(tuned) and min(tuned) < budget and budget not in tuned


def _by_curve(published: Results) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Runs that are shown where no tuning has chosen, by scheme and what sets them apart, as
    text."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for run in published:
        settings, scheme, text = run["settings"], kind(run), ""
        if scheme == "uniform":
            text = f"latent_dim {settings['latent_dim']}"
        if scheme == PEP and settings.get("threshold_type", choice.FINE[0]) not in choice.FINE:
            text = f"threshold_type {settings['threshold_type']}"
        stone = run.get("snapshot", {}).get("source") == STEPPING_STONE
        if scheme in ("LR", "uniform", PEP, *PRUNED.values()) and not stone:
            found[scheme, text].append(run)
    return found


def _list_rewound(page: Page, results: Results, found: Sequence[Entry],
                  by_id: Mapping[str, dict[str, Any]]) -> None:
    """Name the points that have nothing but tickets with the embedding alone rewound."""
    there = set()
    for entry in found:
        there |= {(entry.scheme, _budget(run)) for run in entry.results}
    absent: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
    for run in results:
        stone = run.get("snapshot", {}).get("source") == STEPPING_STONE
        if pooling.rewound_alone(run) and pooling.published(run, by_id) and not stone:
            absent[kind(run), _budget(run)].append(run)
    page.missing += [f"{scheme} at {budget:,} parameters: no run (seeds "
                     f"{choice.words(choice.SEEDS)}){choice.rewound_words(runs)}"
                     for (scheme, budget), runs in sorted(absent.items())
                     if (scheme, budget) not in there]


def _alike(one: dict[str, Any], other: dict[str, Any], by_id: Mapping[str, dict[str, Any]]) -> bool:
    """Whether two runs may be averaged, but for how much was rewound."""
    return (kind(one) == kind(other)
            and pooling.key(one, by_id, rewind=False) == pooling.key(other, by_id, rewind=False))


def _budget(run: dict[str, Any]) -> int:
    return choice.budget_of(run) if run["stage"] == "retrain" else run["num_embedding_params"]


def _settings_text(trial: Mapping[str, Any], by_id: Mapping[str, dict[str, Any]]) -> str:
    """A trial's settings, as a label has them."""
    run = by_id.get(trial["run_id"])
    own = pooling.settings_of(run) if run else {}
    return ", ".join(setting(name, value, own) for name, value in trial["settings"].items()
                     if name != "retrain_emb_param"
                     and not (name == "latent_dim" and run and kind(run) == "LR"))


def table(found: Sequence[Entry]) -> Table:
    """The entries, a line each."""
    def bytes_of(entry: Entry) -> str:
        return f"{round(entry.mean('inference_bytes')):,}" if entry.has("inference_bytes") else "-"

    return Table(HEAD, [(shown(entry.scheme) + (" †" if entry.from_last else ""), entry.settings,
                         f"{round(entry.mean('num_embedding_params')):,}", bytes_of(entry),
                         spread(entry.of("test_auc")), spread(entry.of("test_logloss")),
                         str(len(set(entry.of("seed")))))
                        for entry in found])


def picture(found: Sequence[Entry], title: str) -> Figure:
    """Four panels: test AUC and log-loss against parameters, and against bytes, which older results
    lack."""
    figure = budget_curve.new_figure(SIZE)
    panels = figure.subplots(2, 2, sharex="col", sharey="row")
    curves: dict[str, list[Entry]] = defaultdict(list)
    for entry in found:
        curves[entry.scheme].append(entry)
    styles = styles_for(curves)
    several = any(len(entry.results) > 1 for entry in found)
    for (score, label), row in zip(SCORES.items(), panels, strict=True):
        for quantity, axes in zip(QUANTITIES, row, strict=True):
            for scheme, points in curves.items():
                known = [entry for entry in points if entry.has(quantity)]
                if len(known) > 1 or (known and scheme == "LR"):  # one point makes no curve
                    _curve(axes, scheme, known, (quantity, score), styles[scheme])
            budget_curve.log_sizes(axes)
            budget_curve.tidy(axes)
        low = score == "test_logloss"
        ends = [entry.mean(score) + (-1 if low else 1) * entry.spread(score) for entry in found]
        for axes in row if len(curves) > FEW else ():
            budget_curve.widen_crowd(axes, [entry.mean(score) for entry in found], low,
                                     min(ends) if low else max(ends))
        row[0].set_ylabel(budget_curve.score_label(label, several), fontsize=8)
    for axes, label in zip(panels[-1], QUANTITIES.values(), strict=True):
        axes.set_xlabel(label, fontsize=8)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=6.5, frameon=False, loc="outside lower center", ncols=4)
    figure.suptitle(title, fontsize=8)
    return figure


def _curve(axes: Axes, scheme: str, points: Sequence[Entry], against: tuple[str, str],
           style: Style) -> None:
    quantity, score = against
    if scheme == "LR":
        budget_curve.horizontal(axes, scheme, points[0].mean(score))
        return
    budget_curve.with_bars(axes, [(entry.mean(quantity), entry.of(score)) for entry in points],
                           scheme, style)
