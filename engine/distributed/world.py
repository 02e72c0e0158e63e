"""The processes of a run and what they tell each other."""

import contextlib
import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from functools import wraps
from multiprocessing.util import Finalize
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from engine.distributed import launch
from utils.text import counted

JOIN_SECONDS = 300.0  # that a process waits for the others to start
SILENCE = timedelta(minutes=30)  # that a process waits for another one's answer
GRACE = 3.0  # that a process has to end by itself when another one has died
BROADCAST = 1 << 24  # bytes of a table that are sent at a time
Parts = Sequence[Tensor]


def tree(parts: Parts) -> Tensor:
    """Sum of 1, 2, 4, ... tensors: neighbours first, then the sums of neighbours.

    Processes that hold neighbours can add these before they send anything, and the bits of the
    total do not change.

    >>> tree([torch.tensor(1.0), torch.tensor(2.0), torch.tensor(3.0), torch.tensor(4.0)])
    tensor(10.)
    """
    while len(parts) > 1:
        parts = [one + other for one, other in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0]


@contextlib.contextmanager
def naming_a_lost_process(rank: int) -> Iterator[None]:
    """Let an error of a collective operation in the block say what happened and what to do.

    Raises:
        ConnectionError: another process has ended, or has not answered for SILENCE.
    """
    try:
        yield
    except RuntimeError as error:
        why = str(error).partition("] ")[2] or str(error)
        why = why.partition(". ")[0].splitlines()[0]
        raise ConnectionError(f"rank {rank} has lost another process of the run ({why}); the same "
                              f"command goes on from the last checkpoint") from error


def _guarded(collective: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(collective)
    def call(self: "World", *arguments: Any, **named: Any) -> Any:
        with naming_a_lost_process(self.rank):
            return collective(self, *arguments, **named)
    return call


class World:
    """This process among those of the run.

    A batch is cut into `lanes` parts, whatever the number of processes; each process computes
    `lanes / size` neighbouring ones.

    Args:
        lanes: a power of two.
        on_gpus: whether each process has a GPU; tensors that lie there are sent by NCCL.

    Raises:
        ValueError: the number of processes does not divide the lanes, or there are more of them
            than GPUs.
        TimeoutError: a process has not started in time; it is named.
    """

    def __init__(self, lanes: int, on_gpus: bool = False) -> None:
        self.size = dist.get_world_size() if dist.is_initialized() else launch.size()
        if lanes % self.size:
            fitting = [str(1 << power) for power in range(lanes.bit_length())]
            raise ValueError(f"{self.size} processes cannot share {lanes} lanes evenly; start "
                             f"{' or '.join(fitting)}, or set lanes to another power of two (other "
                             f"lanes give other last bits)")
        if not dist.is_initialized():
            _join(on_gpus)
        self.rank = dist.get_rank()
        self.lanes = lanes
        share = lanes // self.size
        self.own = range(self.rank * share, (self.rank + 1) * share)
        self.bytes_sent = 0  # to other processes, for benchmarks

    @_guarded
    def gather(self, tensor: Tensor) -> Tensor:
        """Tensors of one shape, (...), of all processes -> (processes, ...)."""
        if self.size == 1:
            return tensor[None]
        out = tensor.new_empty((self.size, *tensor.shape))
        dist.all_gather_single(out.view(-1), tensor.contiguous().view(-1))
        self.bytes_sent += tensor.nbytes * (self.size - 1)
        return out

    def gather_lanes(self, parts: Parts) -> Tensor:
        """One tensor of each own lane -> (lanes, ...)."""
        return self.gather(torch.stack(list(parts))).flatten(0, 1)

    def add_lanes(self, parts: Parts) -> Tensor:
        """The sum over the lanes of all processes, of one tensor of each own lane."""
        return tree(self.gather(tree(parts)).unbind())

    @_guarded
    def exchange(self, tensor: Tensor, out: Sequence[int], back: Sequence[int]) -> Tensor:
        """Send the first out[0] rows to process 0, and so on; returns back[0] rows of process 0,
        then those of the others."""
        if self.size == 1:
            return tensor
        received = tensor.new_empty((sum(back), *tensor.shape[1:]))
        dist.all_to_all_single(received, tensor.contiguous(), list(back), list(out))
        own = out[self.rank] * tensor[:1].numel() * tensor.element_size()
        self.bytes_sent += tensor.nbytes - own
        return received

    @_guarded
    def total(self, counts: Tensor) -> Tensor:
        """Sums (int64) over the processes."""
        if self.size > 1:
            dist.all_reduce(counts)
        return counts

    @_guarded
    def from_rank(self, rank: int, tensor: Tensor) -> Tensor:
        """The tensor of one process, written over that of the others."""
        if self.size > 1:
            dist.broadcast(tensor, src=rank)
        return tensor

    @_guarded
    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            dist.barrier()

    def compare(self, **values: Any) -> None:
        """Make sure that all processes have the same values.

        Raises:
            ValueError: it names what differs, and where.
        """
        text = json.dumps(values, default=str).encode()
        buffer = torch.zeros(1 << 13, dtype=torch.uint8)
        buffer[:len(text)] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
        everyone = [json.loads(bytes(row.numpy()).rstrip(b"\0")) for row in self.gather(buffer)]
        for name, value in everyone[0].items():
            for rank, other in enumerate(everyone):
                if other[name] != value:
                    raise ValueError(f"all processes of a run need the same {name}, but rank 0 "
                                     f"has {value} and rank {rank} has {other[name]}")


def _join(on_gpus: bool) -> None:
    """Meet the other processes that torchrun has started, or be alone."""
    if not launch.launched():
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        return
    wait = timedelta(seconds=JOIN_SECONDS)
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if on_gpus:
        here, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", size)), torch.cuda.device_count()
        if here > gpus:
            raise ValueError(f"each process needs a GPU of its own; this machine has {here} "
                             f"processes of the run and {counted(gpus, 'GPU')}. Start fewer, or "
                             f"add --device cpu")
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", rank)))
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    address = f"{host}:{port}"
    try:
        if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":  # torchrun's own
            store = next(dist.rendezvous("env://", timeout=wait))[0]
        else:
            store = dist.TCPStore(host, port, size, rank == 0, wait, wait_for_workers=False)
    except RuntimeError as error:
        raise ConnectionError(
            f"rank {rank} cannot meet the others at {address} "
            f"({str(error).splitlines()[0]}): if the port is taken, give another one with "
            f"--master-port; if not, rank 0 has not started within {JOIN_SECONDS:.0f} s"
        ) from error
    store.set(f"started/{rank}", "")
    for other in range(size):
        try:
            store.wait([f"started/{other}"], wait)
        except RuntimeError as error:
            raise TimeoutError(f"rank {other} of {size} has not started within "
                               f"{JOIN_SECONDS:.0f} s; start all processes, or fewer") from error
    backend = "cpu:gloo,cuda:nccl" if on_gpus else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=SILENCE)
    _watch_others(rank, size)


