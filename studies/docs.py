"""The tables in README.md and docs/, made from the shipped records.

    python -m studies.docs            # write the tables anew
    python -m studies.docs --check    # list the files that would change, exit code 1 where any does

A table stands between two comments, `<!-- table: NAME -->` and `<!-- end -->`; the text between
them is replaced, all other text is left as it is. What stands in `experiments/` and
`benchmarks/results/` is all that is read.

‡ marks tickets of which the embedding alone was rewound. They stand in a table only where fewer
seeds have a ticket with every weight rewound, as published; new records of those replace them.
"""

import argparse
import json
import re
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cache
from itertools import chain, product
from pathlib import Path
from typing import Any, NamedTuple

from models.serving import TYPES
from studies import choice, paired, pooling, runs_csv, sampling, starts
from studies.collect import results_in
from studies.curves import RUNS_CSV, SHIPPED
from studies.figures import (
    afm_page,
    baselines,
    extreme,
    fig2,
    leaderboard,
    table2,
    thresholds,
    umec_fig2,
    umec_fig3,
)
from studies.figures.table4 import PAPER, method_of
from studies.kinds import FINETUNED, PEP, Results, kind
from studies.names import MODELS, shown
from studies.page import Page
from studies.series import from_last
from studies.table import Table, spread
from utils.text import counted

