"""Which runs may stand in a page, and which are averaged: the one place that decides it.

A page that stands beside the paper takes a run when all of this holds, and counts the others in
a line:

- **Full length.** A training or retraining that early stopping ended is at full length whatever
  its `max_epochs`: a longer limit would not have changed it. (Under a cosine it would have: there
  `max_epochs` is a setting like others.) One that ran into `max_epochs` is at full length when that
  is at least the script's (LENGTH). A search is never stopped early, so it must have the script's
  very length, or have met its last budget before.
- **The data set's own rows**, all of them (ROWS). Where no run has them, the page shows the data
  that most runs have, says so in its title, and puts nothing beside the paper.
- **Not the published protocol** (`--published`), whose runs are counted under that name.
- **The published settings** (DEPARTURES and DECAYS), but for those that a page asks for by itself
  (VARIED), or those that a tuning has chosen. A ticket's search counts like the ticket.
- **Every weight rewound.** A retraining starts all weights, not the table alone, from the values
  that the search began with, as the published code does in effect. Where only tickets with the
  table alone rewound exist, the point is missing, and the page says that they exist.

Runs are averaged when they differ in nothing but the seed and FREE settings, which change no
result (`key`), and each seed counts once. Of several runs of one seed that is the one with the
larger `max_epochs`; of those, the newer form of record; of those, the first by run id
(`one_a_seed`). Runs that were cut at different lengths are not averaged: the longest are taken.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from studies.kinds import COMPRESSED, FREE, Results, kind
from studies.published import PATIENCE
from utils.text import counted

Result = dict[str, Any]

ROWS = {"movielens": 739_012, "criteo": 45_840_617, "avazu": 40_428_967, "frappe": 288_609,
        "movielens_ids": 739_012}
SPLIT = {"frappe": "auto"}  # where the data's own split is not the random one
# max_epochs of the presets
LENGTH = {"movielens": 100, "criteo": 30, "avazu": 30, "frappe": 150, "movielens_ids": 100}
_LARGE = {"early_stop": 5, "eval_interval": 1, "latent_dim": 24, "log_interval": 100,
          "threshold_init": -150.0, "mlp_dims": [400, 400, 400], "att_dropout": 0.0}
DEPARTURES: dict[str, dict[str, Any]] = {  # of the scripts from the neutral defaults, and those
    # of a search that a ticket's identity does not name
    "movielens": {"threshold_init": -15.0}, "movielens_ids": {"threshold_init": -15.0},
    "criteo": _LARGE, "avazu": _LARGE,
    "frappe": {"threshold_init": -15.0, "lr": 3e-3, "eval_interval": 1}}
DECAYS = {"l2_regularization": 1e-5, "weight_decay": 1e-5, "l2_penalty": 0.0}  # of the scripts
VARIED = ("threshold_type", "threshold_decay", "threshold_gradient", "with_linear", "re_init",
         "rewind", "mde_blocks", "mde_alpha", "mgqe_subspaces", "mgqe_centroids", "darts_widths",
         "hash_rows", "qr_collisions", "tt_rank")  # a page names the value that it shows
PROTOCOL = ("budget", "log_interval", "early_stop_metric", "latent_dim", "eval_interval",
            "early_stop")  # what --published sets, beside lengths and budgets
NAMED = ("dataset", "model", "embedding")  # of a page and its curves


class Data(NamedTuple):
    """What a page's runs were made from."""

    manifest: str | None  # of the only data that count; None: all rows of the data set count
    words: str  # for the title, where not all rows are there


def settings_of(result: Result) -> Result:
    """What sets a run's result apart, by name: departures from the defaults, and always the decays.

    FREE settings and the length, but that of a cosine, are left out. A decay of None is that of the
    embedding, so that records from before and after the setting `weight_decay` compare.

    >>> run = {"stage": "train", "identity": {"settings": {"max_epochs": 300, "lr": 0.1}},
    ...        "settings": {"model": "fm", "l2_regularization": 1e-4, "weight_decay": None}}
    >>> settings_of(run)
    {'lr': 0.1, 'l2_regularization': 0.0001, 'weight_decay': 0.0001, 'l2_penalty': 0.0}
    """
    settings = result["settings"]
    own = {name: value for name, value in result["identity"]["settings"].items()
           if name not in (*FREE, "max_epochs", *DECAYS, "rewind")}
    embedding = settings.get("l2_regularization", DECAYS["l2_regularization"])
    others = settings.get("weight_decay", DECAYS["weight_decay"])
    decays = {"l2_regularization": embedding,
              "weight_decay": embedding if others is None else others,
              "l2_penalty": settings.get("l2_penalty", DECAYS["l2_penalty"])}
    if settings["model"] == "linear":  # it has no embedding
        decays = {"weight_decay": decays["weight_decay"]}
    if settings.get("lr_schedule") == "cosine":
        own["max_epochs"] = settings["max_epochs"]
    rewind = {"rewind": settings.get("rewind", "embedding")} if result["stage"] == "retrain" else {}
    return {**own, **decays, **rewind}


