"""What a result is of: its scheme and its stage, by the names that pages use."""

from collections.abc import Sequence
from typing import Any

PEP = "PEP"
PRUNED = {"cut_last_magnitude": "cut by |V| alone", "magnitude": "magnitude pruning",
          "imp": "iterative pruning",
          "random": "random mask", "random_per_field": "random mask, PEP's share a field",
          "random_per_feature": "random mask, PEP's size of a feature"}  # by a snapshot's source
STEPPING_STONE = "imp_round"  # a source, of iterative pruning's rounds before the last
FINETUNED = "finetune"  # a stage: a compressed model, or its control, fine-tuned
# stages of UMEC, AFM, the water line and their baselines, which have pages of their own
QUANTISED = "quantise"  # a stage: a table of few bits an entry, retrained
COMPRESSED = ("compress", FINETUNED, QUANTISED)
FREE = ("candidate_p",)  # settings that name budgets and change none of the tables at them

Results = Sequence[dict[str, Any]]


def kind(result: dict[str, Any]) -> str:
    """The label of a result's scheme."""
    if result["settings"]["model"] == "linear":
        return "LR"
    if result["stage"] == "retrain":
        return PRUNED.get(result["snapshot"]["source"], PEP)
    return result["settings"]["embedding"]
