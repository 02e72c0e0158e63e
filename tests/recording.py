"""A stand-in for CUDA graphs on a CPU: torch's operations are noted in order, and done again in the
same memory."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Recorder(TorchDispatchMode):
    """Notes every operation; what waits for a value is refused, as a capture refuses it."""

    def __init__(self):
        super().__init__()
        self.calls, self.before, self.made = [], {}, set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if any(name in str(func)
               for name in ("local_scalar_dense", "nonzero", "unique", "masked_select")):
            raise RuntimeError(f"operation not permitted when stream is capturing: {func}")
        for tensor in _tensors((args, kwargs)):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in self.made:
                self.before.setdefault(storage.data_ptr(), (storage, storage.clone()))
        out = func(*args, **kwargs)
        self.made |= {tensor.untyped_storage().data_ptr()
                      for tensor in _tensors(out)} - self.before.keys()
        self.calls.append((func, args, kwargs, out))
        return out


def record(function):
    """Call `function` for its operations alone: memory and generator are put back; returns what
    does them."""
    recorder, dice = Recorder(), torch.get_rng_state()
    try:
        with recorder:
            result = function()
    finally:
        for storage, content in recorder.before.values():
            storage.copy_(content)
        torch.set_rng_state(dice)

    @torch.no_grad()
    def play():
        for func, args, kwargs, out in recorder.calls:
            for old, new in zip(_tensors(out), _tensors(func(*args, **kwargs)), strict=True):
                if old.data_ptr() != new.data_ptr():
                    old.copy_(new)
        return result

    return play


def _tensors(tree):
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]
