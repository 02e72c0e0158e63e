"""AFM and its baselines: AUC against parameters before and after fine-tuning, the spectra, sizes
and speeds.

Not a figure of the paper, whose tables are not known to us; the axes are those of its claims.
"""

import json
import statistics
from collections import Counter, defaultdict
from itertools import chain
from pathlib import Path
from typing import Any

from studies import choice, pooling
from studies.figures import afm_curves, budget_curve
from studies.figures.afm_curves import (
    Value,
    curve_of,
    embedding_size,
    epochs_of,
    mean,
    name_of,
    parameters_of,
    spectra_of,
    table_bytes,
)
from studies.kinds import FINETUNED, PEP, Results, kind
from studies.names import AFM as NAMES
from studies.names import AFM_BASELINES as BASELINES
from studies.page import RUNS, Page, bytes_counted, runs_of, shown
from studies.series import by_budget
from studies.table import Table, spread
from utils.text import counted

# what trains them
HOW = {PEP: "compare --scheme pep", "uniform": "compare --scheme uniform", "tt": "afm"}
HEAD = ("scheme", "asked for", "epochs", "embedding parameters", "all parameters", "multiply-adds",
        "file, bytes", "bytes of table", "AUC before fine-tuning", "AUC, fine-tuned",
        "log-loss before fine-tuning",
        "log-loss, fine-tuned", "AUC less the control's, fine-tuned (95 %)", "seeds")
EQUAL_HEAD = ("AFM, rank", "parameters", "bytes of table", "AUC, fine-tuned", "baseline",
              "its parameters", "its AUC",
              "its bytes", "its AUC at no more bytes")
SPEED_HEAD = ("scheme", "asked for", "on", "batch", "dense, samples/s", "factored, samples/s",
              "factor", "seeds")
ABOUT_TABLES = ("The last table: each baseline's largest table that has no more parameters than "
                "AFM's, and its largest that takes no more bytes (a pruned table's include where "
                "its entries belong). Intervals are of bootstrap samples of the test rows, "
                "averaged over seeds; they do not hold the seeds' spread.")
ABOUT_PICTURE = ("In the picture, above: test AUC against the embedding's parameters, and against "
                 "the bytes that it takes; dotted is the dense model, left as it was trained and "
                 "right with the same epochs of fine-tuning. Below: share of the variance that a "
                 "rank leaves out, by field and by layer")
Group = tuple[str, list[dict[str, Any]]]  # what was asked for, as text, and the runs of it


def build(results: Results, out: Path, dataset: str, model: str) -> Page:
    """The page of a data set and a model.

    Args:
        results: of any data sets and models.
        out: the folder that holds runs/<run id>/; not read.
    """
    page = Page("afm", dataset, model, f"AFM and its baselines, {shown(model)} on {shown(dataset)}")
    here = [result for result in results
            if result["settings"]["dataset"] == dataset and result["settings"]["model"] == model]
    usable = choice.of(page, results, model, kinds=("uniform", "tt", "pep", PEP))
    every = [result for result in here if result["stage"] == FINETUNED
             and "budget" not in result["compression"]]
    usable_ids = {run["run_id"] for run in usable}
    sure = [run for run in every if run["compression"].get("source") in usable_ids]
    own = of_one_source_a_seed(of_one_training(sure))
    if len(own) < len(every):
        left = counted(len(every) - len(own), "fine-tuning")
        page.left_out.append(f"Left out: {left} whose dense run has no record or may not stand "
                             "here itself, or of other settings or lengths.")
    factored = [result for result in own if result["compression"]["method"] != "dense"]
    if not factored:
        page.missing.append("factored models: run `python compress.py afm --run ID --emb-rank 8`")
        return page
    page.behind = factored + [result for result in own if result not in factored]
    groups = grouped(page.behind)
    timed: list[tuple[str, ...]] = []
    for name, runs in groups:
        page.rows += [row(name, result) for result in runs]
        timed += speeds(name, runs)
    page.tables.append(Table(HEAD, [line(name, runs, here) for name, runs in groups]))
    page.tables.append(Table(SPEED_HEAD, timed))
    if not any(name_of(result) == "dense" for result in own):
        page.missing.append("the dense model, fine-tuned for as long: leave --no-control away")
    baselines = baselines_of(page, usable, here)
    page.missing += [f"{BASELINES[name]}: no such run; `python reproduce.py {HOW[name]} --model "
                     f"{model}`"
                     for name, runs in baselines.items() if not runs]
    compared = [(f"{name}, {asked(runs[0])}, epochs {epochs_of(runs[0])}", runs)
                for name, runs in groups]
    for name, runs in baselines.items():
        compared += [(f"{BASELINES[name]} of {size:,}", each)
                     for size, each in by_budget(runs).items()]
    page.missing += fewer_seeds(compared)
    page.tables.append(Table(EQUAL_HEAD, equal_sizes(curve_of(factored, "afm"), baselines)))
    page.behind += chain.from_iterable(baselines.values())
    page.notes += [*bytes_counted(page.behind), ABOUT_TABLES,
                   f"{ABOUT_PICTURE} (run {spectra_of(factored)['run_id']}). "
                   f"{budget_curve.SHADED}"]
    afm_curves.draw(page, factored, baselines)
    return page


