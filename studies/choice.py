"""Which runs a page shows: those of one setting, of all seeds, and what is missing among them."""

from collections.abc import Collection, Sequence
from typing import Any

from studies import pooling
from studies.kinds import COMPRESSED, PEP, STEPPING_STONE, Results, kind
from studies.names import shown
from studies.page import Page
from utils.text import counted

SEEDS = (1, 2, 3)  # that every number of the paper's figures should have
# of the thresholds' movement: their decay, and whether the loss's gradient reaches them
Cause = tuple[str, bool]
PUBLISHED: Cause = ("coupled", True)
FINE = ("feature_dim",)  # the granularity of the thresholds that the paper's figures have


def of(page: Page, results: Results, *models: str, kinds: Collection[str] = (),
       tuned: bool = False) -> list[dict[str, Any]]:
    """The results of some models on a page's data set that the page may take (`studies.pooling`).

    How many are left out, and by which rule, the page says in a line; where no run has all rows of
    the data set, its title says what the data are.

    Args:
        kinds: schemes that the page shows ("uniform", "pep" for searches, PEP for tickets); () is
            all.
        tuned: keep runs of every setting, for a page that takes those that a tuning has chosen.
    """
    every = [result for result in results if result["settings"]["dataset"] == page.dataset]
    here = [result for result in every if result["settings"]["model"] in models
            and result["stage"] not in COMPRESSED and (not kinds or kind(result) in kinds)]
    if words_of_data := pooling.data_of(here, every, page.dataset).words:
        page.of_sample(words_of_data)
    page.data |= {result["manifest"]: result["data"] for result in every if "data" in result}
    kept, left = pooling.usable(here, every, page.dataset, tuned)
    if left:
        page.left_out.append(f"Left out ({' and '.join(map(shown, models))}): "
                             f"{pooling.words(left)}. This page takes "
                             f"{'whole runs' if tuned else 'whole runs of the published settings'} "
                             f"alone (`studies/pooling.py`).")
    return kept


def cause(run: dict[str, Any]) -> Cause:
    """What moved the thresholds of a search, or of the search before a retraining; older runs had
    no choice."""
    settings = run["settings"]
    return settings.get("threshold_decay", "coupled"), settings.get("threshold_gradient", True)


def searches(results: Results, moved_by: Cause = PUBLISHED,
             granularities: Collection[str] = FINE,
             with_linear: bool = False) -> list[dict[str, Any]]:
    """PEP's searches."""
    return [result for result in results if result["stage"] == "search" and kind(result) == "pep"
            and _asked(result, moved_by, granularities, with_linear)]


def tickets(results: Results, re_init: bool = False, moved_by: Cause = PUBLISHED,
            granularities: Collection[str] = FINE,
            with_linear: bool = False) -> list[dict[str, Any]]:
    """Retrained PEP snapshots, from their initial values or from fresh ones, however much was
    rewound.

    `chosen` takes those with every weight rewound alone, and says where there are only others.
    """
    return [result for result in results if result["stage"] == "retrain" and kind(result) == PEP
            and result["snapshot"]["source"] != STEPPING_STONE
            and _asked(result, moved_by, granularities, with_linear)
            and result["settings"].get("re_init", False) == re_init]


def _asked(run: dict[str, Any], moved_by: Cause, granularities: Collection[str],
           with_linear: bool) -> bool:
    """Whether a search or ticket has what a page asks for of `pooling.VARIED`."""
    settings = run["settings"]
    return (cause(run) == moved_by and settings["threshold_type"] in granularities
            and settings.get("with_linear", False) == with_linear)


def uniform(results: Results, width: int) -> list[dict[str, Any]]:
    """Base models of a width."""
    return [result for result in results if result["stage"] == "train" and kind(result) == "uniform"
            and result["settings"]["latent_dim"] == width
            and not result["settings"].get("with_linear", False)]


def budget_of(ticket: dict[str, Any]) -> int:
    """The budget that a ticket's snapshot was saved for; its parameters where the record names
    none."""
    return (ticket["snapshot"].get("budgets") or [ticket["num_embedding_params"]])[0]


def nearest(budgets: set[int], wanted: float) -> int:
    """The budget with the smallest ratio to the wanted one.

    >>> nearest({10_000, 23_675, 50_000}, 0.09 * 264_256)
    23675
    """
    return min(budgets, key=lambda budget: (max(budget / wanted, wanted / budget), budget))


def chosen(page: Page, what: str, results: Results, every: Results) -> list[dict[str, Any]]:
    """One run a seed, of those that may be averaged; the page learns what is used, missing or left
    out."""
    taken = of_most_seeds(page, what, results, every)
    list_absent(page, what, taken, results)
    page.behind += [result for result in taken if result not in page.behind]
    return taken


def of_most_seeds(page: Page, what: str, results: Results, every: Results) -> list[dict[str, Any]]:
    """The published runs that may be averaged (`pooling.averaged`), one a seed, of tickets those
    wholly rewound.

    Where there are several sets of such runs, as of two forms of the data, the one with the most
    seeds is taken, and a note says how many runs are left out.

    Args:
        what: the runs, in words.
        results: to choose among, all with the settings that the page asks for.
        every: the results among which a ticket's search is looked up.
    """
    by_id = pooling.by_run(every)
    sets = pooling.averaged([run for run in results if not pooling.rewound_alone(run)
                             and pooling.published(run, by_id)], by_id)
    if not sets:
        return []
    best = max(sets, key=len)
    if others := sum(len(each) for each in sets if each is not best):
        page.notes.append(f"{what}: left out, {counted(others, 'run')} of other settings.")
    return best


def alike(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two searches or trainings differ in nothing but the seed and settings that change no
    result."""
    return pooling.key(one, {}) == pooling.key(other, {})


def list_absent(page: Page, what: str, taken: Results, every: Results = ()) -> None:
    """Say which seeds are missing among some runs, and where tickets that do not count exist
    instead.

    Args:
        every: the runs that these were chosen from, of which those with the embedding alone rewound
            are named.
    """
    absent = [seed for seed in SEEDS if seed not in pooling.seeds_of(taken)]
    others = [run for run in every if pooling.rewound_alone(run)
              and (run["seed"] in absent or not taken)]
    if absent and taken:
        line = f"{what}: seed{'s' * (len(absent) > 1)} {words(absent)}"
    elif not taken:
        line = f"{what}: no run (seeds {words(SEEDS)})"
    else:
        return
    page.missing.append(line + rewound_words(others))


def rewound_words(others: Results) -> str:
    """That tickets exist which do not count, to stand after a line on what is missing."""
    seeds = pooling.seeds_of(others)
    return (f"; tickets with the embedding alone rewound exist (seed{'s' * (len(seeds) > 1)} "
            f"{words(seeds)}) and do not count") if seeds else ""


def words(seeds: Sequence[int]) -> str:
    """Seeds in a sentence.

    >>> words([1, 2])
    '1, 2'
    """
    return ", ".join(map(str, seeds))
