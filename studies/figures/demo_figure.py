"""The demo's figure: the budget curve beside the teacher, and the recovered widths beside the
planted ones."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from studies.figures import budget_curve
from studies.figures.styles import BLUE

SIZE = (7.0, 2.8)  # inches: both columns of a page


def draw(path: Path, results: Sequence[dict[str, Any]], teacher_auc: float,
         planted: Mapping[str, int],
         recovered: Mapping[str, float]) -> Path:
    """Write the two panels as PNG.

    Args:
        path: of the file.
        results: of the tickets and the baselines.
        teacher_auc: the level that no model is expected to pass.
        planted, recovered: width of each field, by its name.
    """
    figure = budget_curve.new_figure(SIZE)
    left, right = figure.subplots(1, 2)
    budget_curve.horizontal(left, "teacher", teacher_auc)
    budget_curve.draw_series(left, budget_curve.series_of(results))
    for result in results:
        if result["stage"] == "train":
            left.annotate(f"d {result['settings']['latent_dim']}",
                          (result["num_embedding_params"], result["test_auc"]),
                          xytext=(-4, 6), textcoords="offset points", fontsize=6.5, ha="center",
                          color=budget_curve.INK)
    left.set_title("Retrained tickets and uniform widths", fontsize=8)
    _bars(right, planted, recovered)
    return budget_curve.save(figure, path)


def _bars(axes: Axes, planted: Mapping[str, int], recovered: Mapping[str, float]) -> None:
    places = range(len(planted))
    for shift, widths, label, colour in ((-0.2, planted, "planted", budget_curve.INK),
                                         (0.2, recovered, "recovered", BLUE)):
        axes.bar([place + shift for place in places], [widths[field] for field in planted], 0.4,
                 label=label,
                 color=colour)
    axes.set_xticks(places, list(planted))
    axes.set_xlabel("field", fontsize=8)
    axes.set_ylabel("mean width of a row's vector", fontsize=8)
    axes.set_title("Planted and recovered widths", fontsize=8)
    axes.legend(fontsize=6.5, frameon=False, loc="upper left")
    budget_curve.tidy(axes)
    axes.grid(visible=False, axis="x")
