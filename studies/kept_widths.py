"""How many entries of each vector a finished run or a snapshot keeps."""

import numpy as np

from compression.loaded_run import find_result, model_of, run_of_record, weights_of
from data.store import Dataset
from engine import snapshots
from engine.run import RunContext
from models.embedding.mixed_width import Mixed

# tables in which values share what is stored
SHARED = ("mgqe", "hash", "qr", "tt")


def kept_of(run_id: str, budget: str | None, context: RunContext) -> tuple[str, Dataset,
                                                                           np.ndarray]:
    """The run's id, its data set, and the entries kept of each row of its table, (N,).

    Args:
        budget: of a search, which snapshot; None: the smallest.

    Raises:
        FileNotFoundError: no such run or snapshot, or it kept no weights.
        ValueError: it has no table of vectors, or its data have changed.
    """
    result = find_result(run_id, context)
    run = run_of_record(result, context)
    if run.settings.scheme == "none":
        raise ValueError(f"run {result['run_id']} is of a model without vectors")
    if result["stage"] == "search":
        folder = context.out / "embedding" / run.settings.model.model / result["alias"]
        budgets = [int(name) for name in result["snapshots"] if name.isdecimal()]
        if not budgets and budget is None:
            raise FileNotFoundError(f"the search {result['run_id']} met none of its budgets and "
                                    "has no snapshot; name another run")
        name = budget or str(min(budgets))
        if name not in result["snapshots"]:
            raise FileNotFoundError(f"the search {result['run_id']} has no snapshot {name!r}; it "
                                    f"has {', '.join(result['snapshots'])}")
        table = snapshots.read(folder / f"{name}.npz")[0].table
        return f"{result['run_id']}_{name}", run.dataset, (table != 0).sum(axis=1)
    if budget is not None:
        raise ValueError(f"--budget is of a search; run {result['run_id']} is a {result['stage']}")
    scheme = run.settings.scheme
    if result["stage"] not in ("train", "retrain") or scheme in SHARED:
        what = (f"has {scheme} vectors, which share what is stored" if scheme in SHARED
                else f"is a {result['stage']} of compress.py")
        raise ValueError(f"run {result['run_id']} {what}: no value has a width of its own there; "
                         "name a ticket or the training of a uniform, mde or darts table")
    weights = weights_of(context.out / "runs" / result["run_id"])
    model = model_of(run, result, weights)
    model.load_state_dict(weights)
    embedding = model.embedding
    kept = (embedding.stored_widths() if isinstance(embedding, Mixed)
            else (embedding.table() != 0).sum(dim=1))
    return result["run_id"], run.dataset, kept.numpy()