def _watch_others(rank: int, size: int) -> None:
    """End this process when another one has died, even if it computes for long without asking the
    others for anything.

    Every process sends each other one word: where it ends by itself, or in answer to theirs. A
    thread for each of the others waits for it; the connection of a process that dies breaks.
    """
    group = dist.new_group(timeout=timedelta(days=365), backend="gloo")
    ending, lock = threading.Event(), threading.Lock()
    untold = {other for other in range(size) if other != rank}

    def tell(other: int) -> None:
        with lock, contextlib.suppress(RuntimeError):  # it has died
            if other in untold:
                untold.remove(other)
                word = dist.isend(torch.zeros(1), dst=other, group=group)
                assert word is not None  # as this process belongs to the group
                # what is sent while the connection breaks may stay on its way for ever
                word.wait(timedelta(seconds=GRACE))

    def watch(other: int) -> None:
        try:
            dist.recv(torch.zeros(1), src=other, group=group)
            tell(other)
        except RuntimeError:
            # an exchange that fails says more, and leaves the files in order
            if not ending.wait(GRACE):
                os.write(2, f"error: rank {rank} has lost rank {other} of the run; the same "
                            f"command goes on from the last checkpoint\n".encode())
                os._exit(2)

    threads = [threading.Thread(target=watch, args=(other,), daemon=True) for other in untold]

    def leave() -> None:
        ending.set()
        for other in range(size):
            tell(other)
        for thread in threads:
            thread.join(GRACE)

    for thread in threads:
        thread.start()
    # as `atexit` does, and also in a process that multiprocessing has started
    Finalize(None, leave, exitpriority=0)