def full_length(result: Result) -> bool:
    """Whether a run's own length, and not a shorter or longer limit, has ended it.

    Data sets without a published length, and what was fine-tuned or compressed, have none to miss.
    """
    settings = result["settings"]
    most = LENGTH.get(settings.get("dataset", ""))
    if most is None or result["stage"] in COMPRESSED or "stop_reason" not in result:
        return True
    if result["stage"] == "search":
        if settings["embedding"] == "darts":  # its length is a setting of its own
            return True
        if result["stop_reason"] == "budgets_met":
            return result.get("epochs", 0) <= most
        return settings["max_epochs"] == most
    return result["stop_reason"] == "early_stop" or settings["max_epochs"] >= most


def as_published(result: Result) -> bool:
    """Whether a run has the published settings of its data set, but for those of VARIED.

    A training's width is asked for too: a page shows small tables beside PEP's.
    """
    settings = result["settings"]
    wanted = DEPARTURES.get(settings["dataset"], {})
    own = settings_of(result)
    skipped = {*VARIED, *NAMED, *FREE, "max_epochs"}
    if result["stage"] == "train":
        skipped.add("latent_dim")
    if any(own.get(name, value) != value for name, value in DECAYS.items()):
        return False
    if any(settings.get(name, value) != value for name, value in wanted.items()
           if name not in skipped):
        return False
    return not (set(own) - skipped - set(DECAYS) - set(wanted))


def published_protocol(result: Result) -> bool:
    """Whether a run was made with --published, which has a protocol of its own."""
    return result["settings"].get("early_stop_metric") == PATIENCE


def rewound_alone(result: Result) -> bool:
    """Whether a retraining restarted the table alone, and left the other weights to chance."""
    return (result["stage"] == "retrain"
            and result["settings"].get("rewind", "embedding") != "all")


def by_run(results: Results) -> dict[str, Result]:
    """Results by their run's id."""
    return {result["run_id"]: result for result in results}


def parent_of(result: Result, by_id: Mapping[str, Result]) -> Result | None:
    """The search or training that a retraining's snapshot is from; None without one on record."""
    return by_id.get(result.get("snapshot", {}).get("run_id"))


def settings_of_parent(parent: Result) -> Result:
    """`settings_of` it, with the length where the data set has no published one that all have."""
    length = ({} if parent["settings"].get("dataset") in LENGTH
              else {"max_epochs": parent["settings"]["max_epochs"]})
    return {**settings_of(parent), **length}


def published(result: Result, by_id: Mapping[str, Result]) -> bool:
    """Whether a run, and the search that its snapshot is from, have the published settings."""
    parent = parent_of(result, by_id)
    return as_published(result) and (parent is None or as_published(parent))


def key(result: Result, by_id: Mapping[str, Result], rewind: bool = True) -> str:
    """Equal for runs that may be averaged: all but the seed, the length and FREE settings.

    Args:
        by_id: in which a ticket's search is looked up.
        rewind: whether tickets with the table alone rewound are set apart.
    """
    own = settings_of(result)
    if not rewind:
        own.pop("rewind", None)
    snapshot, parent = result.get("snapshot", {}), parent_of(result, by_id)
    scheme = kind(result) if result["stage"] not in COMPRESSED else result["stage"]
    return json.dumps([result["stage"], scheme, snapshot.get("budgets"), snapshot.get("how"),
                       own, settings_of_parent(parent) if parent else None,
                       result["manifest"], result["identity"].get("algorithm_version")],
                      sort_keys=True)


