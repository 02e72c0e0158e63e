"""The picture of AFM's page: scores of every method over its ranks, and spectra."""

import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.axes import Axes

from studies.figures import budget_curve
from studies.figures.styles import AFM, COLOURS, STYLES, Style
from studies.kinds import FINETUNED, PEP, Results
from studies.page import Page

SIZE = (7.0, 8.0)  # inches: both columns of a page
NAMES = {"afm": "AFM", "svd": "SVD of the weights", "random": "random basis", "tt": "tensor train",
         "dense": "dense"}
PLAIN = {"method", "emb_rank"}  # what a run on a curve may ask for
RIVAL_NAMES = {PEP: "PEP, retrained", "uniform": "smaller dense", "tt": "tensor train from scratch"}
Value = Callable[[dict[str, Any]], float]  # of a result


def name_of(result: dict[str, Any]) -> str:
    """The method of a factored model."""
    return result["compression"]["method"]


def epochs_of(result: dict[str, Any]) -> int:
    """That it was trained on for."""
    return result["settings"]["max_epochs"]


def embedding_size(result: dict[str, Any]) -> float:
    """Stored parameters of the embedding."""
    return result["compression"]["parameters"]["embedding"]


def table_bytes(result: dict[str, Any]) -> float:
    """That the embedding takes at inference."""
    return result["inference_bytes"]


def mean(results: Results, value: Value) -> float:
    """Over runs."""
    return statistics.mean(value(result) for result in results)


def curve_of(factored: Results, method: str, trained: bool = True) -> list[dict[str, Any]]:
    """Runs of a method at one rank for every field and with its layers left alone.

    `trained`: only those that were trained on, for as few epochs as any.
    """
    plain = [result for result in factored if name_of(result) == method
             and set(result["identity"]["extra"]["compression"]) <= PLAIN]
    least = min((epochs_of(result) for result in factored if epochs_of(result)), default=0)
    return [result for result in plain if not trained or epochs_of(result) == least > 0]


def spectra_of(factored: Results) -> dict[str, Any]:
    """The run whose spectra are drawn: AFM's where there is one, with layers where there is one."""
    return max(factored, key=lambda result: (bool(result["compression"]["spectra"]["layers"]),
                                             name_of(result) == "afm", -result["seed"]))


def draw(page: Page, factored: Results, rivals: dict[str, list[dict[str, Any]]]) -> None:
    """Six panels: scores against parameters and against bytes, spectra."""
    page.figure = budget_curve.new_figure(SIZE)
    *scores, (fields, layers) = page.figure.subplots(3, 2)
    control = [result for result in page.behind if result["stage"] == FINETUNED
               and name_of(result) == "dense"]
    for row, size, own, what in zip(scores, (embedding_size, table_bytes),
                                    (parameters_of, table_bytes),
                                    ("embedding parameters", "bytes of the embedding"),
                                    strict=True):
        for axes, trained in zip(row, (False, True), strict=True):
            _curves(axes, factored, size, trained)
            for name, runs in rivals.items():
                _line(axes, RIVAL_NAMES[name], STYLES[name], runs, own, trained_auc)
            if control:
                axes.axhline(mean(_shortest(control), _score(trained)), color=budget_curve.INK,
                             linestyle=":",
                             linewidth=1, label="dense")
            axes.set_xscale("log")
            axes.set_xlabel(what, fontsize=8)
            axes.set_ylabel("test AUC", fontsize=8)
            axes.set_title("trained on" if trained else "not trained on", fontsize=8)
            budget_curve.tidy(axes)
    if scores[0][1].lines:
        scores[0][1].legend(fontsize=5.5, frameon=False)
    spectra = spectra_of(factored)["compression"]["spectra"]
    for axes, what in ((fields, "fields"), (layers, "layers")):
        _spectra(axes, spectra[what], what)
    page.figure.suptitle(page.title, fontsize=8)


def parameters_of(result: dict[str, Any]) -> float:
    """Of a rival's embedding."""
    return result["num_embedding_params"]


def trained_auc(result: dict[str, Any]) -> float:
    """Test AUC as the run ends."""
    return result["test_auc"]


def _score(trained: bool) -> Value:
    return trained_auc if trained else lambda result: result["without_finetuning"]["test_auc"]


def _shortest(control: Results) -> list[dict[str, Any]]:
    """The controls of the fewest epochs; the table of a longer one's scores is beside the
    picture."""
    usual = [result for result in control
             if set(result["identity"]["extra"]["compression"]) <= PLAIN] or list(control)
    return [result for result in usual if epochs_of(result) == min(map(epochs_of, usual))]


def _curves(axes: Axes, results: Results, size: Value, trained: bool) -> None:
    """A line for each method over its ranks; where they were trained on, one for AFM's longest
    training too."""
    for method in [name for name in AFM if name in NAMES]:
        _line(axes, NAMES[method], AFM[method], curve_of(results, method, trained), size,
              _score(trained))
    most = max(map(epochs_of, results))
    least = min((epochs_of(result) for result in results if epochs_of(result)), default=most)
    longer = [result for result in curve_of(results, "afm", trained=False)
              if epochs_of(result) == most]
    if trained and longer and most > least:
        _line(axes, f"{NAMES['afm']}, {most} epochs", AFM["afm, longer"], longer, size, trained_auc)


def _line(axes: Axes, label: str, style: Style, results: Sequence[dict[str, Any]],
          size: Value, score: Value) -> None:
    by_size: dict[float, list[float]] = defaultdict(list)
    for result in results:
        by_size[size(result)].append(score(result))
    if by_size:
        colour, marker, dashes = style
        places = sorted(by_size)
        axes.plot(places, [statistics.mean(by_size[place]) for place in places], color=colour,
                  marker=marker,
                  markersize=3, linestyle=dashes, linewidth=1, label=label)


def _spectra(axes: Axes, spectra: dict[str, list[float]], what: str) -> None:
    """Share of the variance that is left out, against the rank; what is nothing but rounding is not
    drawn."""
    for number, (name, values) in enumerate(spectra.items()):
        total = sum(values)
        left = [sum(values[rank:]) / total for rank in range(len(values))] if total else []
        kept = [share for share in left if share > 1e-6]
        axes.plot(range(len(kept)), kept, linewidth=1, label=name,
                  color=COLOURS[number % len(COLOURS)],
                  linestyle="-" if number < len(COLOURS) else "--")
    axes.set_yscale("log")
    axes.set_xlabel("rank", fontsize=8)
    axes.set_ylabel("variance left out", fontsize=8)
    axes.set_title(f"spectra of {what}" if spectra else f"no {what} were factored", fontsize=8)
    budget_curve.tidy(axes)
    if spectra and len(spectra) <= 12:
        axes.legend(fontsize=5.5, frameon=False)