def of_one_training(results: Results) -> list[dict[str, Any]]:
    """Those whose settings, the learning rate of the fine-tuning among them, most runs share."""
    def settings(result: dict[str, Any]) -> str:
        kept = {name: value for name, value in result["identity"]["settings"].items()
                if name != "max_epochs"}
        return json.dumps(kept, sort_keys=True)

    most = Counter(map(settings, results)).most_common(1)
    return [result for result in results if settings(result) == most[0][0]]


def of_one_source_a_seed(results: Results) -> list[dict[str, Any]]:
    """Those of one dense run a seed, which has the most of them: the same training may be there
    twice."""
    sources: dict[int, Counter[str]] = defaultdict(Counter)
    for result in results:
        sources[result["seed"]][result["compression"].get("source", "")] += 1
    most = {seed: min(counts, key=lambda name: (-counts[name], name)) for seed,
            counts in sources.items()}
    return [result for result in results
            if result["compression"].get("source", "") == most[result["seed"]]]


def baselines_of(page: Page, usable: Results, here: Results) -> dict[str, list[dict[str, Any]]]:
    """PEP's tickets, smaller dense tables and tensor trains as published, one run a seed at each
    size."""
    by_id = pooling.by_run(here)
    found: dict[str, list[dict[str, Any]]] = {}
    for name in BASELINES:
        own = choice.tickets(usable) if name == PEP else [
            run for run in usable if run["stage"] == "train" and kind(run) == name]
        counted = [run for run in own if not pooling.rewound_alone(run)]
        sizes_of: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for run in counted:
            sizes_of[choice.budget_of(run) if name == PEP
                     else run["num_embedding_params"]].append(run)
        found[name] = []
        for runs in sizes_of.values():
            most = max(pooling.averaged(runs, by_id), key=len)
            found[name] += most
        sizes = {choice.budget_of(run) for run in found[name]} if name == PEP else set()
        others = [run for run in own if pooling.rewound_alone(run)
                  and choice.budget_of(run) not in sizes]
        for budget in sorted({choice.budget_of(run) for run in others}, reverse=True):
            page.missing.append(f"{BASELINES[name]} at {budget:,} parameters"
                                + choice.rewound_words(
                [run for run in others if choice.budget_of(run) == budget]))
    return found


def fewer_seeds(groups: list[Group]) -> list[str]:
    """A line for each set of seeds that some groups have no run of, though others do."""
    every = {run["seed"] for run in chain.from_iterable(runs for _, runs in groups)}
    found: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for name, runs in groups:
        found[tuple(sorted(every - {run["seed"] for run in runs}))].append(name)
    return [f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))} of: {'; '.join(names)}"
            for seeds, names in sorted(found.items()) if seeds]


def equal_sizes(factored: Results,
                baselines: dict[str, list[dict[str, Any]]]) -> list[tuple[str, ...]]:
    """Lines under EQUAL_HEAD, one a rank and a baseline."""
    def largest(groups: list[list[dict[str, Any]]], size: Value, most: float) -> list[str]:
        fitting = [runs for runs in groups if mean(runs, size) <= most]
        best = max(fitting, key=lambda runs: mean(runs, size), default=None)
        return [f"{round(mean(best, size)):,}",
                spread([run["test_auc"] for run in best])] if best else ["-", "-"]

    lines = []
    for rank, runs in sorted(by_rank(factored).items(), reverse=True):
        own = (mean(runs, embedding_size), mean(runs, table_bytes))
        for name, others in baselines.items():
            groups = list(by_budget(others).values())
            lines.append((str(rank), *(f"{round(one):,}" for one in own),
                          spread([run["test_auc"] for run in runs]),
                          BASELINES[name], *largest(groups, parameters_of, own[0]),
                          *largest(groups, table_bytes, own[1])))
    return lines


def by_rank(factored: Results) -> dict[int, list[dict[str, Any]]]:
    """Runs by the rank that was asked for."""
    found: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for result in factored:
        found[result["identity"]["extra"]["compression"]["emb_rank"]].append(result)
    return found


