"""Table 4: PEP at the paper's smallest budgets (PEP-0) against logistic regression, for each model;
beyond the paper also with the start of the thresholds that validation chooses.

The paper's AUC is the mean over test batches at its best test epoch. Ours is given that way, and as
it is over all test rows at the epoch that validation chose.
"""

from pathlib import Path
from typing import Any, NamedTuple

from studies import choice, starts
from studies.kinds import PEP, Results, kind
from studies.page import OPEN, RUNS, Number, Page, number, runs_of, shown, with_sampling_error
from studies.series import from_last


class Cell(NamedTuple):
    """One of the paper's numbers."""

    auc: float
    params: int


LR, FM, DEEPFM, AUTOINT, AUTOINT_LR = (
    "LR",
    "PEP-0 (FM)",
    "PEP-0 (DeepFM)",
    "PEP-0 (AutoInt)",
    "PEP-0 (AutoInt+LR)",
)
MODELS = {LR: "linear", FM: "fm", DEEPFM: "deepfm", AUTOINT: "autoint", AUTOINT_LR: "autoint"}
PAPER = {"movielens": {LR: Cell(0.7717, 0), FM: Cell(0.8368, 6_541), DEEPFM: Cell(0.8491, 8_604),
                       AUTOINT: Cell(0.8530, 9_281)},
         "criteo": {LR: Cell(0.7881, 0), FM: Cell(0.7941, 1_067), DEEPFM: Cell(0.7986, 1_227),
                    AUTOINT: Cell(0.7922, 3_116), AUTOINT_LR: Cell(0.7980, 1_117)},
         "avazu": {LR: Cell(0.7499, 0), FM: Cell(0.7598, 1_479), DEEPFM: Cell(0.7622, 2_215),
                   AUTOINT: Cell(0.7607, 2_805), AUTOINT_LR: Cell(0.7620, 2_225)}}
HIGHER = {("movielens", LR): "the paper's number probably comes from another feature set",
          # where ours is higher
          ("movielens", FM): "our uniform tables score higher than the paper's too"}


def build(results: Results, out: Path, dataset: str, model: str) -> Page:
    """The page of a data set with all models; `model` and `out` are not looked at.

    Args:
        results: of any data sets and models.
    """
    page = Page("table4", dataset, None, f"Table 4: PEP-0 against LR on {shown(dataset)}")
    if dataset not in PAPER:
        page.missing.append(f"the paper's budgets for {shown(dataset)}: it does not use these data")
    for method, paper in PAPER.get(dataset, {}).items():
        _add(page, method, method, _runs(page, results, method, paper.params))
        if dataset == "movielens" and method != LR:
            others = starts.of_other_starts(results, dataset, MODELS[method], paper.params)
            for start, runs in others.items():
                _add(page, method, f"{method}, {start.words}", runs.get(paper.params, []))
    page.notes.append("The published protocol is the mean of per-batch test AUCs at its best test "
                      "epoch, which the paper's numbers have to be compared with. † cut from the "
                      "search's last table, because the search itself does not get that low.")
    return page


def _add(page: Page, method: str, name: str, runs: Results) -> None:
    """Rows and numbers of a line of the table, under a name."""
    paper = PAPER[page.dataset][method]
    page.rows += [{"method": name, "seed": run["seed"],
                   "parameters": run["num_embedding_params"],
                   "published_protocol_auc": run["published_protocol"]["best_test_auc"],
                   "test_auc": run["test_auc"], "test_logloss": run["test_logloss"],
                   "cut_from_last_table": from_last([run]),
                   **({} if page.sample
                      else {"paper_auc": paper.auc, "paper_parameters": paper.params}),
                   RUNS: runs_of([run])} for run in runs]
    if runs:
        page.numbers += _numbers(page, method, name, runs, paper)


def method_of(dataset: str, model: str) -> str | None:
    """The line of Table 4 that a model has on a data set.

    >>> method_of("movielens", "fm"), method_of("planted", "fm")
    ('PEP-0 (FM)', None)
    """
    return next((method for method in PAPER.get(dataset, {}) if MODELS[method] == model), None)


def beside_paper(page: Page, method: str, auc: Number, runs: Results) -> Number:
    """An AUC with its sampling error and the paper's of a line of Table 4, and why it differs."""
    auc = with_sampling_error(auc._replace(paper=PAPER[page.dataset][method].auc),
                              page.data.get(runs[0]["manifest"]))
    cut = (
        "; ours is cut from the last table, the paper does not say how it got there"
        if from_last(runs)
        else ""
    )
    return auc._replace(why=_why(page.dataset, method, auc) or OPEN + cut)


def _runs(page: Page, results: Results, method: str, budget: int) -> list[dict[str, Any]]:
    found = choice.of(page, results, MODELS[method], kinds=("LR",) if method == LR
                      else ("pep", PEP))
    if method == LR:
        return choice.chosen(page, LR, [run for run in found if kind(run) == LR], found)
    with_linear = method == AUTOINT_LR
    tickets = [run for run in choice.tickets(found, with_linear=with_linear)
               if choice.budget_of(run) == budget]
    return choice.chosen(page, f"{method} at {budget:,} parameters", tickets, found)


def _numbers(page: Page, method: str, name: str, runs: Results, paper: Cell) -> list[Number]:
    label = name + (" †" if from_last(runs) else "")
    size = number(f"{label}: parameters", runs, lambda run: run["num_embedding_params"],
                  paper.params, form=",.0f")
    published = number(f"{label}: AUC, published protocol", runs,
                       lambda run: run["published_protocol"]["best_test_auc"])
    strict = number(f"{label}: AUC, selected on validation", runs, lambda run: run["test_auc"])
    return [*([size] if method != LR else []),
            *(beside_paper(page, method, auc, runs) for auc in (published, strict))]


def _why(dataset: str, method: str, auc: Number) -> str:
    """Why ours differs from the paper's; empty where nobody knows."""
    difference = auc.difference or 0.0
    if abs(difference) <= auc.spread:
        return "within one standard deviation over seeds"
    if auc.sampling is not None and abs(difference) <= auc.sampling:
        return "within one sampling error of the test rows"
    return HIGHER.get((dataset, method), "") if difference > 0 else ""
