"""What every result says about where it came from."""

import contextlib
import importlib.metadata
import platform
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import torch

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

ROOT = Path(__file__).resolve().parent.parent


def pick_device(name: str) -> torch.device:
    """`auto` (CUDA when there is one), `cpu` or `cuda`.

    Raises:
        ValueError: CUDA is asked for and absent.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"--device cuda was asked for, but torch {torch.__version__} sees no CUDA "
                         "device; use --device auto or cpu, or install a CUDA build of torch")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def has_bfloat16(device: torch.device) -> bool:
    """Whether the processor or GPU multiplies in bfloat16 itself; emulated, it is slow."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if platform.machine().lower() in ("x86_64", "amd64"):
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


def require_precision(name: str, device: torch.device) -> None:
    """Nothing where the device has the precision.

    Raises:
        ValueError: bfloat16 is asked for, and `has_bfloat16` does not hold.
    """
    if name == "bfloat16" and not has_bfloat16(device):
        raise ValueError(f"precision=bfloat16 was asked for, but {device_name(device)} has no "
                         f"instructions for products of bfloat16 (avx512_bf16 or AMX on a PC); use "
                         f"--set precision=float32")


def provenance(device: torch.device) -> dict[str, Any]:
    """Commit, versions (None where a package does not tell), device and threads of this process."""
    versions = {name: _version(name) for name in ("torch", "torchfm", "numpy", "scipy", "numba")}
    return {"commit": commit(), "versions": {"python": platform.python_version(), **versions},
            "device": device_name(device), "threads": torch.get_num_threads()}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None  # a copied folder without its metadata: no reason to lose a finished run


@cache
def commit() -> str | None:
    """`commit_of` this code, at the first call: what a checkout holds later is not what runs."""
    return commit_of(ROOT)


def commit_of(folder: Path) -> str | None:
    """A checkout's commit, with `+changes` when files differ from it; None outside a checkout."""
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True,
                              text=True, check=True)
        changes = subprocess.run(["git", "status", "--porcelain", "--untracked-files=no"],
                                 cwd=folder, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+changes" if changes.stdout.strip() else "")


def device_name(device: torch.device) -> str:
    """The GPU's name, or the processor's."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines
                    if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def wait_for(device: torch.device) -> None:
    """Return when the device has done what it was given: before the clock is read."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def reset_peak_memory(device: torch.device) -> None:
    """Start counting `peak_memory_bytes` anew, where the system can (CUDA, and Linux for the
    process)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform == "linux":
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")


def peak_memory_bytes(device: torch.device) -> int | None:
    """Most memory held since `reset_peak_memory`: by tensors on a GPU, by the process on a CPU.

    None where the system does not tell (Windows).
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    if resource is None:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