def less(runs: list[dict[str, Any]], results: Results) -> str:
    """AUC less that of what the intervals were taken against, and these, averaged over the runs
    that have them."""
    by_id = {result["run_id"]: result for result in results}
    known = [run for run in runs if run.get("intervals", {}).get("against") in by_id]
    if not known:
        return "-"
    gaps = [run["test_auc"] - by_id[run["intervals"]["against"]]["test_auc"] for run in known]
    low, high = (statistics.mean(run["intervals"]["test_auc_less"][end] for run in known)
                 for end in (0, 1))
    return f"{statistics.mean(gaps):+.4f} [{low:+.4f}, {high:+.4f}]"


def asked(result: dict[str, Any]) -> str:
    """What was asked for, but for the method, as text."""
    skipped = {"method"}
    chosen = result["identity"]["extra"]["compression"]
    parts = [f"{name.replace('_', '-')} {json.dumps(value)}" for name, value in chosen.items()
             if name not in skipped]
    return ", ".join(part.replace('"', "") for part in parts) or "-"


def grouped(results: Results) -> list[Group]:
    """Runs that differ in the seed alone, one a seed, by method and falling parameters."""
    groups: dict[tuple[str, str, int], list[dict[str, Any]]] = defaultdict(list)
    for result in results:
        groups[name_of(result), asked(result), epochs_of(result)].append(result)
    order = list(NAMES)
    ordered = sorted(groups.items(),
                     key=lambda item: (order.index(item[0][0]), -mean(item[1], embedding_size)))
    return [(NAMES[method], pooling.one_a_seed(runs)) for (method, _, _), runs in ordered]


def row(name: str, result: dict[str, Any]) -> dict[str, Any]:
    """One run in the csv."""
    compression, before = result["compression"], result["without_finetuning"]
    speed: dict[str, Any] = {}
    for who, found in compression.get("samples_per_second", {}).items():
        speed |= {f"samples_per_second_{who}_{batch}": each for batch, each in found.items()}
    return {"scheme": name, "asked": asked(result), "seed": result["seed"],
            "epochs": epochs_of(result),
            "embedding_parameters": compression["parameters"]["embedding"],
            "parameters": sum(compression["parameters"].values()),
            "multiply_adds": sum(compression.get("multiply_adds", {}).values()) or None,
            "file_bytes": compression["file_bytes"],
            "inference_bytes": result["inference_bytes"],
            **{f"variance_lost_{what}": statistics.mean(lost.values())
               for what, lost in compression.get("errors", {}).items()},
            "test_auc_before": before["test_auc"],
            "test_logloss_before": before["test_logloss"],
            "validation_auc_before": before["validation_auc"],
            **({"test_auc": result["test_auc"], "test_logloss": result["test_logloss"],
                "validation_auc": result["validation_auc"]} if epochs_of(result) else {}),
            **speed, RUNS: runs_of([result])}


def line(name: str, runs: list[dict[str, Any]], results: Results) -> tuple[str, ...]:
    """One group under HEAD."""
    def count(value: Value) -> str:
        return f"{round(mean(runs, value)):,}"

    before = [result["without_finetuning"] for result in runs]
    finetuned = bool(epochs_of(runs[0]))
    adds = count(lambda result: sum(result["compression"]["multiply_adds"].values())) if (
        "multiply_adds" in runs[0]["compression"]) else "-"
    return (name, asked(runs[0]), str(epochs_of(runs[0])), count(embedding_size),
            count(lambda result: sum(result["compression"]["parameters"].values())), adds,
            count(lambda result: result["compression"]["file_bytes"]),
            count(lambda result: result["inference_bytes"]),
            spread([scores["test_auc"] for scores in before]),
            spread([result["test_auc"] for result in runs]) if finetuned else "-",
            spread([scores["test_logloss"] for scores in before]),
            spread([result["test_logloss"] for result in runs]) if finetuned else "-",
            less(runs, results) if finetuned else "-", str(len(runs)))


def speeds(name: str, runs: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """A line for each device and batch size under SPEED_HEAD; the factor is the mean of the runs'
    own.

    Runs that were timed with fewer batch sizes than others of the group (older ones) are left out.
    """
    lines: list[tuple[str, ...]] = []
    places = {"samples_per_second": runs[0].get("device", "-"),
              "samples_per_second_cpu": "its processor"}
    for what, place in places.items():
        timed = [result["compression"][what] for result in runs if what in result["compression"]]
        most = max((len(found["dense"]) for found in timed), default=0)
        timed = [found for found in timed if len(found["dense"]) == most]
        for batch in timed[0]["dense"] if timed else ():
            dense, own = ([found[who][batch] for found in timed] for who in ("dense", "factored"))
            factor = statistics.mean(fast / slow for fast, slow in zip(own, dense, strict=True))
            lines.append((name, asked(runs[0]), place, f"{int(batch):,}",
                          f"{statistics.mean(dense):,.0f}",
                          f"{statistics.mean(own):,.0f}", f"{factor:.2f}", str(len(timed))))
    return lines
