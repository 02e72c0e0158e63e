"""PEP on synthetic data whose true widths are known: search, retrain, table and figure, without a
download.

    python demo.py                # half a minute on one core; a second call reuses finished runs
    python demo.py --seed 2

A teacher factorisation machine draws the labels. Each field uses a planted number of coordinates,
some fields none. The search does not know these numbers; the widths that it leaves are compared
with them.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

from data.store import Dataset
from data.synthetic import planted
from engine import cli, snapshots, stages
from engine.evaluate import auc
from engine.run import RunContext
from engine.settings import parse
from studies import table
from studies.figures import demo_figure

SETTINGS = {
    "dataset": "planted",
    "model": "fm",
    "embedding": "pep",
    "latent_dim": 16,  # twice the widest planted field: 650 x 16 = 10,400 parameters
    # s rises by at most lr a step, so pruning begins within the first epochs
    "threshold_init": -8.0,
    # decay lets s rise to 0 and no further, so g ends at gk / 2 = 1; the learned entries are that
    # large
    "gk": 2.0,
    "candidate_p": [2_750, 1_375, 900],  # 1,375 is what the teacher itself has
    "batch_size": 1024,
    "lr": 1e-2,  # ten times that of the data sets: 78 steps an epoch have to do
    # it moves the thresholds; lower, and the smallest budget is not reached
    "l2_regularization": 1.5e-4,
    "weight_decay": 1e-5,  # of the other parameters, which move no threshold
    "max_epochs": 40,
    "eval_interval": 1,
    "early_stop": 6,
    "tensorboard": False,
}
UNIFORM_WIDTHS = (2, 4, 16)


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


def options() -> argparse.Namespace:
    """The command line."""
    read = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
    read.add_argument("--seed", type=int, default=1,
                      help="of initial values and batch order; the data stay the same")
    read.add_argument("--out", type=Path, default=Path("tmp/demo"),
                      help="where runs and figure go (tmp/demo)")
    read.add_argument("--force", action="store_true", help="run again what is finished")
    read.add_argument("--traceback", action="store_true",
                      help="show where in the code an error comes from")
    return read.parse_args()


def main() -> None:
    """Run everything, print the table, draw the figure."""
    given = options()
    # steps as small as these gain nothing from a second thread and, on a busy machine, lose much
    torch.set_num_threads(1)
    # the folder is the demo's own
    context = RunContext(out=given.out, device="cpu", force=given.force, overwrite=True)
    dataset = planted.open_dataset(None, context.cache)
    baselines = uniform(SETTINGS, UNIFORM_WIDTHS, given.seed, context)
    tickets = learn(SETTINGS, given.seed, context)
    best, dense = teacher_auc(dataset), baselines[-1]["test_auc"]
    runs = [(f"uniform d {run['settings']['latent_dim']}", run) for run in baselines]
    runs += [("PEP, retrained", run) for run in tickets]
    rows = []
    for name, run in runs:
        score = run["test_auc"]
        rows.append([name, f"{run['num_embedding_params']:,}", f"{score:.4f}",
                     f"{score - dense:+.4f}", f"{score - best:+.4f}"])
    rows.append(["teacher", f"{planted.num_params():,}", f"{best:.4f}", f"{best - dense:+.4f}", ""])
    head = ["model", "parameters", "test AUC", f"against d {SETTINGS['latent_dim']}",
            "against the teacher"]
    print(table.plain(head, rows))

    widths = {field.name: field.width for field in planted.FIELDS}
    recovered = recovered_widths(pruned_table(SETTINGS, planted.num_params(), given.seed, context),
                                 dataset)
    print(f"\nwidths recovered at {planted.num_params():,} parameters (kept entries of the vector "
          f"a row looks up)")
    print(table.plain(["field", "features", "planted", "recovered"],
                      [[field.name, str(field.size), str(field.width),
                        f"{recovered[field.name]:.1f}"]
                       for field in planted.FIELDS]))
    correlation = spearmanr(list(widths.values()), list(recovered.values())).statistic
    print(f"rank correlation of recovered and planted widths: {correlation:.2f}")
    path = demo_figure.draw(given.out / f"demo_seed{given.seed}.png", [*baselines, *tickets], best,
                            widths, recovered)
    print(f"figure: {path}")


if __name__ == "__main__":
    cli.main(main)
