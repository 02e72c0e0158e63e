"""Click models with an injected embedding, and PEP for any PyTorch model: see `plug`."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .plug_in.plug import Plugged, masked, plug, unplug
    from .plug_in.saved import load_tables
    from .plug_in.snapshot import snapshot
    from .pruned_tables import PrunedTables
    from .serving.scorer import Scorer, load

__version__ = "0.2.0"
__all__ = ["Plugged", "PrunedTables", "Scorer", "load", "load_tables", "masked", "plug",
           "snapshot", "unplug"]
_HOMES = {"PrunedTables": ".pruned_tables", "snapshot": ".plug_in.snapshot",
          "load_tables": ".plug_in.saved",
          "Scorer": ".serving.scorer", "load": ".serving.scorer"}


def __getattr__(name: str) -> Any:
    """A name of `__all__`, imported when it is first read: torch takes seconds, and commands read
    files of this folder without it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(_HOMES.get(name, ".plug_in.plug"), __name__), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
