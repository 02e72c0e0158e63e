"""Tables: as columns of plain text, and as Markdown."""

import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple


class Table(NamedTuple):
    """A head and its rows, all text."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def plain(self) -> str:
        """Columns padded to their widest cell.

        >>> print(Table(["a", "b"], [["1", "22"]]).plain())
        a  b
        1  22
        """
        lines = [self.head, *self.rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)

    def markdown(self) -> str:
        """With a rule below the head.

        >>> print(Table(["a", "b"], [["1", "22"]]).markdown())
        | a | b |
        | --- | --- |
        | 1 | 22 |
        """
        lines = [self.head, ["---"] * len(self.head), *self.rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def plain(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """`Table.plain` in one call."""
    return Table(head, rows).plain()


def spread(values: Sequence[float], form: str = ".4f") -> str:
    """Mean ± standard deviation (of a sample; absent for one value).

    >>> spread([0.5, 0.7]), spread([0.5])
    ('0.6000 ± 0.1414', '0.5000')
    """
    mean = format(statistics.mean(values), form)
    if len(values) < 2:
        return mean
    return f"{mean} ± {format(statistics.stdev(values), form.lstrip('+'))}"


# a cut of which no more than this share differs from the |V|-only cut is by magnitude
DECIDED = 0.01


def of_results(results: Sequence[dict[str, Any]]) -> str:
    """One line a run, for the end of a script; below them what a reader must know of the
    numbers."""
    head = ["stage", "parameters", "of", "test AUC", "log-loss", "val. AUC", "best test AUC*",
            "epochs", "s/epoch",
            "stopped by", "run"]
    rows = [[r["stage"], f"{r['num_embedding_params']:,}{'†' if _cut_last(r) else ''}",
             f"{r['num_embedding_params_dense']:,}", f"{r['test_auc']:.4f}",
             f"{r['test_logloss']:.4f}",
             f"{r['validation_auc']:.4f}", f"{r['published_protocol']['best_test_auc']:.4f}",
             str(r["epochs"]),
             f"{r['seconds_per_epoch']:.2f}" if r["seconds_per_epoch"] else "-", r["stop_reason"],
             r["run_id"]]
            for r in results]
    lines = [plain(head, rows),
             "* published protocol: mean of per-batch AUCs, best epoch picked on test"]
    notes = []
    for result in results:
        notes += [of_budgets(result), of_ticket(result), of_base_rate(result)]
    return "\n".join([*lines, *dict.fromkeys(line for line in notes if line)])


def _cut_last(result: dict[str, Any]) -> bool:
    return result.get("snapshot", {}).get("source") == "cut_last"


def of_budgets(result: dict[str, Any]) -> str:
    """A line on the budgets that a search's thresholds did not reach; "" for any other run.

    >>> print(of_budgets({"stage": "search", "budgets_not_reached": [9, 5],
    ...                   "num_embedding_params": 12, "num_embedding_params_dense": 100,
    ...                   "differing": {"9": 3, "5": 2},
    ...                   "settings": {"candidate_p": [50, 9, 5], "budget": "exact"}}))
    ! budgets 9, 5 were not reached by the thresholds: † cut by margin from the last table, 12 of
    100 entries left
    """
    missed = result.get("budgets_not_reached")
    if not missed:
        return ""
    settings = result["settings"]
    left, dense = result["num_embedding_params"], result["num_embedding_params_dense"]
    usable = [budget for budget in settings["candidate_p"] if budget <= dense]
    none = len(missed) == len(usable)
    named = "no budget was" if none else f"budgets {_listed(missed)} were not"
    if settings["budget"] == "as_reached":
        return f"! {named} reached by the thresholds, and there is no snapshot of them"
    undecided = [int(budget) for budget, count in result.get("differing", {}).items()
                 if count <= DECIDED * int(budget)]
    which = "these" if len(undecided) == len(missed) else _listed(undecided)
    return f"! {named} reached by the thresholds: {_how_cut(left, dense)}{_by_magnitude(which)}"


def of_ticket(result: dict[str, Any]) -> str:
    """A line on a retrained table that a search's thresholds did not reach; "" for any other
    run."""
    if not _cut_last(result):
        return ""
    snapshot = result["snapshot"]
    if "cut_from" not in snapshot:  # it is older
        return "† cut by margin from the search's last table"
    budget = result["num_embedding_params"]
    undecided = snapshot["differing"] <= DECIDED * budget
    return (_how_cut(snapshot["cut_from"], result["num_embedding_params_dense"])
            + _by_magnitude(f"{budget:,}" if undecided else ""))


def _how_cut(left: int, dense: int) -> str:
    return f"† cut by margin from the last table, {left:,} of {dense:,} entries left"


def _by_magnitude(which: str) -> str:
    return f"; no threshold decided {which}: cut by magnitude, not PEP's" if which else ""


def _listed(budgets: Sequence[int]) -> str:
    return ", ".join(f"{budget:,}" for budget in budgets)


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
