"""AFM and its rivals: AUC against parameters, with and without training on, the spectra, sizes and speeds.

Not a figure of the paper, whose tables are not known to us; the axes are those of its claims.
"""

import json
import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from reports import budget_curve
from reports.page import RUNS, Page, runs_of, shown
from reports.series import FINETUNED, PEP, Results, kind
from reports.styles import STYLES, Style
from reports.summary import markdown, spread

SIZE = (7.0, 5.6)  # inches: both columns of a page
NAMES = {"afm": "AFM", "svd": "SVD of the weights", "random": "random basis", "tt": "tensor train", "dense": "dense"}
LINES: dict[str, Style] = {"afm": STYLES[PEP], "svd": STYLES["uniform"], "random": STYLES["hash"],
                           "tt": STYLES["tt"]}
RIVALS = {PEP: STYLES["magnitude pruning"], "uniform": STYLES["qr"], "tt": STYLES["mgqe"]}
RIVAL_NAMES = {PEP: "PEP, retrained", "uniform": "smaller dense", "tt": "tensor train from scratch"}
HEAD = ("scheme", "asked for", "epochs", "embedding parameters", "all parameters", "multiply-adds",
        "file, bytes", "bytes of table", "AUC, not trained on", "AUC, trained on", "log-loss, not trained on",
        "log-loss, trained on", "seeds")
SPEED_HEAD = ("scheme", "asked for", "batch", "dense, samples/s", "factored, samples/s", "factor", "seeds")
Group = tuple[str, list[dict[str, Any]]]  # what was asked for, as text, and the runs of it


def build(results: Results, out: Path, dataset: str, model: str) -> Page:
    """The page of a data set and a model.

    Args:
        results: of any data sets and models.
        out: the folder that holds runs/<run id>/; not read.
    """
    page = Page("afm", dataset, model, f"AFM and its rivals, {shown(model)} on {shown(dataset)}")
    here = [result for result in results
            if result["settings"]["dataset"] == dataset and result["settings"]["model"] == model]
    own = [result for result in here if result["stage"] == FINETUNED and "budget" not in result["compression"]]
    factored = [result for result in own if result["compression"]["method"] != "dense"]
    if not factored:
        page.missing.append("factored models: run `python compress.py afm --run ID --emb-rank 8`")
        return page
    page.behind = factored + [result for result in own if result not in factored]
    groups = grouped(page.behind)
    page.rows = [row(name, result) for name, runs in groups for result in runs]
    page.notes.append(markdown(HEAD, [line(name, runs) for name, runs in groups]))
    timed = [line for name, runs in groups for line in speeds(name, runs)]
    page.notes.append(markdown(SPEED_HEAD, timed))
    if not any(name_of(result) == "dense" for result in own):
        page.missing.append("the dense model with the same further epochs: leave --no-control away")
    rivals = {name: [result for result in here if result["stage"] in ("train", "retrain") and kind(result) == name]
              for name in RIVALS}
    page.missing += [f"{RIVAL_NAMES[name]}: no such run" for name, runs in rivals.items() if not runs]
    page.behind += [result for runs in rivals.values() for result in runs]
    page.notes.append("Above: test AUC against the embedding's parameters; dotted is the dense model, left as it was "
                      "trained and right with the same further epochs. Below: share of the variance that a rank leaves "
                      f"out, by field and by layer (run {spectra_of(factored)['run_id']}).")
    draw(page, factored, rivals)
    return page


def name_of(result: dict[str, Any]) -> str:
    """The method of a factored model."""
    return result["compression"]["method"]


def asked(result: dict[str, Any]) -> str:
    """What was asked for, but for the method, as text."""
    skipped = {"method"}
    chosen = result["identity"]["extra"]["compression"]
    parts = [f"{name.replace('_', '-')} {json.dumps(value)}" for name, value in chosen.items() if name not in skipped]
    return ", ".join(part.replace('"', "") for part in parts) or "-"


def epochs_of(result: dict[str, Any]) -> int:
    """That it was trained on for."""
    return result["settings"]["max_epochs"]


def grouped(results: Results) -> list[Group]:
    """Runs that differ in the seed alone, by method and falling parameters."""
    groups: dict[tuple[str, str, int], list[dict[str, Any]]] = defaultdict(list)
    for result in results:
        groups[name_of(result), asked(result), epochs_of(result)].append(result)
    order = list(NAMES)
    ordered = sorted(groups.items(), key=lambda item: (order.index(item[0][0]), -mean(item[1], embedding_size)))
    return [(NAMES[method], sorted(runs, key=lambda run: run["seed"])) for (method, _, _), runs in ordered]


def embedding_size(result: dict[str, Any]) -> float:
    """Stored parameters of the embedding."""
    return result["compression"]["parameters"]["embedding"]


def mean(results: Results, value: Callable[[dict[str, Any]], float]) -> float:
    """Over runs."""
    return statistics.mean(value(result) for result in results)


def row(name: str, result: dict[str, Any]) -> dict[str, Any]:
    """One run in the csv."""
    made, before = result["compression"], result["without_finetuning"]
    speed = made.get("samples_per_second", {})
    return {"scheme": name, "asked": asked(result), "seed": result["seed"], "epochs": epochs_of(result),
            "embedding_parameters": made["parameters"]["embedding"], "parameters": sum(made["parameters"].values()),
            "multiply_adds": sum(made.get("multiply_adds", {}).values()) or None, "file_bytes": made["file_bytes"],
            "inference_bytes": result["inference_bytes"], "test_auc_before": before["test_auc"],
            "test_logloss_before": before["test_logloss"], "validation_auc_before": before["validation_auc"],
            **({"test_auc": result["test_auc"], "test_logloss": result["test_logloss"],
                "validation_auc": result["validation_auc"]} if epochs_of(result) else {}),
            **{f"samples_per_second_{who}_{batch}": each for who, found in speed.items()
               for batch, each in found.items()}, RUNS: runs_of([result])}


