"""The demo: search, retraining and uniform tables on synthetic data of known widths, and their
figure, the budget curve beside the teacher and the recovered widths beside the planted ones."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from scipy.stats import spearmanr

from data.store import Dataset
from data.synthetic import planted
from engine import snapshots, stages
from engine.evaluate import auc
from engine.run import RunContext
from engine.settings import parse
from studies import table
from studies.figures import budget_curve
from studies.figures.styles import BLUE

UNIFORM_WIDTHS = (2, 4, 16)
SIZE = (7.0, 2.8)  # inches: both columns of a page


def run(settings: dict[str, Any], seed: int, out: Path, force: bool = False) -> None:
    """Run everything, print the table, draw the figure.

    Args:
        out: the demo's own folder, for runs and figure.
        force: run again what is finished.
    """
    # steps as small as these gain nothing from a second thread and, on a busy machine, lose much
    torch.set_num_threads(1)
    context = RunContext(out=out, device="cpu", force=force, overwrite=True)
    dataset = planted.open_dataset(None, context.cache)
    baselines = uniform(settings, UNIFORM_WIDTHS, seed, context)
    tickets = learn(settings, seed, context)
    best, dense = teacher_auc(dataset), baselines[-1]["test_auc"]
    runs = [(f"uniform d {run['settings']['latent_dim']}", run) for run in baselines]
    runs += [("PEP, retrained", run) for run in tickets]
    rows = []
    for name, run in runs:
        score = run["test_auc"]
        rows.append([name, f"{run['num_embedding_params']:,}", f"{score:.4f}",
                     f"{score - dense:+.4f}", f"{score - best:+.4f}"])
    rows.append(["teacher", f"{planted.num_params():,}", f"{best:.4f}", f"{best - dense:+.4f}", ""])
    head = ["model", "parameters", "test AUC", f"against d {settings['latent_dim']}",
            "against the teacher"]
    print(table.plain(head, rows))

    widths = {field.name: field.width for field in planted.FIELDS}
    recovered = recovered_widths(pruned_table(settings, planted.num_params(), seed, context),
                                 dataset)
    print(f"\nwidths recovered at {planted.num_params():,} parameters (kept entries of the vector "
          f"a row looks up)")
    print(table.plain(["field", "features", "planted", "recovered"],
                      [[field.name, str(field.size), str(field.width),
                        f"{recovered[field.name]:.1f}"]
                       for field in planted.FIELDS]))
    correlation = spearmanr(list(widths.values()), list(recovered.values())).statistic
    print(f"rank correlation of recovered and planted widths: {correlation:.2f}")
    path = draw(out / f"demo_seed{seed}.png", [*baselines, *tickets], best,
                            widths, recovered)
    print(f"figure: {path}")


def learn(settings: dict[str, Any], seed: int, context: RunContext) -> list[dict[str, Any]]:
    """Search, then retrain every budget: the results of the tickets, most parameters first."""
    stages.train(parse(settings), seed, context)
    return stages.retrain(parse(settings), seed, context)


def uniform(settings: dict[str, Any], widths: tuple[int, ...], seed: int,
            context: RunContext) -> list[dict[str, Any]]:
    """The same model with one width for every feature: one result a width."""
    return [stages.train(parse({**settings, "embedding": "uniform", "latent_dim": width}), seed,
                         context)
            for width in widths]


def pruned_table(settings: dict[str, Any], count: int, seed: int,
                 context: RunContext) -> np.ndarray:
    """The table (N, D) that the search saved at a budget, zero where it was pruned."""
    folder = stages.alias_folder(context.out, parse(settings), seed, context.alias)
    return snapshots.read(folder / f"{count}.npz")[0].table


def recovered_widths(pruned: np.ndarray, dataset: Dataset) -> dict[str, float]:
    """Entries kept of the vector that a training row looks up, on average, in each field.

    So a feature counts as often as it occurs. An average over a field's features would mostly
    describe rare ones, whose vectors are pruned in every field.
    """
    schema, ids = dataset.schema, dataset.split("train")[0]
    kept = np.count_nonzero(pruned, axis=1)  # (N,)
    return dict(zip(schema.fields, kept[ids].mean(axis=0).tolist(), strict=True))


def teacher_auc(dataset: Dataset) -> float:
    """What the true logits score on the test rows."""
    return auc(dataset.split("test")[1], planted.teacher_logits("test"))


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
