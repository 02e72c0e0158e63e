"""Click models with an injected embedding, and PEP for anybody's model: see `plug`."""

from .plug_in.plug import Plugged, masked, plug, unplug
from .plug_in.snapshot import Snapshot, snapshot

__all__ = ["Plugged", "Snapshot", "masked", "plug", "snapshot", "unplug"]
