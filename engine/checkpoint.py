"""Checkpoints and results on disk. No pickle: tensors as safetensors, everything else as JSON
beside them."""

import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from utils.files import atomic_path
from utils.locks import locked

TENSOR_KEY = "$tensor"
OF_TRAINING = ("model", "optimizer", "rng", "counters", "loss_sum", "hooks", "compiled", "threads",
               "seconds")  # sections


def pack(value: Any, tensors: dict[str, Tensor], path: str = "t") -> Any:
    """Replace every tensor in nested dicts and lists by a reference, collecting it in `tensors`.

    >>> found = {}
    >>> pack({"a": [1, torch.ones(2)]}, found), list(found)
    ({'a': [1, {'$tensor': 't.a.1'}]}, ['t.a.1'])
    """
    if isinstance(value, Tensor):
        # a clone: safetensors refuses shared memory
        tensors[path] = value.detach().cpu().clone().contiguous()
        return {TENSOR_KEY: path}
    if isinstance(value, dict):
        return {str(key): pack(item, tensors, f"{path}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [pack(item, tensors, f"{path}.{position}") for position, item in enumerate(value)]
    return value


def unpack(value: Any, tensors: dict[str, Tensor]) -> Any:
    """The inverse of `pack`; tuples come back as lists, keys as strings."""
    if isinstance(value, dict):
        if set(value) == {TENSOR_KEY}:
            return tensors[value[TENSOR_KEY]]
        return {key: unpack(item, tensors) for key, item in value.items()}
    if isinstance(value, list):
        return [unpack(item, tensors) for item in value]
    return value


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write nested content as one file, whole or not at all."""
    tensors: dict[str, Tensor] = {}
    text = json.dumps(pack(content, tensors))
    need = len(text) + sum(tensor.nbytes for tensor in tensors.values())
    with atomic_path(path, need) as temporary:
        save_file(tensors, temporary, metadata={"content": text})


def load_checkpoint(path: Path, sections: Iterable[str] = ()) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote.

    Args:
        path: of the file.
        sections: what it must hold at least.

    Raises:
        ValueError: the file is corrupt or lacks a section; the message says what to do.
    """
    try:
        with safe_open(path, framework="pt") as opened:
            text, names = opened.metadata()["content"], opened.keys()
            tensors = {name: opened.get_tensor(name) for name in names}
        content = unpack(json.loads(text), tensors)
        if absent := sorted(set(sections) - set(content)):
            raise ValueError(f"it has no {', '.join(absent)}")
        return content
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"the checkpoint {path} is corrupt ({error}); delete it, or start again "
                         "with --force") from error


def optimizer_content(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Moments and step counts by parameter number."""
    return optimizer.state_dict()["state"]


def restore_optimizer(optimizer: torch.optim.Optimizer, content: dict[str, Any]) -> None:
    """Put back what `optimizer_content` gave."""
    state = {int(number): moments for number, moments in content.items()}
    optimizer.load_state_dict({"state": state,
                               "param_groups": optimizer.state_dict()["param_groups"]})


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold a folder for this process.

    Raises:
        BlockingIOError: another living process holds it.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(folder / ".lock", wait=False))
        except BlockingIOError as error:
            raise BlockingIOError(
                f"{folder} is in use by another process that runs the same "
                "settings; wait for it, or change a setting or the seed"
            ) from error
        yield