def one_a_seed(results: Results) -> list[Result]:
    """One run a seed, by seed, of runs with one `key`; those cut before others were cut or had
    ended are left out.

    Of searches, which differ in their lists of budgets alone, the one with the most snapshots.
    """
    ran = [run["settings"]["max_epochs"] if _cut(run) else run.get("epochs", 0) for run in results]
    best: dict[int, Result] = {}
    for run in results:
        if _cut(run) and run["settings"]["max_epochs"] < max(ran):
            continue
        if run["seed"] not in best or _rank(run) < _rank(best[run["seed"]]):
            best[run["seed"]] = run
    return [best[seed] for seed in sorted(best)]


def _cut(run: Result) -> bool:
    """Whether a training ran into its limit."""
    return run["stage"] in ("train", "retrain") and run.get("stop_reason") == "max_epochs"


def _rank(run: Result) -> tuple[Any, ...]:
    """Smallest first: what stands for a seed."""
    return (-len(run.get("snapshots", ())), -run["settings"].get("max_epochs", 0),
            "data" not in run, run["run_id"])


def averaged(results: Results, by_id: Mapping[str, Result]) -> list[list[Result]]:
    """Runs that may be averaged, a list each, one run a seed."""
    groups: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        groups[key(result, by_id)].append(result)
    return [one_a_seed(groups[each]) for each in sorted(groups)]


def rows_by_manifest(results: Results) -> dict[str, int]:
    """Rows of each data manifest; older records do not say, newer ones of the same data do."""
    return {result["manifest"]: result["data"]["rows"] for result in results
            if "rows" in result.get("data", {})}


def data_of(results: Results, every: Results, dataset: str) -> Data:
    """The data that a page shows: the whole set where any run has it, else what most runs have.

    Args:
        results: that the page may show.
        every: of the data set, in which the rows of the data are looked up.
    """
    whole, rows = ROWS.get(dataset), rows_by_manifest(every)
    manifests = Counter(result["manifest"] for result in results)
    if whole is None or not manifests or whole in (rows.get(each) for each in manifests):
        return Data(None, "")
    most = min(manifests, key=lambda each: (-manifests[each], -rows.get(each, 0), each))
    if most not in rows:
        return Data(most, "data of which no record says how many rows they have")
    return Data(most, f"a sample of {rows[most]:,} of {whole:,} rows")


def why_not(result: Result, by_id: Mapping[str, Result], rows: Mapping[str, int], data: Data,
            tuned: bool = False) -> str | None:
    """The first rule that a run breaks, in two words; None for one that a page may take.

    Args:
        by_id: in which a ticket's search is looked up.
        rows: of each manifest (`rows_by_manifest`).
        data: what the page shows (`data_of`).
        tuned: leave the settings to the page, which takes those that a tuning has chosen.
    """
    parent = parent_of(result, by_id)
    dataset = result["settings"]["dataset"]
    if data.manifest is not None and result["manifest"] != data.manifest:
        return "other data"
    if data.manifest is None and dataset in ROWS:
        if rows.get(result["manifest"]) != ROWS[dataset]:
            return "other data"
        if result["settings"].get("split", "random") not in (None, SPLIT.get(dataset, "random")):
            return "other data"
    if any(published_protocol(each) for each in (result, parent) if each):
        return "the published protocol"
    if not all(full_length(each) for each in (result, parent) if each):
        return "other lengths"
    if not tuned and not published(result, by_id):
        return "other settings"
    return None


def usable(results: Results, every: Results, dataset: str,
           tuned: bool = False) -> tuple[list[Result], Counter[str]]:
    """The runs that a page may take, and how many are left out, by the rule that they break.

    Args:
        results: of one data set, to choose among.
        every: all of that data set; searches and the rows of the data are looked up in them.
        tuned: as in `why_not`.
    """
    by_id, rows = by_run(every), rows_by_manifest(every)
    data = data_of(results, every, dataset)
    kept: list[Result] = []
    left: Counter[str] = Counter()
    for result in results:
        reason = why_not(result, by_id, rows, data, tuned)
        if reason is None:
            kept.append(result)
        else:
            left[reason] += 1
    return kept, left


def words(left: Mapping[str, int]) -> str:
    """How many runs are left out, and why.

    >>> words(Counter({"other lengths": 3, "other data": 1}))
    '1 run of other data, 3 runs of other lengths'
    """
    return ", ".join(f"{counted(count, 'run')} of {reason}"
                     for reason, count in sorted(left.items()))


def seeds_of(results: Iterable[Result]) -> Sequence[int]:
    """The distinct seeds, rising."""
    return sorted({result["seed"] for result in results})
