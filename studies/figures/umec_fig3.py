"""UMEC's Figure 3: accuracy against compression, whole fields removed and nothing else (Shen et al.
2021)."""

from pathlib import Path

from studies.figures import umec_curves
from studies.kinds import Results
from studies.page import Page, shown

PAPER = {0.977: 0.78992, 0.9: 0.78988, 0.83: 0.78901, 0.791: 0.78897}  # read off the figure
METHODS = ("umec", "group-lasso", "magnitude", "dense")


def build(results: Results, out: Path, dataset: str, model: str) -> Page:
    """The page of a data set; its model is DLRM, whatever `model` says.

    Args:
        results: of any data sets and models.
        out: not looked at.
    """
    page = Page("umec-fig3", dataset, "dlrm",
                f"UMEC, Figure 3: input selection, DLRM on {shown(dataset)}")
    return umec_curves.build(page, results, False, METHODS, PAPER)
