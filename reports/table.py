"""Results as text tables."""

from collections.abc import Sequence
from typing import Any


def of_results(results: Sequence[dict[str, Any]]) -> str:
    """One line a run, for the end of a script."""
    head = ["stage", "parameters", "of", "test AUC", "log-loss", "val. AUC", "best test AUC*", "epochs", "s/epoch",
            "stopped by", "run"]
    rows = [[r["stage"], f"{r['num_embedding_params']:,}", f"{r['num_embedding_params_dense']:,}",
             f"{r['test_auc']:.4f}", f"{r['test_logloss']:.4f}", f"{r['validation_auc']:.4f}",
             f"{r['published_protocol']['best_test_auc']:.4f}", str(r["epochs"]),
             f"{r['seconds_per_epoch']:.2f}" if r["seconds_per_epoch"] else "-", r["stop_reason"], r["run_id"]]
            for r in results]
    lines = [plain(head, rows),
             "* published protocol: mean of per-batch AUCs, best epoch picked on test"]
    return "\n".join([*lines, *(line for line in map(of_base_rate, results) if line)])


def of_base_rate(result: dict[str, Any]) -> str:
    """A line on a run that does worse than a constant prediction; "" otherwise, and for older runs.

    >>> of_base_rate({"run_id": "1f", "validation_logloss": 0.9,
    ...               "validation_logloss_base_rate": 0.5})
    '! run 1f: validation log-loss 0.9 is worse than 0.5, that of a constant prediction'
    """
    base = result.get("validation_logloss_base_rate")
    if base is None or result["validation_logloss"] <= base:
        return ""
    found = result["validation_logloss"]
    return (f"! run {result['run_id']}: validation log-loss {found:.4g} is worse than {base:.4g}, "
            "that of a constant prediction")


def plain(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns padded to their widest cell.

    >>> print(plain(["a", "b"], [["1", "22"]]))
    a  b
    1  22
    """
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
                     for row in (head, *rows))
