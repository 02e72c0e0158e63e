"""Beyond the paper: the water line against other schemes at few bits, by bytes of the table and of
the whole model, and its ablations."""

import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from studies import paired, pooling
from studies.figures import budget_curve, by_epoch
from studies.figures.styles import BLACK, BLUE, GREEN, INK, ORANGE, PINK, RED, SKY, WINE, Style
from studies.kinds import QUANTISED, Results
from studies.page import RUNS, Number, Page, shown
from studies.table import Table, spread

SIZE = (7.0, 3.2)  # inches
WATERLINE = "waterline"
PEP_MASK = "PEP's mask"
NAMES = {WATERLINE: "water line", "uniform": "uniform", "pq": "product quantisation",
         "mgqe": "MGQE", "mask": "magnitude mask", PEP_MASK: PEP_MASK,
         "qr": "quotient-remainder", "mde": "MDE"}
LOOKS: dict[str, Style] = {
    WATERLINE: (BLUE, "o", "-"), "uniform": (BLACK, "s", "--"), "pq": (PINK, "D", "--"),
    "mgqe": (ORANGE, "v", "--"), "mask": (RED, "P", "--"), PEP_MASK: (SKY, "X", "--"),
    "qr": (WINE, ">", "--"), "mde": (GREEN, "^", "--")}
SAME_SIZE = 1.05  # of a trial's bytes: one that takes so much is as large as it
WINDOW = 1.7  # of a budget: a baseline beside it may take that much more
HEAD = ("budget", "bytes", "whole model", "test AUC", "best other", "its bytes", "its test AUC",
        "lead")
EVERY_HEAD = ("budget", "scheme", "form", "trials", "bytes", "validation AUC", "test AUC", "seeds")
ABLATION_HEAD = ("changed", "bytes", "validation AUC", "test AUC", "seeds")
NOTE = ("Everything that is stored of a table is counted: header, class counts, column numbers, "
        "masks, codebooks, steps and codes. Every scheme starts from the same dense run (or from "
        "a run of its own embedding with the same recipe) and has the same quantiser and the same "
        "retraining. Validation chooses one trial of each scheme, by the first seed: of the water "
        "line among those of the budget, of every other scheme among all that take the budget or "
        "up to 1.7 times as much. Trials differ in learning rate, decay and form: of the water "
        "line the number of columns, of the others what takes least. The best of them near a "
        "budget is retrained at twice the rate and for twice as long, too. The best other is the "
        "scheme with the best mean validation AUC. The lead is paired by seed. Right, the rest of "
        "the model is counted too, with first-order weights and layers at 8 bits, and the scores "
        "are of that model.")
AS_PUBLISHED = ("PEP's masks are of tickets that were trained as published, at d 64 with a decay "
                "of 1e-5, and not by the recipe; weights are averaged as in it.")
Groups = dict[str, list[dict[str, Any]]]