TABLE = re.compile(r"(<!-- table: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
BENCHMARKS = SHIPPED.parent / "benchmarks" / "results"
CUT, ALONE = " †", " ‡"
MOVIELENS = "movielens"
Run = dict[str, Any]
Rows = list[tuple[str, ...]]
Select = Callable[[Results], Results]


class Line(NamedTuple):
    """One scheme at one size: a row of a table."""

    what: str
    runs: Results  # one a seed

    def mean(self, name: str) -> float:
        """Of a field of the results."""
        return statistics.mean(run[name] for run in self.runs)

    def spread(self, name: str) -> str:
        """Mean and standard deviation of a field of the results."""
        return spread([run[name] for run in self.runs])

    @property
    def marks(self) -> str:
        """† for a table cut from the search's last one, ‡ for an embedding rewound alone."""
        alone = any(run.get("rewound_alone") for run in self.runs)
        return CUT * from_last(self.runs) + ALONE * alone

    @property
    def seeds(self) -> str:
        """How many."""
        return str(len(pooling.seeds_of(self.runs)))

    @property
    def parameters(self) -> str:
        """Of the embedding."""
        return f"{round(self.mean('num_embedding_params')):,}"


# the records

@cache
def shipped(alone: bool = False, synthetic: str = "") -> Results:
    """The shipped results: the one place that loads them.

    Args:
        alone: take the tickets of which the embedding alone was rewound, as if these were the
            published ones, and leave out the others. They carry `rewound_alone`.
        synthetic: of synthetic data in the place of real ones, the kind; "" is real data.
    """
    results = results_in(SHIPPED, planted=synthetic)
    if not alone:
        return results
    others = [run for run in results if run["stage"] != "retrain"]
    return others + [{**run, "rewound_alone": True,
                      "settings": {**run["settings"], "rewind": "all"}}
                     for run in results if pooling.rewound_alone(run)]


def benchmarks(name: str, device: str = "amd-epyc") -> list[Any]:
    """The records of a benchmark on a device, newest first.

    Raises:
        FileNotFoundError: there is none.
    """
    found = sorted(BENCHMARKS.glob(f"*_{name}_{device}.json"), reverse=True)
    if not found:
        raise FileNotFoundError(f"there is no record of the benchmark {name} on {device} in "
                                f"{BENCHMARKS}")
    return [json.loads(path.read_text()) for path in found]


# MovieLens-1M

def published(model: str, select: Select, alone: bool = False) -> Results:
    """One run a seed of the published runs that `select` picks.

    Args:
        alone: as for `shipped`.
    """
    results = shipped(alone)
    page = Page("docs", MOVIELENS, model, "")  # collects notes that nobody reads here
    found = choice.of(page, results, model)
    return choice.of_most_seeds(page, "", select(found), found)


def chosen(model: str, select: Select) -> Results:
    """The same of tickets rewound whole, or of the others (‡) where these have more seeds."""
    return max((published(model, select, alone) for alone in (False, True)), key=len)


def of_settings(model: str, wanted: dict[str, Any], parent: dict[str, Any], **more: Any) -> Results:
    """One run a seed of runs that have some settings besides the published ones.

    Args:
        wanted: settings of the run.
        parent: settings of the search that its snapshot is from; {} for a run without one.
        more: fields of the result, such as `num_embedding_params`.
    """
    for alone in (False, True):
        results = [run for run in shipped(alone) if run["settings"]["dataset"] == MOVIELENS]
        by_id = pooling.by_run(results)
        found = [run for run in results if run["settings"]["model"] == model
                 and _has(run["settings"], wanted) and _has(run, more)
                 and not pooling.rewound_alone(run) and pooling.full_length(run)
                 and _has((pooling.parent_of(run, by_id) or {}).get("settings", {}), parent)]
        if sets := pooling.averaged(found, by_id):
            return max(sets, key=len)
    return []


def _has(values: dict[str, Any], wanted: dict[str, Any]) -> bool:
    return all(values.get(name) == value for name, value in wanted.items())


def at_budget(runs: Results, budget: int) -> Results:
    """The tickets of a budget."""
    return [run for run in runs if choice.budget_of(run) == budget]


def ticket(model: str, budget: int) -> Line:
    """PEP at a budget."""
    return Line(PEP, chosen(model, lambda found: at_budget(choice.tickets(found), budget)))


def uniform(model: str, width: int) -> Line:
    """The uniform table of a width."""
    return Line(f"uniform d {width}", chosen(model, lambda found: choice.uniform(found, width)))


def regression() -> Line:
    """Logistic regression."""
    return Line("-", chosen("linear", lambda found: [run for run in found
                                                     if run["stage"] == "train"]))


@cache
def tickets(model: str) -> list[Line]:
    """PEP at every budget of a model that any ticket has, largest first."""
    budgets = {choice.budget_of(run) for run in [*shipped(False), *shipped(True)]
               if run["settings"]["model"] == model and run["stage"] == "retrain"
               and kind(run) == PEP}
    lines = [ticket(model, budget) for budget in sorted(budgets, reverse=True)]
    return [line for line in lines if line.runs]


DECAY_ONLY = "PEP, thresholds moved by decay alone"
DECAY_LARGE = "uniform d 8, decay of the embedding 1e-3"


def special() -> dict[str, list[Line]]:
    """Runs by model that depart from the published settings and belong beside them."""
    penalty = {"l2_penalty": 1e-3}
    return {
        "fm": [Line("PEP, `l2_penalty` 1e-3", of_settings(
            "fm", penalty, penalty, stage="retrain", num_embedding_params=budget))
            for budget in (23_675, 6_541)],
        "deepfm": [
            Line(DECAY_ONLY, of_settings(
                "deepfm", {"rewind": "all"}, {"threshold_gradient": False, "latent_dim": 64},
                stage="retrain", num_embedding_params=8_604)),
            Line("PEP, start of the thresholds -8", of_settings(
                "deepfm", {"rewind": "all"}, {"threshold_init": -8.0}, stage="retrain",
                num_embedding_params=8_604)),
            Line(DECAY_LARGE, of_settings(
                "deepfm", {"latent_dim": 8, "embedding": "uniform", "l2_regularization": 1e-3,
                           "weight_decay": 1e-5}, {}, stage="train"))],
        "autoint": []}


def data_of_movielens() -> Run:
    """What the newer records say of the data: rows, positives."""
    return next(run["data"] for run in shipped()
                if run["settings"]["dataset"] == MOVIELENS and "positives" in run.get("data", {}))


RESULTS_HEAD = ("model", "table", "parameters", "test AUC", "test log-loss",
                "published protocol", "paper", "seeds")


def results_row(model: str, line: Line) -> tuple[str, ...]:
    """A row under RESULTS_HEAD."""
    method = method_of(MOVIELENS, model)
    paper = PAPER[MOVIELENS][method] if method else None
    own = PEP in line.what or model == "linear"
    beside = paper is not None and own and paper.params == line.mean("num_embedding_params")
    protocol = spread([run["published_protocol"]["best_test_auc"] for run in line.runs])
    return (shown(model), line.what + line.marks, line.parameters, line.spread("test_auc"),
            line.spread("test_logloss"), protocol, f"{paper.auc:.4f}" if paper and beside else "",
            line.seeds)


def results() -> str:
    """Every model at every size with the published settings, and a few others."""
    rows: Rows = [results_row("linear", regression())]
    for model in MODELS:
        lines = [uniform(model, width) for width in (64, 16, 8)] + tickets(model)
        lines += special()[model] + of_other_starts(model)
        lines = [line for line in lines if line.runs]
        lines.sort(key=lambda line: -line.mean("num_embedding_params"))
        rows += [results_row(model, line) for line in lines]
    return Table(RESULTS_HEAD, rows).markdown()


def papers_budget(model: str) -> int:
    """The smallest budget of the paper, that of its Table 4."""
    return PAPER[MOVIELENS][method_of(MOVIELENS, model) or ""].params


@cache
def of_other_starts(model: str) -> list[Line]:
    """PEP at every budget from the start of the thresholds that validation chooses, smallest first,
    then from the other one of `starts.drawn`; nothing of the published start."""
    others = starts.of_other_starts(shipped(), MOVIELENS, model, papers_budget(model))
    lines: list[Line] = []
    for start, by_size in others.items():
        lines += [Line(f"{PEP}, {start.words}", runs) for runs in by_size.values()]
    return lines


MOVED_HEAD = ("model", "entries", "test AUC, published start", "the chosen start",
              "`l2_penalty` at it", "the embedding alone rewound", "published protocol")


def moved() -> str:
    """What moves a ticket of the paper's budget: the start of the thresholds, the penalty that
    validation likes best, the rewinding, and the published patience on test rows."""
    rows: Rows = []
    for model in MODELS:
        found = starts.by_start(starts.runs_of_every_start(
            Page("docs", MOVIELENS, model, ""), shipped(), model)).get(papers_budget(model), {})
        best = starts.chosen(found)
        if best is None:
            continue
        plain = best._replace(penalty=0.0)
        penalised = [start for start in found if start.init == best.init and start.penalty
                     and start.may_be_chosen]
        penalty = max(penalised, key=lambda start: starts.mean(found[start], "validation_auc"),
                      default=plain)
        published = ticket(model, papers_budget(model))
        protocol = [run["published_protocol"]["best_test_auc"] for run in found[best]]
        rows.append((
            shown(model), f"{papers_budget(model):,}",
            published.spread("test_auc") + published.marks if published.runs else "",
            f"{plain.init:g}: {_scored(found, plain)}",
            f"{penalty.penalty:g}: {_scored(found, penalty)}" if penalised else "",
            _scored(found, best._replace(rewind="embedding")),
            spread(protocol)))
    return Table(MOVED_HEAD, rows).markdown()


def _scored(found: starts.Starts, start: starts.Start) -> str:
    if start not in found:
        return ""
    line = Line(PEP, found[start])
    return f"{line.spread('test_auc')}{line.marks} ({counted(int(line.seeds), 'seed')})"


def headline() -> str:
    """Of each model: the uniform table, the smallest ticket whose AUC is within the sampling error
    of the test rows below it (none where no ticket is), and those of the paper's budget from the
    published start and from the chosen one."""
    rows: Rows = [results_row("linear", regression())]
    for model in MODELS:
        full = uniform(model, 64)
        error = sampling.of_data(full.mean("test_auc"), data_of_movielens()) or 0.0
        equal = [line for line in tickets(model)
                 if line.mean("test_auc") > full.mean("test_auc") - error]
        budget = papers_budget(model)
        chosen = [line for line in of_other_starts(model) if at_budget(line.runs, budget)][:1]
        at_paper = [ticket(model, budget), *chosen]
        rows += [results_row(model, line) for line in (full, *equal[-1:], *at_paper) if line.runs]
    return Table(RESULTS_HEAD, rows).markdown()


# baselines

SHORT = (("l2_regularization 1e-05", "decay 1e-5"), ("l2_regularization 0.0001", "decay 1e-4"),
         (" (embedding alone; the rest 1e-05)", ""), ("latent_dim", "d"), ("mde_", ""),
         ("mgqe_", ""), ("darts_", ""), ("hash_rows", "rows"), ("qr_", ""), ("threshold_init",
                                                                           "start"))
BASELINES_HEAD = ("scheme", "settings", "parameters", "KB", "test AUC", "test log-loss", "seeds")


def entries(model: str) -> list[baselines.Entry]:
    """Every scheme at every size as it was tuned, tickets as for `chosen`."""
    found: dict[tuple[str, str, int], baselines.Entry] = {}
    for alone in (False, True):
        page = Page("docs", MOVIELENS, model, "")
        runs = choice.of(page, shipped(alone), model, tuned=True)
        for entry in fig2.points(page, runs, SHIPPED, MOVIELENS, model):
            first = entry.results[0]
            retrained = first["stage"] == "retrain"
            size = choice.budget_of(first) if retrained else first["num_embedding_params"]
            where = entry.scheme, "" if retrained else entry.settings, size
            if where not in found or len(entry.results) > len(found[where].results):
                found[where] = entry
    order = list(dict.fromkeys(entry.scheme for entry in found.values()))
    return sorted(found.values(), key=lambda entry: (order.index(entry.scheme),
                                                     entry.mean("num_embedding_params")))


def baselines_of(model: str) -> str:
    """PEP beside all other schemes, by scheme and rising size."""
    rows: Rows = []
    for entry in entries(model):
        line, settings = Line(entry.scheme, entry.results), entry.settings
        for name, short in SHORT:
            settings = settings.replace(name, short)
        size = line.mean("inference_bytes") / 1000 if entry.has("inference_bytes") else None
        rows.append((shown(entry.scheme) + line.marks, settings or "as published",
                     line.parameters, "-" if size is None else f"{size:,.0f}",
                     line.spread("test_auc"), line.spread("test_logloss"), line.seeds))
    return Table(BASELINES_HEAD, rows).markdown()


def of_page(build: Callable[..., Page], dataset: str, model: str = "fm") -> str:
    """The first table of a page, of the shipped runs."""
    made = build(shipped(), SHIPPED, dataset, model).tables[0]
    return made.markdown() if made.rows else "No run is shipped yet."


# beyond the paper

def causes() -> str:
    """What is left at the end of a search when one cause of pruning is taken away, and why."""
    rows: Rows = []
    for cause, name in thresholds.NAMES.items():
        def of_cause(found: Results, cause: choice.Cause = cause) -> Results:
            return choice.searches(found, cause)

        line = Line(name, published("fm", of_cause))
        ends = [run["thresholds"]["lines"][-1] for run in line.runs]
        rows.append((name, count([run["num_embedding_params"] for run in line.runs]),
                     *(count([end[field] for end in ends]) for field in thresholds.PRUNED_BY),
                     line.seeds))
    return Table(("FM, after 100 epochs", "entries left",
                     "pruned by decay", "pruned by the gradient", "kept by the gradient",
                     "seeds"), rows).markdown()


def count(values: Sequence[float]) -> str:
    """Mean and standard deviation of whole numbers.

    >>> count([20_000, 21_000])
    '20,500 ± 707'
    """
    return f"{statistics.mean(values):,.0f} ± {statistics.stdev(values):,.0f}"


def difference(ours: Select, others: Select, what: str) -> Rows:
    """PEP's AUC less another's, paired by seed: a row, or none where no seed has both.

    Both sides are rewound in the same way: whole, or the embedding alone (‡) where that has more
    seeds.
    """
    best: tuple[Line, Line, list[float], str] | None = None
    for alone in (False, True):
        one, other = (Line("", published("fm", select, alone)) for select in (ours, others))
        values = paired.differences(one.runs, other.runs, "test_auc")
        if values and (best is None or len(values) > len(best[2])):
            best = one, other, values, ALONE * alone
    if best is None:
        return []
    one, other, values, mark = best
    gain = paired.interval(values)
    return [(one.parameters, what + mark, one.spread("test_auc"), other.spread("test_auc"),
             str(gain), gain.verdict, str(gain.seeds))]


DIFFERENCE_HEAD = ("parameters", "PEP against", "PEP", "the other", "difference (95 %)",
                   "PEP is", "seeds")


def decay_only() -> str:
    """The learned mask less that of thresholds which decay alone moves."""
    rows: Rows = []
    for size in (50_000, 23_675, 10_000, 6_541):
        def learned(found: Results, size: int = size) -> Results:
            return at_budget(choice.tickets(found), size)

        def by_decay(found: Results, size: int = size) -> Results:
            return at_budget(choice.tickets(found, moved_by=("coupled", False)), size)

        rows += difference(learned, by_decay, "decay-only threshold")
    return Table(DIFFERENCE_HEAD, rows).markdown()


def to_the_extreme() -> str:
    """PEP less magnitude pruning and uniform tables of the same size, nothing tuned."""
    rows: Rows = []
    sizes = sorted({*extreme.BUDGETS, 50_000, 6_541}, reverse=True)
    for size in sizes:
        def ours(found: Results, size: int = size) -> Results:
            return at_budget(choice.tickets(found), size)

        def pruned(found: Results, size: int = size) -> Results:
            return at_budget([run for run in found if run["stage"] == "retrain"
                              and kind(run) == extreme.MAGNITUDE], size)

        def narrow(found: Results, size: int = size) -> Results:
            runs = chain.from_iterable(choice.uniform(found, width) for width in extreme.WIDTHS)
            return [run for run in runs if run["num_embedding_params"] == size]

        rows += difference(ours, pruned, extreme.MAGNITUDE)
        rows += difference(ours, narrow, extreme.UNIFORM)
    return Table(DIFFERENCE_HEAD, rows).markdown()


# UMEC and AFM

def umec(build: Callable[..., Page], dataset: str, synthetic: str = "") -> str:
    """Test AUC of each method at each budget, as the figure's page has it."""
    [table] = build(shipped(synthetic=synthetic), SHIPPED, dataset, "dlrm").tables
    return table.markdown()


AFM_COLUMNS = (0, 1, 2, 3, 4, 8, 9, 12, 13)  # of the page's table, under its HEAD
AFM_HEAD = ("scheme", "ranks", "epochs", "embedding parameters", "all parameters",
            "before fine-tuning", "fine-tuned", "less the control (95 %)", "seeds")


def afm(model: str) -> str:
    """AFM, its baselines and the dense control, largest table first."""
    results = shipped()
    here = [run for run in results if run["settings"]["dataset"] == MOVIELENS
            and run["settings"]["model"] == model]
    page = afm_page.build(results, SHIPPED, MOVIELENS, model)
    groups = afm_page.grouped([run for run in page.behind if run["stage"] == FINETUNED])
    groups.sort(key=lambda group: -group[1][0]["compression"]["parameters"]["embedding"])
    lines = [afm_page.line(name, runs, here) for name, runs in groups]
    return Table(AFM_HEAD,
                 [tuple(line[column] for column in AFM_COLUMNS) for line in lines]).markdown()


# benchmarks

def step_speed(device: str = "amd-epyc") -> str:
    """Milliseconds of a training step by model, number of threads and precision."""
    times: dict[tuple[str, int], dict[str, Run]] = {}
    for records in benchmarks("step", device):  # older ones have what newer ones lack
        known = set(times)
        for record in records:
            key = record["model"], record["threads"]
            if key not in known:
                times.setdefault(key, {})[record["variant"]] = record
    return step_table(times)


def step_table(times: dict[tuple[str, int], dict[str, Run]]) -> str:
    """`step_speed` of records by model and threads, and by variant."""
    rows: Rows = []
    for model, threads in sorted(times, key=lambda key: (MODELS.index(key[0]), key[1])):
        by_variant = times[model, threads]
        published, base = (by_variant[name]["ms_per_step"] for name in ("published", "uniform"))
        for precision, name in (("float32", "pep"), ("bfloat16", "pep_bfloat16")):
            if name in by_variant:
                pep, exact = by_variant[name]["ms_per_step"], name == "pep"
                rows.append((shown(model), str(threads), precision, f"{published:.2f}",
                             f"{pep:.2f}", f"{base:.2f}" if exact else "",
                             f"{published / pep:.1f} x",
                             f"{100 * (pep / base - 1):+.0f} %" if exact else "",
                             f"{by_variant[name]['samples_per_second']:,.0f}"))
    return Table(("model", "threads", "products in", "published, ms", "PEP, ms", "uniform, ms",
                  "PEP against published", "PEP over uniform", "PEP, rows/s"), rows).markdown()


def epoch_speed() -> str:
    """Seconds of an epoch (the paper's Table 2)."""
    page = table2.build([], SHIPPED, MOVIELENS, "fm")
    seconds = {(row["model"], row["variant"]): row["seconds_of_an_epoch"] for row in page.rows}
    rows: Rows = []
    for model in MODELS:
        base, pep, darts = (seconds[model, name] for name in ("base", "pep", "darts"))
        rows.append((shown(model), f"{base:.2f}", f"{pep:.2f}", f"{darts:.2f}",
                     f"{100 * (pep / base - 1):+.0f} %", f"{100 * (darts / base - 1):+.0f} %"))
    means = [statistics.mean(100 * (seconds[model, name] / seconds[model, "base"] - 1)
                             for model in MODELS) for name in ("pep", "darts")]
    papers = [table2.INCREASE[name] for name in ("pep", "darts")]
    rows.append(("mean (paper, Criteo)", "", "", "",
                 *(f"{mean:+.1f} % ({paper:+} %)" for mean, paper in zip(means, papers,
                                                                        strict=True))))
    return Table(("seconds", "base", "PEP", "DartsEmb", "PEP over base",
                     "DartsEmb over base"), rows).markdown()


def scale_records() -> list[Run]:
    """Of every model and size of the table, what was measured last; no record of one step is
    beside that of another in a line."""
    found: dict[tuple[str, int], list[Run]] = {}
    for records in benchmarks("scale"):
        own: dict[tuple[str, int], list[Run]] = defaultdict(list)
        for record in records:
            own[record["model"], record["num_rows"]].append(record)
        found = {**own, **found}
    order = sorted(found, key=lambda key: (MODELS.index(key[0]), key[1]))
    return list(chain.from_iterable(found[key] for key in order))


def scale_speed() -> str:
    """Milliseconds of a search's step by rows of the table."""
    # as older records call them, and as they are called now
    names = {"naive": "published", "dense": "streamed", "deferred": "lazy", "auto": "chosen",
             "uniform": "uniform"}
    today = {now: old for old, now in names.items()}
    records: dict[tuple[str, int], dict[str, Run]] = defaultdict(dict)
    for record in scale_records():
        variant: str = record["variant"]
        records[record["model"], record["num_rows"]][today.get(variant, variant)] = record
    rows: Rows = []
    for (model, size), found in records.items():
        if "auto" not in found:
            forms = [found[name] for name in ("dense", "deferred") if name in found]
            found["auto"] = min(forms, key=lambda record: record["ms_per_step"])
        times = [f"{found[name]['ms_per_step']:,.1f}" if name in found else "" for name in names]
        naive, auto, base = (found[name]["ms_per_step"] for name in ("naive", "auto", "uniform"))
        peaks = ", ".join(f"{found[name]['peak_memory_bytes'] / 1e9:.2f}"
                          for name in ("naive", "auto", "uniform"))
        rows.append((shown(model), f"{size:,}", *times, f"{naive / auto:.1f} x",
                     f"{auto / base:.2f} x", peaks, found["uniform"]["commit"][:7]))
    return Table(("model", "rows", "published", "streamed", "lazy", "chosen", "uniform",
                     "chosen against published", "chosen over uniform",
                     "peak GB: published, chosen, uniform", "commit"), rows).markdown()


def scale_gpu() -> str:
    """Milliseconds and memory of a search's step on a GPU by rows of the table."""
    variants = {"naive": "published", "streamed": "streamed", "lazy": "lazy", "uniform": "uniform"}
    by_rows: dict[int, dict[str, Run]] = defaultdict(dict)
    for record in benchmarks("scale", "nvidia-h200")[0]:
        by_rows[record["num_rows"]][record["variant"]] = record
    rows: Rows = [(f"{size:,}", *(f"{found[name]['ms_per_step']:.2f}" for name in variants),
                   *(f"{found[name]['peak_memory_bytes'] / 1e9:.2f}" for name in variants))
                  for size, found in by_rows.items()]
    head = [*(f"{name}, ms" for name in variants.values()),
            *(f"{name}, GB" for name in variants.values())]
    return Table(("rows", *head), rows).markdown()


def encode_speed() -> str:
    """Raw files to encoded sets."""
    way = {"lmdb": "row by row, LMDB", "ours": "ours"}
    rows: Rows = [(shown(record["dataset"]), f"{record['rows']:,}", way[record["variant"]],
                   f"{record['seconds']:.0f}", f"{record['rows_per_second']:,.0f}",
                   f"{record['peak_memory_bytes'] / 1e9:.1f} GB",
                   f"{record['stored_bytes'] / 1e9:.1f} GB") for record in benchmarks("encode")[0]]
    return Table(("file, synthetic", "rows", "way", "seconds", "rows/s", "peak memory",
                     "stored"), rows).markdown()


def encode_jobs() -> str:
    """Raw files read by several processes; medians over the rounds."""
    by_jobs: dict[int, list[Run]] = defaultdict(list)
    for record in benchmarks("encode-jobs")[0]:
        by_jobs[record["jobs"]].append(record)
    rows: Rows = []
    for jobs, records in by_jobs.items():
        middle = {name: statistics.median(record[name] for record in records)
                  for name in ("seconds", "processor_seconds", "peak_memory_bytes",
                               "peak_memory_of_others_bytes")}
        others = middle["peak_memory_of_others_bytes"]
        rows.append((str(jobs), f"{records[0]['rows']:,}", f"{middle['seconds']:.1f}",
                     f"{middle['processor_seconds']:.1f}",
                     f"{middle['peak_memory_bytes'] / 1e9:.2f}",
                     f"{others / 1e9:.2f}" if others else ""))
    return Table(("processes", "rows", "seconds", "processor seconds", "peak GB",
                  "peak GB of a reading process"), rows).markdown()


def table_speed() -> str:
    """A table of one's own: encoded, and read by other readers."""
    way = {"csv": "CSV, encoded", "parquet": "Parquet, encoded"}
    rows: Rows = [(way.get(record["variant"], f"CSV read by {record['variant']}, no more"),
                   f"{record['rows']:,}", f"{record['seconds']:.1f}",
                   f"{record['processor_seconds']:.1f}", f"{record['rows_per_second']:,.0f}",
                   f"{record['peak_memory_bytes'] / 1e9:.2f} GB")
                  for record in benchmarks("table")[0]]
    return Table(("what", "rows", "seconds", "processor seconds", "rows/s", "peak memory"),
                 rows).markdown()


def stranger() -> str:
    """From a CSV to a table of kept sizes: the three commands."""
    rows: Rows = [(step["what"], f"{step['seconds']:.0f}", f"{step['processor_seconds']:.0f}",
                   f"{step['peak_memory_bytes'] / 1e9:.2f} GB")
                  for step in benchmarks("stranger")[0]["steps"] if "seconds" in step]
    return Table(("command", "seconds", "processor seconds", "peak memory"), rows).markdown()


def scale_processes() -> str:
    """Processor time, memory and bytes of a search's step in several processes."""
    records = benchmarks("scale-processes")[0]
    rows: Rows = [(f"{record['num_rows']:,}",
                   str(record["processes"] or "1, without lanes"),
                   f"{record['processor_ms_per_step']:.1f}",
                   f"{record['peak_memory_bytes'] / 1e6:,.0f}",
                   f"{record['bytes_per_step'] / 1e6:.2f}")
                  for record in records]
    table = Table(("rows", "processes", "processor ms", "peak MB", "MB a step"), rows).markdown()
    return "\n\n".join([table, *{record["note"] for record in records if "note" in record}])


def serving_lookups() -> str:
    """Microseconds of a lookup in each form of an exported table, and its ratio to a dense one."""
    record = benchmarks("serving")[0]
    times = {name: record[name]["lookups"]["microseconds"] for name in ("movielens", "criteo")}
    rows: Rows = [(form, *(_beside_dense(each, form)
                           for each in chain.from_iterable(own.values() for own in times.values())))
                  for form in times["movielens"]["1"]]
    head = [f"{record[name]['lookups']['rows']:,} rows: {int(batch):,} x {record['fields']}"
            for name, batch in product(times, times["movielens"])]
    return Table(("form, us", *head), rows).markdown()


def _beside_dense(times: dict[str, float], form: str) -> str:
    return f"{times[form]:,.1f} ({times[form] / times['dense']:.2f})"


def serving_files() -> str:
    """Bytes, loading and raw rows of an exported FM of Criteo's size."""
    rows: Rows = []
    for values, made in benchmarks("serving-files")[0]["criteo"]["files"].items():
        sizes = made["bytes"]
        rows.append((values, f"{sizes['table']:,}", f"{sizes['first_order']:,}",
                     f"{sizes['rest'] + sizes['file_header']:,}", f"{sizes['vocabulary']:,}",
                     f"{made['load_seconds']:.2f} s",
                     f"{made['added_peak_memory_bytes'] / 1e6:.0f} MB",
                     f"{made['file_added_peak_memory_bytes'] / 1e6:.0f} MB",
                     f"{made['raw_rows_per_cpu_second']:,.0f}",
                     f"{made['definition_rows_per_cpu_second']:,.0f}"))
    return Table(("values", "table", "first-order weights", "rest", "vocabulary", "load",
                  "memory", "memory, a file", "raw rows per CPU second", "in several passes"),
                 rows).markdown()


def export_sizes() -> str:
    """Bytes and parity of an exported ticket, by the type of its values."""
    record = benchmarks("export")[0]
    dense = 4 * sum(record["field_sizes"]) * record["settings"]["latent_dim"]
    rows: Rows = []
    for values in TYPES:
        sizes, parity = (record["values"][values][part] for part in ("bytes", "parity"))
        if not rows:
            rows.append(("the run", f"({dense:,} dense)", "", "", f"{parity['auc']:.6f}", ""))
        rows.append((values, f"{sizes['table']:,}", f"{sizes['first_order']:,}",
                     f"{sizes['vocabulary']:,}", f"{parity['auc_exported']:.6f}",
                     f"{parity['largest_difference']:.0e}"))
    return Table(("values", "table", "first-order weights", "vocabulary", "validation AUC",
                  "probabilities differ by at most"), rows).markdown()


def synthetic_kind() -> str:
    """The one kind of synthetic Criteo file that runs are shipped of."""
    return next(name for name in runs_csv.kinds(SHIPPED / RUNS_CSV) if name)


TABLES: dict[str, Callable[[], str]] = {
    "headline": headline, "results": results, "moved": moved,
    "baselines-fm": lambda: baselines_of("fm"), "baselines-deepfm": lambda: baselines_of("deepfm"),
    "leaderboard": lambda: of_page(leaderboard.build, "frappe"),
    "frappe-fm": lambda: of_page(fig2.build, "frappe"),
    "frappe-deepfm": lambda: of_page(fig2.build, "frappe", "deepfm"),
    "frappe-autoint": lambda: of_page(fig2.build, "frappe", "autoint"),
    "ids-fm": lambda: of_page(fig2.build, "movielens_ids"),
    "ids-deepfm": lambda: of_page(fig2.build, "movielens_ids", "deepfm"),
    "causes": causes, "decay-only": decay_only, "extreme": to_the_extreme,
    "umec-criteo": lambda: umec(umec_fig2.build, "criteo"),
    "umec-fields-criteo": lambda: umec(umec_fig3.build, "criteo"),
    "umec-planted": lambda: umec(umec_fig2.build, "planted_fields"),
    "umec-fields-planted": lambda: umec(umec_fig3.build, "planted_fields"),
    "umec-synthetic": lambda: umec(umec_fig2.build, "criteo", synthetic_kind()),
    "umec-fields-synthetic": lambda: umec(umec_fig3.build, "criteo", synthetic_kind()),
    "afm-deepfm": lambda: afm("deepfm"), "afm-autoint": lambda: afm("autoint"),
    "step-speed": step_speed, "step-speed-gpu": lambda: step_speed("nvidia-h200"),
    "scale-gpu": scale_gpu, "epoch-speed": epoch_speed, "scale-speed": scale_speed,
    "encode-speed": encode_speed, "encode-jobs": encode_jobs, "table-speed": table_speed,
    "stranger": stranger,
    "scale-processes": scale_processes, "serving-lookups": serving_lookups,
    "serving-files": serving_files, "export-sizes": export_sizes}


# the files

def files() -> list[Path]:
    """README and the pages of docs/."""
    return [Path("README.md"), *sorted(Path("docs").glob("*.md"))]


def filled(text: str, tables: dict[str, Callable[[], str]], where: str = "") -> str:
    """A text with its tables made anew.

    Args:
        where: the text's file, for errors.

    Raises:
        ValueError: a table has no such name, or a comment that opens a table has none that ends it.

    >>> print(filled("<!-- table: a -->\\nold\\n<!-- end -->", {"a": lambda: "new"}))
    <!-- table: a -->
    new
    <!-- end -->
    """
    names = re.findall(r"<!-- table: (\S+) -->", text)
    if unknown := sorted(set(names) - set(tables)):
        raise ValueError(f"{where}: no table is called {', '.join(unknown)}; there are: "
                         f"{', '.join(tables)}")
    whole = [name for _, name, _ in TABLE.findall(text)]
    if whole != names or text.count("<!-- end -->") != len(names):
        raise ValueError(f"{where}: each `<!-- table: NAME -->` needs an `<!-- end -->` of its own;"
                         f" found {len(names)} and {text.count('<!-- end -->')}")
    return TABLE.sub(lambda found: f"{found[1]}{tables[found[2]]()}\n{found[3]}", text)


def changed() -> dict[Path, str]:
    """The files whose tables are not those of the records, with the text that they should have."""
    found = {}
    for path in files():
        old = path.read_text()
        new = filled(old, TABLES, str(path))
        if new != old:
            found[path] = new
    return found


def main() -> None:
    """The command."""
    options = argparse.ArgumentParser(description=__doc__,
                                      formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--check", action="store_true", help="change nothing, list what differs")
    check = options.parse_args().check
    new = changed()
    for path, text in new.items():
        print(f"{path}: {'differs from the records' if check else 'tables written'}")
        if not check:
            path.write_text(text)
    if check and new:
        sys.exit(1)


if __name__ == "__main__":
    main()
