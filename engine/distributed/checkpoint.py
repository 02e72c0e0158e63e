"""Checkpoints of a run in several processes: safetensors files by torch's distributed checkpoint,
and JSON beside them.

Each process writes the parts of the tables that it has, under names of their lanes, so that any
number of processes can read what any other number wrote.
"""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor

from engine.checkpoint import corrupt, pack, unpack
from engine.distributed.shards import Shards
from engine.distributed.world import naming_a_lost_process
from utils.files import atomic_path

RECORD = "content.json"  # written last: a folder without it is not whole
LANE = "@lane"  # before the number of a lane in a tensor's name
for _noisy in ("hf_storage", "filesystem", "planner_helpers"):
    logging.getLogger(f"torch.distributed.checkpoint.{_noisy}").setLevel(logging.WARNING)


def save(folder: Path, step: int, content: dict[str, Any], shards: Shards,
         is_cut: tuple[str, ...]) -> None:
    """Write folder/<step>, whole or not at all, and delete what was there before.

    Args:
        content: nested, with the tensors of this process.
        is_cut: endings of the names of tensors that hold this process's rows alone.
    """
    world, place = shards.world, folder / str(step)
    packed: dict[str, Tensor] = {}
    text = json.dumps(pack(content, packed))
    tensors: dict[str, Any] = {}
    for name, tensor in packed.items():
        if name.endswith(is_cut):
            tensors |= {f"{name}{LANE}{lane}": tensor[part].contiguous()
                        for lane, part in zip(world.own, shards.parts, strict=True)}
        else:
            tensors[name] = tensor
    if world.rank == 0:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
    world.wait()
    try:
        with naming_a_lost_process(world.rank):
            dcp.save(tensors, storage_writer=dcp.HuggingFaceStorageWriter(str(place),
                                                                          save_distributed=True))
    except dcp.CheckpointException as error:  # not an Exception
        why = {f"rank {rank}": str(failure[0]) for rank, failure in error.failures.items()}
        raise OSError(f"the checkpoint {place} could not be written ({why}); the one before it "
                      f"stays. Make room there, or choose another folder with --out") from error
    if world.rank == 0:
        with atomic_path(place / RECORD) as temporary:
            temporary.write_text(text)
        for older in folder.iterdir():
            if older != place:
                shutil.rmtree(older)
    world.wait()


def load(folder: Path, shards: Shards) -> dict[str, Any] | None:
    """What the newest whole checkpoint in a folder holds for this process; None where there is
    none.

    Raises:
        ValueError: it is corrupt.
    """
    whole = sorted((int(path.parent.name) for path in folder.glob(f"*/{RECORD}")), reverse=True)
    if not whole:
        return None
    place = folder / str(whole[0])
    try:
        text = json.loads((place / RECORD).read_text())
        reader = dcp.HuggingFaceStorageReader(str(place))
        tensors: dict[str, Any] = {}
        found: dict[str, Any] = dict(reader.read_metadata().state_dict_metadata)
        for name, about in found.items():
            lane = name.partition(LANE)[2]
            if not lane or int(lane) in shards.world.own:
                tensors[name] = torch.empty(about.size, dtype=about.properties.dtype)
        dcp.load(tensors, storage_reader=reader, no_dist=True)
    except (Exception, dcp.CheckpointException) as error:  # what a damaged file makes readers raise
        raise corrupt(place, str(error).splitlines()[-1]) from error
    parts: dict[str, list[Tensor]] = {}
    for name in sorted(tensors, key=lambda name: int(name.partition(LANE)[2] or 0)):
        parts.setdefault(name.partition(LANE)[0], []).append(tensors[name])
    joined = {name: torch.cat(of_name) if len(of_name) > 1 else of_name[0]
              for name, of_name in parts.items()}
    try:
        return unpack(text, joined)
    except KeyError as error:
        raise corrupt(place, f"it lacks {error}: a file of it was removed") from error