def build(results: Results, out: Path, dataset: str, model: str) -> Page:
    """The page of a data set and a model; `out` is not looked at.

    Args:
        results: of any data sets and models.
    """
    page = Page(WATERLINE, dataset, model, f"The water line, {shown(model)} on {shown(dataset)}")
    here = [run for run in results if run["settings"]["dataset"] == dataset
            and run["settings"]["model"] == model]
    quantised = [run for run in here if run["stage"] == QUANTISED]
    # scores of other rows are no match for each other
    manifests = Counter(run["manifest"] for run in quantised if scheme_of(run) == WATERLINE)
    most = max(manifests, key=lambda each: manifests[each], default=None)
    own = [run for run in quantised if run["manifest"] == most]
    if strange := len(quantised) - len(own):
        page.left_out.append(f"Left out: {pooling.words({'other data': strange})}.")
    schemes: dict[str, Groups] = defaultdict(dict)
    for key, runs in _grouped(own, pooling.by_run(results)).items():
        schemes[scheme_of(runs[0])][key] = runs
    mine, plain, ablations = _trials(schemes.pop(WATERLINE, {}))
    ours = {budget: best_of(list(groups.values())) for budget, groups in mine.items()}
    if not ours:
        page.list_missing(f"the water line: no run; `python reproduce.py {WATERLINE} --dataset "
                          f"{dataset} --model {model}`")
        return page
    sources = {run["compression"]["source"] for run in chain.from_iterable(ours.values())}
    dense = [run for run in here if run["run_id"] in sources]
    page.behind = [*dense, *own]
    page.notes.append(NOTE)
    if PEP_MASK in schemes and dataset == "movielens":
        page.notes.append(AS_PUBLISHED)
    beside = {budget: {name: found for name, groups in schemes.items()
                       if (found := best_near(groups, budget))} for budget in ours}
    page.tables.append(Table(HEAD, [_line(page, budget, runs, beside[budget])
                                    for budget, runs in sorted(ours.items())]))
    every: list[Sequence[Any]] = []
    for budget, others in sorted(beside.items()):
        every.append(_chosen(budget, WATERLINE, ours[budget], len(mine[budget])))
        every += [_chosen(budget, name, found, len(_near(schemes[name], budget)))
                  for name, found in others.items()]
    if every:
        page.tables.append(Table(EVERY_HEAD, every))
    for budget, others in sorted(beside.items()):
        absent = [NAMES[name] for name in NAMES if name not in (WATERLINE, *others)]
        if absent:
            page.list_missing(f"beside {budget:,} bytes: {', '.join(absent)}")
    if ablations:
        page.tables.append(Table(ABLATION_HEAD, _ablations(plain, ablations)))
    if dense:
        page.numbers.append(_auc("the dense model, float32", dense))
    for budget, runs in sorted(ours.items()):
        page.numbers.append(_auc(f"the water line, {budget:,} bytes", runs))
    page.rows = [_row(scheme_of(run), run) for run in own]
    if schemes or len(ours) > 2:  # two points alone are no curve
        _draw(page, ours, schemes, dense)
    return page


def scheme_of(run: Mapping[str, Any]) -> str:
    """Of NAMES."""
    made = run["compression"]
    if made["method"] == WATERLINE:
        return WATERLINE
    if made["scheme"] == "mask" and run["settings"]["embedding"] == "masked":
        return PEP_MASK
    return made["scheme"]


def form_of(run: Mapping[str, Any]) -> str:
    """What a run was asked for, beside its budget, as text."""
    asked = run["identity"]["extra"]["compression"]
    skipped = {"method", "scheme", "bytes", "centroids_are"}
    parts = [f"{name} {value}" for name, value in asked.items() if name not in skipped]
    settings, own = run["settings"], run["identity"]["settings"]
    if (entries := _entries(run)) is not None:
        parts.append(f"entries {entries:,}")
    parts += [f"{name} {settings[name]}" for name in ("latent_dim", "qr_collisions", "mde_alpha")
              if asked.get("scheme") in ("qr", "mde") and name in own]
    return ", ".join([*parts, f"lr {settings['lr']:g}", f"epochs {settings['max_epochs']}",
                      f"decay {settings['l2_regularization']:g}"])


def _grouped(runs: Results, by_id: Mapping[str, dict[str, Any]]) -> Groups:
    """Runs that differ in the seed alone, one a seed; so do the runs in `by_id` that they were made
    of."""
    found: Groups = defaultdict(list)
    for run in runs:
        extra = {name: value for name, value in run["identity"]["extra"].items()
                 if name != "source"}
        # a retrained ticket is another mask with each seed
        extra = {name: value for name, value in extra.items()
                 if name not in ("mask", "initial", "others")}
        source = by_id.get(run["compression"]["source"])
        made_of = [pooling.settings_of(source), source["settings"]["max_epochs"]] if source else []
        found[json.dumps([run["manifest"], run["identity"]["settings"], extra, _entries(run),
                          made_of], sort_keys=True)].append(run)
    return {key: sorted(pooling.one_a_seed(own), key=lambda run: run["seed"])
            for key, own in found.items()}


