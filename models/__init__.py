"""Click models with an injected embedding, and PEP for any PyTorch model: see `plug`."""

from .plug_in.plug import Plugged, masked, plug, unplug
from .plug_in.snapshot import snapshot
from .pruned_tables import PrunedTables
from .serving.scorer import Scorer, load

__version__ = "0.2.0"
__all__ = ["Plugged", "PrunedTables", "Scorer", "load", "masked", "plug", "snapshot", "unplug"]
