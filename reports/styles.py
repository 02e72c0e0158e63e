"""One colour, marker and line for each method, the same in every figure."""

from reports.budget_curve import COLOURS, INK, Style
from reports.series import PEP

BLUE, RED, GREEN, PINK, ORANGE, SKY = COLOURS
NAVY, PALE = "#003A5D", "#7FB8DA"  # a darker and a lighter blue: variants of PEP

STYLES: dict[str, Style] = {  # pruning after training is dashed, random masks are dotted
    PEP: (BLUE, "o", "-"), "uniform": (RED, "s", "-"), "mde": (GREEN, "^", "-"), "mgqe": (PINK, "D", "-"),
    "darts": (ORANGE, "v", "-"), "hash": (SKY, "<", "-"), "qr": (INK, ">", "-"), "tt": (GREEN, "1", "-."),
    "magnitude pruning": (RED, "P", "--"), "iterative pruning": (GREEN, "X", "--"),
    "random mask": (INK, "*", ":"), "random mask, PEP's share a field": (BLUE, "d", ":"),
    "random mask, PEP's size of a feature": (NAVY, "X", ":"),
    "cut by |V| alone": (BLUE, "p", "--")}
RE_INIT: Style = (NAVY, "^", "--")  # PEP's mask on fresh values
NO_RETRAINING: Style = (PALE, "", "-.")
GRANULARITIES: dict[str, Style] = {  # by threshold_type; those of the paper's Figure 10
    "global": (INK, "s", ":"), "dimension": (NAVY, "^", "--"), "feature": (PALE, "D", "-."),
    "feature_dim": (BLUE, "o", "-")}
UMEC: dict[str, Style] = {  # UMEC and its rivals
    "umec": (BLUE, "o", "-"), "umec, faithful": (NAVY, "^", "--"), "umec, scratch": (PALE, "D", "-."),
    "umec, one descent": (NAVY, "d", ":"),
    "magnitude": (RED, "P", "--"), "as-umec": (PINK, "X", "--"), "taylor": (GREEN, "v", "--"),
    "group-lasso": (ORANGE, "s", "--"), "handmade": (SKY, "<", "-."), "random": (INK, "*", ":")}