def _entries(run: Mapping[str, Any]) -> int | None:
    """How many entries a ticket's mask keeps, which sets its size; None of any other table."""
    return run["num_embedding_params"] if scheme_of(run) == PEP_MASK else None


def _trials(groups: Groups) -> tuple[dict[int, Groups], dict[int, list[dict[str, Any]]], Groups]:
    """The method's trials by budget, those among them that ablations are held against (all columns,
    the usual retraining), and the ablations.

    The usual retraining is the one that most runs have; of two forms of the data that of most runs
    counts.
    """
    def training(run: Mapping[str, Any]) -> tuple[Any, ...]:
        settings = run["settings"]
        return (run["manifest"], settings["lr"], settings["max_epochs"],
                settings["l2_regularization"])

    counts: Counter[tuple[Any, ...]] = Counter()
    for runs in groups.values():
        counts[training(runs[0])] += len(runs)
    usual = max(counts, key=lambda key: counts[key], default=("",))
    trials: dict[int, Groups] = defaultdict(dict)
    plain: dict[int, list[dict[str, Any]]] = {}
    ablations: Groups = {}
    for key, runs in groups.items():
        asked = runs[0]["identity"]["extra"]["compression"]
        changed = {name: value for name, value in asked.items() if name not in ("method", "bytes")}
        how = training(runs[0])
        if changed.keys() <= {"width"} and how[0] == usual[0]:
            trials[asked["bytes"]][key] = runs
        if how != usual:
            continue
        if not changed:
            plain[asked["bytes"]] = runs
        elif not changed.keys() <= {"width"}:
            words = ", ".join(f"{name} {value}" for name, value in changed.items())
            ablations[f"{words}, {asked['bytes']:,} bytes"] = runs
    return dict(trials), plain, ablations


def _near(groups: Groups, budget: int) -> list[list[dict[str, Any]]]:
    """The trials that take a budget or somewhat more."""
    return [runs for runs in groups.values()
            if budget <= _mean(runs, _bytes) <= WINDOW * budget]


def best_near(groups: Groups, budget: int) -> list[dict[str, Any]]:
    """The best of the trials near a budget."""
    return best_of(_near(groups, budget))


