"""Table 1: what each scheme gives and costs. The paper ticks it by argument; here every cell is
measured.

A scheme has performance when the AUC of its best point, which validation chooses, is shown to be no
more than MARGIN lower than the base model's: the whole 95 % interval of the difference, paired by
seed, lies above that. Not shown to be lower would be no proof, and fewer than SEEDS_NEEDED seeds
are none either way. It saves parameters when such a point has fewer than the base model; the
smallest is given. It is cheap when an epoch of its search or training takes less than half as much
again as the base model's: the paper ticks +24 % and crosses +98 %. Only what was timed side by side
has a time: those of runs at different hours differ by half for one and the same work.
"""

import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from studies import choice, masks, paired, pooling
from studies.figures import fig2, table2
from studies.figures.baselines import Entry
from studies.figures.styles import STYLES
from studies.kinds import PEP, Results
from studies.page import RUNS, Page, bytes_counted, runs_of, shown
from studies.table import Table

HEAD = ("scheme", "performance", "best AUC less base's", "fewer parameters", "smallest as good",
        "its bytes",
        "computation", "epoch over base's", "sizes of features", "sizes from one search")
BASE = "base model"
Ticks = tuple[bool | None, bool | None, bool | None]  # performance, parameters, computation
PAPER: dict[str, Ticks] = {BASE: (True, False, True), "mde": (False, True, False),
                           "darts": (True, True, False),
                           PEP: (True, True, True)}  # its base model is AutoInt
MARGIN = 0.001  # of AUC, that a scheme as good as the base model may lose
SEEDS_NEEDED = 3
CHEAP = 0.5  # of the base model's epoch, on top
TIMED = {PEP: "pep", "darts": "darts"}  # in the benchmark of Table 2
NOTE = ("Yes and no are ours by these rules, ? is too little to tell, the paper's are in brackets "
        "where there are any (its base model is AutoInt). Performance: of the best point by "
        f"validation, the 95 % interval of its AUC less the base model's (paired by seed) lies "
        f"above -{MARGIN:g}: yes; else, where it lies below zero: no; with fewer than "
        f"{SEEDS_NEEDED} seeds, or otherwise: ?. Fewer parameters: yes where that holds of a "
        f"smaller point, no where every smaller point is lower. Computation: an epoch takes less "
        f"than {1 + CHEAP:g} times the base model's, timed side by side (Table 2), which PEP and "
        f"DartsEmb alone were. Sizes of features are counted where a scheme learns them.")


def build(results: Results, out: Path, dataset: str, model: str) -> Page:
    """The page of a data set and a model.

    Args:
        results: of any data sets and models.
        out: the folder that holds tuned/, benchmarks/ and embedding/.
    """
    page = Page("table1", dataset, model,
                f"Table 1: schemes compared, {shown(model)} on {shown(dataset)}")
    found = choice.of(page, results, model, tuned=True)
    widths = [run["settings"]["latent_dim"] for run in choice.searches(found)
              if pooling.as_published(run)]
    base = choice.chosen(page, f"base model, uniform d {widths[0]}" if widths
                         else "base model, uniform",
                         choice.uniform(found, widths[0] if widths else 0), found)
    if not base:
        return page
    record = table2.record_at(page, table2.record_of(out, dataset))
    times = record["ms_per_step_of_rounds"].get(model) if record else None
    by_scheme: dict[str, list[Entry]] = defaultdict(list)
    for entry in fig2.points(page, found, out, dataset, model):
        if entry.scheme in STYLES and entry.has("validation_auc"):
            by_scheme[entry.scheme].append(entry)
    lines: list[tuple[str, ...]] = [(BASE, _mark(True, True), "", _mark(False, False),
                         f"{base[0]['num_embedding_params']:,}",
                         f"{base[0].get('inference_bytes', 0):,}", _mark(True, True), "", "", "1")]
    for scheme in STYLES:
        if scheme in by_scheme:
            sizes = _sizes(page, out, by_scheme[scheme], found)
            lines.append(_line(page, scheme, by_scheme[scheme], base, times, sizes))
        elif scheme in PAPER:
            page.missing.append(f"{scheme}: no run")
    page.tables.append(Table(HEAD, lines))
    page.notes += [*bytes_counted(page.behind), NOTE]
    return page


