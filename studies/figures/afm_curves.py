"""The picture of AFM's page: scores of every method over its ranks, and spectra."""

import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from studies.figures import budget_curve, by_epoch
from studies.figures.styles import AFM, STYLES, Style, colours_of
from studies.kinds import FINETUNED, Results
from studies.names import AFM as NAMES
from studies.names import AFM_BASELINES as BASELINES
from studies.page import Page

SIZE = (7.0, 8.0)  # inches: both columns of a page
PLAIN = {"method", "emb_rank"}  # what a run on a curve may ask for
Value = Callable[[dict[str, Any]], float]  # of a result


def name_of(result: dict[str, Any]) -> str:
    """The method of a factored model."""
    return result["compression"]["method"]


def epochs_of(result: dict[str, Any]) -> int:
    """For which it was fine-tuned."""
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


def curve_of(factored: Results, method: str, finetuned: bool = True) -> list[dict[str, Any]]:
    """Runs of a method at one rank for every field and with its layers left alone.

    `finetuned`: only those that were fine-tuned, for as few epochs as any.
    """
    plain = [result for result in factored if name_of(result) == method
             and set(result["identity"]["extra"]["compression"]) <= PLAIN]
    least = min((epochs_of(result) for result in factored if epochs_of(result)), default=0)
    return [result for result in plain if not finetuned or epochs_of(result) == least > 0]


def spectra_of(factored: Results) -> dict[str, Any]:
    """The run whose spectra are drawn: AFM's where there is one, with layers where there is one."""
    return max(factored, key=lambda result: (bool(result["compression"]["spectra"]["layers"]),
                                             name_of(result) == "afm", -result["seed"]))


def draw(page: Page, factored: Results, baselines: dict[str, list[dict[str, Any]]]) -> None:
    """Six panels: scores against parameters and against bytes, spectra."""
    page.figure = budget_curve.new_figure(SIZE)
    *scores, spectra_panels = page.figure.subplots(3, 2)
    control = [result for result in page.behind if result["stage"] == FINETUNED
               and name_of(result) == "dense"]
    sizes = ((embedding_size, parameters_of, "embedding parameters"),
             (table_bytes, table_bytes, "bytes of the embedding"))
    for row, (size, own, label) in zip(scores, sizes, strict=True):
        for axes, finetuned in zip(row, (False, True), strict=True):
            _curves(axes, factored, size, finetuned)
            for name, runs in baselines.items():
                _line(axes, BASELINES[name], STYLES[name], by_size(runs, parameters_of, own,
                                                                   auc_at_end))
            if control:
                axes.axhline(mean(_shortest(control), _score(finetuned)), color=budget_curve.INK,
                             linestyle=":", linewidth=1, label="dense")
            axes.set_title("fine-tuned" if finetuned else "before fine-tuning", fontsize=8)
            by_epoch.finish(axes, label, "test AUC")
            budget_curve.log_sizes(axes)
            levels: list[float] = []
            for line in axes.lines:
                levels += np.atleast_1d(line.get_ydata()).tolist()
            budget_curve.widen_crowd(axes, levels)
    budget_curve.legend_below(page.figure, [scores[0][1]])
    spectra = spectra_of(factored)["compression"]["spectra"]
    for axes, what in zip(spectra_panels, ("fields", "layers"), strict=True):
        _spectra(axes, spectra[what], what)
    page.figure.suptitle(page.title, fontsize=8)


def parameters_of(result: dict[str, Any]) -> float:
    """Of a baseline's embedding."""
    return result["num_embedding_params"]


def auc_at_end(result: dict[str, Any]) -> float:
    """Test AUC as the run ends."""
    return result["test_auc"]


def auc_before(result: dict[str, Any]) -> float:
    """Test AUC of the factored model before it was fine-tuned."""
    return result["without_finetuning"]["test_auc"]


def _score(finetuned: bool) -> Value:
    return auc_at_end if finetuned else auc_before


def _shortest(control: Results) -> list[dict[str, Any]]:
    """The controls of the fewest epochs; the table of a longer one's scores is beside the
    picture."""
    usual = [result for result in control
             if set(result["identity"]["extra"]["compression"]) <= PLAIN] or list(control)
    return [result for result in usual if epochs_of(result) == min(map(epochs_of, usual))]


def _curves(axes: Axes, results: Results, size: Value, finetuned: bool) -> None:
    """A line for each method over its ranks; where they were fine-tuned, one for AFM's longest
    fine-tuning too."""
    for method in [name for name in AFM if name in NAMES]:
        _line(axes, NAMES[method], AFM[method], by_size(
            curve_of(results, method, finetuned), embedding_size, size, _score(finetuned)))
    most = max(map(epochs_of, results))
    least = min((epochs_of(result) for result in results if epochs_of(result)), default=most)
    longer = [result for result in curve_of(results, "afm", finetuned=False)
              if epochs_of(result) == most]
    if finetuned and longer and most > least:
        _line(axes, f"{NAMES['afm']}, {most} epochs", AFM["afm, longer"],
              by_size(longer, embedding_size, size, auc_at_end))


def by_size(results: Results, parameters: Value, size: Value,
            score: Value) -> list[tuple[float, float]]:
    """Mean size and mean score of the runs of each number of parameters, by rising size. A mask of
    so many entries takes other bytes with each seed."""
    groups: dict[float, list[dict[str, Any]]] = defaultdict(list)
    for result in results:
        groups[parameters(result)].append(result)
    return sorted((mean(runs, size), mean(runs, score)) for runs in groups.values())


def _line(axes: Axes, label: str, style: Style, points: Sequence[tuple[float, float]]) -> None:
    if len(points) > 1:  # one point makes no curve
        colour, marker, dashes = style
        sizes, scores = zip(*points, strict=True)
        axes.plot(sizes, scores, color=colour, marker=marker, markersize=3, linestyle=dashes,
                  linewidth=1, label=label)


def _spectra(axes: Axes, spectra: dict[str, list[float]], what: str) -> None:
    """Share of the variance that is left out, against the rank, down to rounding.

    What has fewer than two such shares is not drawn.
    """
    shares = {name: share for name, values in spectra.items()
              if len(share := variance_left_out(values)) > 1}
    if not shares:
        by_epoch.nothing(axes, f"no {what} were factored")
        return
    colours = colours_of(len(shares))
    for colour, (name, share) in zip(colours, shares.items(), strict=True):
        axes.plot(range(len(share)), share, linewidth=1, label=name, color=colour)
    axes.set_yscale("log")
    axes.set_title(f"spectra of {what}", fontsize=8)
    by_epoch.finish(axes, "rank", "variance left out")
    if len(shares) <= 12:
        axes.legend(fontsize=6, frameon=False)


def variance_left_out(spectrum: Sequence[float]) -> list[float]:
    """By rank from 0; nothing but rounding is left out.

    >>> variance_left_out([3.0, 1.0, 0.0])
    [1.0, 0.25]
    """
    total = sum(spectrum)
    left = [sum(spectrum[rank:]) / total for rank in range(len(spectrum))] if total else []
    return [share for share in left if share > 1e-6]
