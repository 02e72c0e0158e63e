"""Figures and tables by name: a module each, with `build(results, out, dataset, model) -> Page`,
which reads result files and the run folders under `out`.

A module is imported when its page is built: the command lines, which need the names alone, answer
at once.
"""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from studies.kinds import Results
    from studies.page import Page

PAGES = {"fig2": "fig2", "fig5": "fig5", "fig6": "fig6", "fig8": "fig8", "fig10": "fig10",
         "fig11": "fig11", "table1": "table1", "table2": "table2", "table3": "table3",
         "table4": "table4", "thresholds": "thresholds", "extreme": "extreme",
         "starts": "starts", "stability": "stability",
         "umec-fig2": "umec_fig2", "umec-fig3": "umec_fig3",
         "afm": "afm_page", "waterline": "waterline",
         "leaderboard": "leaderboard"}  # name -> module
# figures that the paper numbers by data set: name -> (the page's, data set)
OF_OTHER_DATA = {"fig3": ("fig2", "criteo"), "fig4": ("fig2", "avazu"), "fig9": ("fig8", "avazu"),
                 # no paper's figures: all schemes on other data
                 "frappe": ("fig2", "frappe"), "ids": ("fig2", "movielens_ids")}


def name_of(page: str, dataset: str) -> str:
    """A page's name for a data set.

    >>> name_of("fig2", "criteo"), name_of("fig2", "movielens")
    ('fig3', 'fig2')
    """
    names = {of: name for name, of in OF_OTHER_DATA.items()}
    return names.get((page, dataset), page)


def build(name: str, results: "Results", out: Path, dataset: str, model: str) -> "Page":
    """The page of a figure or table.

    Args:
        name: one of PAGES, or of OF_OTHER_DATA.
        results: of any data sets and models.
        out: the folder with the runs' own files.
    """
    name, dataset = OF_OTHER_DATA.get(name, (name, dataset))
    module = importlib.import_module(f"studies.figures.{PAGES[name]}")
    return module.build(results, out, dataset, model)