def line(name: str, runs: list[dict[str, Any]]) -> tuple[str, ...]:
    """One group under HEAD."""
    def count(value: Callable[[dict[str, Any]], float]) -> str:
        return f"{round(mean(runs, value)):,}"

    before = [result["without_finetuning"] for result in runs]
    trained = bool(epochs_of(runs[0]))
    adds = count(lambda result: sum(result["compression"]["multiply_adds"].values())) if (
        "multiply_adds" in runs[0]["compression"]) else "-"
    return (name, asked(runs[0]), str(epochs_of(runs[0])), count(embedding_size),
            count(lambda result: sum(result["compression"]["parameters"].values())), adds,
            count(lambda result: result["compression"]["file_bytes"]), count(lambda result: result["inference_bytes"]),
            spread([scores["test_auc"] for scores in before]),
            spread([result["test_auc"] for result in runs]) if trained else "-",
            spread([scores["test_logloss"] for scores in before]),
            spread([result["test_logloss"] for result in runs]) if trained else "-", str(len(runs)))


def speeds(name: str, runs: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """A line for each batch size under SPEED_HEAD; the factor is the mean of the runs' own.

    Batch sizes that not every run of the group was timed with are left out.
    """
    timed = [result["compression"]["samples_per_second"] for result in runs
             if "samples_per_second" in result["compression"]]
    return [(name, asked(runs[0]), f"{int(batch):,}",
             *(f"{statistics.mean(found[who][batch] for found in timed):,.0f}" for who in ("dense", "factored")),
             f"{statistics.mean(found['factored'][batch] / found['dense'][batch] for found in timed):.2f}",
             str(len(timed))) for batch in (timed[0]["dense"] if timed else ())
            if all(batch in found["dense"] for found in timed)]


def spectra_of(factored: Results) -> dict[str, Any]:
    """The run whose spectra are drawn: AFM's where there is one, with layers where there is one."""
    return max(factored, key=lambda result: (bool(result["compression"]["spectra"]["layers"]),
                                             name_of(result) == "afm", -result["seed"]))


def draw(page: Page, factored: Results, rivals: dict[str, list[dict[str, Any]]]) -> None:
    """Four panels, a legend below each pair."""
    page.figure = budget_curve.new_figure(SIZE)
    (left, right), (fields, layers) = page.figure.subplots(2, 2)
    control = [result for result in page.behind if result["stage"] == FINETUNED and name_of(result) == "dense"]
    for axes, score, title in (
            (left, lambda result: result["without_finetuning"]["test_auc"], "not trained on"),
            (right, lambda result: result["test_auc"], "trained on")):
        trained = title == "trained on"
        _curves(axes, [result for result in factored if epochs_of(result) or not trained], score)
        for name, runs in rivals.items():
            _line(axes, RIVAL_NAMES[name], RIVALS[name], runs, lambda result: result["num_embedding_params"],
                  lambda result: result["test_auc"])
        if control:
            axes.axhline(mean(control, score), color=budget_curve.INK, linestyle=":", linewidth=1, label="dense")
        axes.set_xscale("log")
        axes.set_xlabel("embedding parameters", fontsize=8)
        axes.set_ylabel("test AUC", fontsize=8)
        axes.set_title(title, fontsize=8)
        budget_curve.tidy(axes)
    right.legend(fontsize=5.5, frameon=False)
    spectra = spectra_of(factored)["compression"]["spectra"]
    for axes, what in ((fields, "fields"), (layers, "layers")):
        _spectra(axes, spectra[what], what)
    page.figure.suptitle(page.title, fontsize=8)


def _curves(axes: Axes, results: Results, score: Callable[[dict[str, Any]], float]) -> None:
    """A line for each method that leaves the layers alone, over its ranks."""
    for method, style in LINES.items():
        _line(axes, NAMES[method], style, [result for result in results if name_of(result) == method
                                           and not result["compression"]["structure"]["layers"]],
              embedding_size, score)


def _line(axes: Axes, label: str, style: Style, results: Sequence[dict[str, Any]],
          size: Callable[[dict[str, Any]], float], score: Callable[[dict[str, Any]], float]) -> None:
    by_size: dict[float, list[float]] = defaultdict(list)
    for result in results:
        by_size[size(result)].append(score(result))
    if by_size:
        colour, marker, dashes = style
        places = sorted(by_size)
        axes.plot(places, [statistics.mean(by_size[place]) for place in places], color=colour, marker=marker,
                  markersize=3, linestyle=dashes, linewidth=1, label=label)


def _spectra(axes: Axes, spectra: dict[str, list[float]], what: str) -> None:
    """Share of the variance that is left out, against the rank; what is nothing but rounding is not drawn."""
    for number, (name, values) in enumerate(spectra.items()):
        total = sum(values)
        left = [sum(values[rank:]) / total for rank in range(len(values))] if total else []
        kept = [share for share in left if share > 1e-6]
        axes.plot(range(len(kept)), kept, linewidth=1, label=name,
                  color=budget_curve.COLOURS[number % len(budget_curve.COLOURS)],
                  linestyle="-" if number < len(budget_curve.COLOURS) else "--")
    axes.set_yscale("log")
    axes.set_xlabel("rank", fontsize=8)
    axes.set_ylabel("variance left out", fontsize=8)
    axes.set_title(f"spectra of {what}" if spectra else f"no {what} were factored", fontsize=8)
    budget_curve.tidy(axes)
    if spectra and len(spectra) <= 12:
        axes.legend(fontsize=5.5, frameon=False)