def best_of(trials: Sequence[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The best trial by validation of the first seed that they share; with no regard to the test
    rows."""
    first = min((runs[0]["seed"] for runs in trials), default=0)
    shared = [runs for runs in trials if runs[0]["seed"] == first]
    return max(shared, key=lambda runs: runs[0]["validation_auc"], default=[])


def _line(page: Page, budget: int, runs: list[dict[str, Any]],
          others: Groups) -> tuple[str, ...]:
    start = (f"{budget:,}", f"{round(_mean(runs, _bytes)):,}", f"{round(_mean(runs, _whole)):,}",
             spread(_tests(runs)))
    if not others:
        return (*start, "-", "-", "-", "-")
    most = max(map(len, others.values()))
    name = max((each for each, found in others.items() if len(found) == most),
               key=lambda each: _mean(others[each], _validation))
    best = others[name]
    gaps = paired.differences(runs, best, "test_auc")
    lead = "-"
    if gaps:
        interval = paired.interval(gaps)
        lead = f"{statistics.mean(gaps):+.4f}"
        page.numbers.append(Number(f"the water line less the best other at {budget:,} bytes", gaps,
                                   len(gaps), form="+.4f", beside=interval.words))
    return (*start, NAMES[name], f"{round(_mean(best, _bytes)):,}", spread(_tests(best)), lead)


def _chosen(budget: int, name: str, runs: list[dict[str, Any]], trials: int) -> tuple[str, ...]:
    return (f"{budget:,}", NAMES[name], form_of(runs[0]), str(trials),
            f"{round(_mean(runs, _bytes)):,}",
            spread([run["validation_auc"] for run in runs]), spread(_tests(runs)), str(len(runs)))


def _ablations(plain: dict[int, list[dict[str, Any]]], found: Groups) -> list[tuple[str, ...]]:
    sizes = {runs[0]["identity"]["extra"]["compression"]["bytes"] for runs in found.values()}
    every = {f"nothing, {size:,} bytes": plain[size] for size in sorted(sizes) if size in plain}
    ordered = sorted(found.items(), key=lambda item: -_mean(item[1], _validation))
    return [(name, f"{round(_mean(runs, _bytes)):,}",
             spread([run["validation_auc"] for run in runs]), spread(_tests(runs)), str(len(runs)))
            for name, runs in [*every.items(), *ordered]]


def _row(name: str, run: Mapping[str, Any]) -> dict[str, Any]:
    made = run["compression"]
    return {"scheme": NAMES[name], "form": form_of(run), "seed": run["seed"],
            "asked_bytes": made.get("bytes", ""), "table_bytes": made["stored"]["table"],
            "whole_model_bytes": made["stored"]["whole"],
            "validation_auc": run["validation_auc"], "test_auc": run["test_auc"],
            "test_logloss": run["test_logloss"],
            "whole_model_test_auc": made["whole_model"]["test_auc"],
            "test_auc_before_retraining": run["without_finetuning"]["test_auc"],
            RUNS: run["run_id"]}


def _draw(page: Page, ours: dict[int, list[dict[str, Any]]], schemes: dict[str, Groups],
          dense: Results) -> None:
    """Left by bytes of the table, right by those of the whole model."""
    page.figure = budget_curve.new_figure(SIZE)
    several = any(len(runs) > 1 for runs in ours.values())
    panels: list[tuple[Axes, Callable[..., float], Callable[..., float], str]] = list(zip(
        page.figure.subplots(1, 2), (_bytes, _whole), (_test, _whole_test),
        ("bytes of the table", "bytes of the whole model"), strict=True))
    for axes, size, score, words in panels:
        curves = {WATERLINE: list(ours.values()),
                  **{name: _upper(groups, size) for name, groups in schemes.items()}}
        for name, groups in curves.items():
            points = [(_mean(runs, size), [score(run) for run in runs]) for runs in groups]
            if points:
                budget_curve.with_bars(axes, points, NAMES[name], LOOKS[name])
        if dense:
            axes.axhline(statistics.mean(_tests(dense)), color=INK, linewidth=0.8,
                         linestyle=":", label="dense, float32")
        budget_curve.log_sizes(axes)
        by_epoch.finish(axes, words, budget_curve.score_label("test AUC", several))
    panels[0][0].legend(fontsize=6, frameon=False)
    page.figure.suptitle(page.title, fontsize=8)


def _upper(groups: Groups, size: Callable[..., float]) -> list[list[dict[str, Any]]]:
    """Trials that no trial of as many bytes or fewer beats on validation: a scheme's curve.

    Args:
        size: the bytes of a run, those of its table or of its whole model.
    """
    sized = sorted(groups.values(), key=lambda runs: _mean(runs, size))
    return [runs for runs in sized
            if not any(other[0]["validation_auc"] > runs[0]["validation_auc"]
                       and _mean(other, size) <= SAME_SIZE * _mean(runs, size)
                       for other in sized)]


def _mean(runs: Results, value: Callable[..., float]) -> float:
    return statistics.mean(value(run) for run in runs)


def _bytes(run: Mapping[str, Any]) -> float:
    return run["compression"]["stored"]["table"]


def _whole(run: Mapping[str, Any]) -> float:
    return run["compression"]["stored"]["whole"]


def _validation(run: Mapping[str, Any]) -> float:
    return run["validation_auc"]


def _test(run: Mapping[str, Any]) -> float:
    return run["test_auc"]


def _whole_test(run: Mapping[str, Any]) -> float:
    return run["compression"]["whole_model"]["test_auc"]


def _tests(runs: Results) -> list[float]:
    return [run["test_auc"] for run in runs]


def _auc(what: str, runs: Results) -> Number:
    return Number(f"test AUC, {what}", _tests(runs), len({run["seed"] for run in runs}))