def _line(page: Page, scheme: str, entries: Sequence[Entry], base: Results,
          times: dict[str, list[float]] | None, sizes: int | None) -> tuple[str, ...]:
    """A scheme's line under HEAD; its row of the csv goes to the page."""
    best = max(entries, key=lambda entry: entry.mean("validation_auc"))
    gain = _gain(best, base)
    smaller = [(entry, _as_good(_gain(entry, base))) for entry in entries
               if entry.mean("num_embedding_params") < base[0]["num_embedding_params"]]
    smallest = min((entry for entry, good in smaller if good),
                   key=lambda entry: entry.mean("num_embedding_params"), default=None)
    fewer = _any([good for _, good in smaller])
    over = _over(scheme, times)
    served = _from_one(entries)
    paper = PAPER.get(scheme, (None, None, None))
    line = (
        shown(scheme), _mark(_as_good(gain), paper[0]), str(gain or ""),
        _mark(fewer, paper[1]),
        f"{smallest.mean('num_embedding_params'):,.0f}" if smallest else "",
        f"{smallest.mean('inference_bytes'):,.0f}" if smallest and smallest.has("inference_bytes")
        else "",
        _mark(None if over is None else over < CHEAP, paper[2]),
        "" if over is None else f"{100 * over:+.0f} %", str(sizes or ""), str(served))
    used = [*best.results, *(smallest.results if smallest else ())]
    page.rows.append({"scheme": scheme, "best_auc": best.mean("test_auc"), "gain": gain.mean if gain
                      else "",
                      "gain_half": gain.half if gain else "", "seeds": gain.seeds if gain else 0,
                      "smallest_as_good": smallest.mean("num_embedding_params") if smallest else "",
                      "epoch_over_base": "" if over is None else over, "sizes_of_features": sizes
                      or "",
                      "sizes_from_one_search": served,
                      RUNS: runs_of({run["run_id"]: run for run in used}.values())})
    page.behind += [run for run in used if run not in page.behind]
    return line


def _gain(entry: Entry, base: Results) -> paired.Interval | None:
    values = paired.differences(entry.results, base, "test_auc")
    return paired.interval(values) if values else None


def _as_good(gain: paired.Interval | None) -> bool | None:
    """Whether a difference from the base model is shown to be at most MARGIN below it; None where
    nothing is shown.

    >>> [_as_good(paired.Interval(mean, 0.001, 3)) for mean in (0.0005, -0.0015, -0.0005)]
    [True, False, None]
    >>> _as_good(paired.Interval(0.01, 0.001, 2)) is None
    True
    """
    if gain is None or gain.seeds < SEEDS_NEEDED:
        return None
    if gain.mean - gain.half > -MARGIN:
        return True
    return False if gain.mean + gain.half < 0 else None


def _any(shown_of: Sequence[bool | None]) -> bool | None:
    """Whether any holds; None where none is known to, and not all of them (or nothing at all) are
    known not to.

    >>> _any([False, True, None]), _any([False, False]), _any([False, None]), _any([])
    (True, False, None, None)
    """
    if any(shown_of):
        return True
    return None if not shown_of or None in shown_of else False


def _over(scheme: str, times: dict[str, list[float]] | None) -> float | None:
    """Share of an epoch on top of the base model's; None where the two were not timed side by
    side."""
    if scheme not in TIMED or not times:
        return None
    return statistics.median(times[TIMED[scheme]]) / statistics.median(times["base"]) - 1


def _sizes(page: Page, out: Path, entries: Sequence[Entry], found: Results) -> int | None:
    """How many different sizes the features have at a scheme's best point; None where they are not
    learned."""
    best = max(entries, key=lambda entry: entry.mean("validation_auc"))
    first = best.results[0]
    if "features_by_width" in first:
        return len(first["features_by_width"])
    searches = [run for run in choice.searches(found)
                if run["run_id"] == first.get("snapshot", {}).get("run_id")]
    if best.scheme != PEP or not searches:
        return None
    mask = masks.mask_of(page, out, searches[0], choice.budget_of(first))
    return None if mask is None else len(np.unique(mask.sum(axis=1)))


def _from_one(entries: Sequence[Entry]) -> int:
    """Sizes that one search or training served."""
    by_search: dict[str, set[int]] = defaultdict(set)
    for entry in entries:
        for run in entry.results:
            by_search[run.get("snapshot", {}).get("run_id",
                                                  run["run_id"])].add(run["num_embedding_params"])
    return max(len(sizes) for sizes in by_search.values())


def _mark(holds: bool | None, paper: bool | None) -> str:
    """Ours, and the paper's in brackets.

    >>> _mark(True, False), _mark(None, None)
    ('yes (no)', '?')
    """
    words = {True: "yes", False: "no", None: "?"}
    return words[holds] + (f" ({words[paper]})" if paper is not None else "")
