"""Click models with an injected embedding, and PEP for anybody's model: see `plug`."""

from .plug.plug import Plugged, masked, plug, unplug
from .plug.snapshot import Snapshot, snapshot

__all__ = ["Plugged", "Snapshot", "masked", "plug", "snapshot", "unplug"]
