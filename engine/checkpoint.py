"""Checkpoints and results on disk. No pickle: tensors as safetensors, everything else as JSON
beside them."""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from models.npz import digest_of
from utils.files import WITH_CHECKSUM, atomic_path, sha256_of, take_checksum
from utils.locks import locked

TENSOR_KEY = "$tensor"
DIGEST = "$digest"  # among a file's content, over all else; older files have none
FORMAT = 2  # of a training's checkpoint; raise it when an older one can no longer be resumed
SECTIONS = ("model", "optimizer", "rng", "counters", "loss_sum", "hooks", "threads",
            "seconds", "processor_seconds")  # of a training's checkpoint


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
    packed = pack(content, tensors)
    # beside the content and not in a field of its own, whose place in the file would be random
    text = json.dumps({WITH_CHECKSUM: True, **packed, DIGEST: _digest(packed, tensors)})
    need = len(text) + sum(tensor.nbytes for tensor in tensors.values())
    with atomic_path(path, need) as temporary:
        save_file(tensors, temporary, metadata={"content": text})


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote.

    Raises:
        ValueError: the file is corrupt; the message says what to do.
    """
    try:
        with safe_open(path, framework="pt") as opened:
            metadata, names = opened.metadata(), opened.keys()
            tensors = {name: opened.get_tensor(name) for name in names}
        packed = json.loads(metadata["content"])
        found = take_checksum(packed, DIGEST)
        if found is not None and found != _digest(packed, tensors):
            raise ValueError("its content is not what was written: another checksum")
        return unpack(packed, tensors)
    except FileNotFoundError:
        raise
    except Exception as error:  # damage may show in any way
        raise corrupt(path, str(error)) from error


def checked(content: dict[str, Any], path: Path, hooks: Iterable[str]) -> dict[str, Any]:
    """The content of the checkpoint of a training that was stopped, if it can be resumed.

    Args:
        path: that it was read from.
        hooks: names of the run's hooks that have a state.

    Raises:
        ValueError: the file is corrupt, or was written by another version of this code.
    """
    if content.get("format") != FORMAT:
        raise ValueError(f"the checkpoint {path} was written by another version of this code "
                         f"(format {content.get('format', 1)}, this one reads {FORMAT}); finish "
                         f"the run with that version, or start it again with --force")
    if absent := sorted(set(SECTIONS) - set(content)):
        raise corrupt(path, f"it has no {', '.join(absent)}")
    if (wanted := sorted(hooks)) != (found := sorted(content["hooks"])):
        raise ValueError(f"the checkpoint {path} has the hooks {', '.join(found)}, and the run has "
                         f"{', '.join(wanted)}; start it again with --force")
    return content


def _digest(packed: dict[str, Any], tensors: dict[str, Tensor]) -> str:
    """Over all that a file holds."""
    arrays = {f"{name} {each.dtype} {tuple(each.shape)}":
              each.reshape(-1).view(torch.uint8).numpy() for name, each in tensors.items()}
    return sha256_of(json.dumps(packed, sort_keys=True), digest_of(arrays))


def corrupt(path: Path, why: str) -> ValueError:
    """The error of a checkpoint that cannot be read."""
    return ValueError(f"the checkpoint {path} is corrupt ({why}); delete it, or start again with "
                      f"--force")


def optimizer_content(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Moments and step counts by the index of their parameter."""
    return optimizer.state_dict()["state"]


def restore_optimizer(optimizer: torch.optim.Optimizer, content: dict[str, Any]) -> None:
    """Put back what `optimizer_content` gave."""
    state = {int(index): moments for index, moments in content.items()}
    optimizer.load_state_dict({"state": state,
                               "param_groups": optimizer.state_dict()["param_groups"]})


@contextmanager
def only_one(folder: Path) -> Iterator[Callable[[], bool]]:
    """Hold a folder for this process; yields what `locked` does.

    Raises:
        BlockingIOError: another living process holds it.
    """
    with ExitStack() as stack:
        try:
            there = stack.enter_context(locked(folder / ".lock", wait=False))
        except BlockingIOError as error:
            raise BlockingIOError(f"{folder} is in use by another process that runs the same "
                                  f"settings; wait for it, or change a setting or the "
                                  f"seed") from error
        yield there
