"""Settings of a model or an embedding: a frozen record beside its class, one `option` a field."""

from dataclasses import MISSING, dataclass, field, fields
from typing import Any, TypeVar

Values = dict[str, Any]  # checked settings by their published names
Sizes = tuple[int, ...]  # rows of each field
Record = TypeVar("Record")


def option(default: Any, help: str, *, source: str = "", choices: Any = None,
           low: float | None = None, below: float | None = None, owner: str | None = None,
           id_of: str | None = None, in_id: bool = True, id_name: str | None = None,
           neutral: Any = MISSING) -> Any:
    """One setting: its default, what is allowed, and how it enters a run's id.

    A setting in the record of a model or an embedding enters the id of runs with that model or
    embedding; any other setting enters the id of every run.

    Args:
        default: the value when a dict does not name the setting.
        help: what it is, with its unit.
        source: who published it.
        choices: allowed names, or a function that returns them.
        low, below: low <= value < below; of a list, every element.
        owner: the embedding that alone uses it, for a setting in a record of the engine.
        id_of: the only embedding whose results it can change.
        in_id: False for a setting that cannot change a result.
        id_name: its name in the id, where an earlier version had another one.
        neutral: the value that leaves no trace in the id; the default when not given. It never
            changes, so that old runs stay reachable when a default does.
    """
    rules = {"default": default, "help": help, "source": source, "choices": choices, "low": low,
             "below": below,
             "owner": owner, "id_of": id_of, "in_id": in_id, "id_name": id_name,
             "neutral": default if neutral is MISSING else neutral}
    return field(default=default, metadata=rules)


@dataclass(frozen=True)
class NoSettings:
    """The record of a class without settings of its own."""


def record_of(record: type[Record], values: Values) -> Record:
    """A record filled from a flat dict; what the dict lacks keeps its default.

    >>> record_of(NoSettings, {"latent_dim": 8})
    NoSettings()
    """
    names = [item.name for item in fields(record)]  # type: ignore[arg-type]
    return record(**{name: values[name] for name in names if name in values})


def no_check(own: Any, values: Values) -> None:
    """Everything fits."""
