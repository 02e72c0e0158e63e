"""What reading `weight` of a plugged table gives: a tensor that refuses writes."""

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..kernels.eager import recorded

WRITES = ("apply_", "map_", "map2_")  # which the version counters do not see
_SET_DATA = torch.Tensor.data.__set__  # type: ignore[attr-defined]


class PrunedWeight(Tensor):
    """A pruned table (N, D), computed at each reading; writing into it is a RuntimeError.

    Otherwise `nn.init.xavier_uniform_(table.weight)` would fill a tensor that is thrown away, and a
    model's own initialisation would do nothing. Views (`weight[0]`, `weight.data`,
    `weight.detach()`) are of this class too, and arrays that share the memory (`weight.numpy()`)
    are read-only. Copies and all other results are plain. So make a Parameter of
    `weight.detach().clone()`, and pass `weight.clone()` to a function that is compiled apart from
    the code that reads `weight`: torch.compile refuses the class as an input.

    >>> weight = guarded(torch.ones(2, 2))
    >>> weight.data[0] = 0.0
    Traceback (most recent call last):
    RuntimeError: __setitem__ would write into `weight` of a plugged table, ...
    >>> type(weight @ weight), type(weight.detach().clone())
    (<class 'torch.Tensor'>, <class 'torch.Tensor'>)
    """

    @classmethod
    def __torch_function__(cls, func: Callable[..., Any], types: Any, args: Any = (),
                           kwargs: Any = None) -> Any:
        """Call torch's function; afterwards the version counters say whether it wrote. Tensors of
        inference mode have none, and the function's name says it."""
        kwargs = kwargs or {}
        with torch._C.DisableTorchFunctionSubclass():
            if torch.compiler.is_compiling():
                return func(*args, **kwargs)
            weights = list(_weights((*args, *kwargs.values())))
            if func.__name__ in WRITES or _writes_unseen(func.__name__, weights, kwargs):
                raise _refusal(func.__name__)
            before = _versions(weights)
            result = func(*args, **kwargs)
            if func == _SET_DATA or before != _versions(weights):
                raise _refusal(func.__name__)
            return _guard_views(result, weights[0])

    def set_(self, *source: Any, **named: Any) -> Tensor:
        """Refused; torch does not pass this one to `__torch_function__`."""
        raise _refusal("set_")

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Copied and saved as a plain tensor."""
        return self.as_subclass(Tensor).__reduce_ex__(protocol)

    def __deepcopy__(self, memo: dict) -> Tensor:
        """A plain tensor."""
        return copy.deepcopy(self.as_subclass(Tensor), memo)


def _refusal(name: str) -> RuntimeError:
    return RuntimeError(f"{name} would write into `weight` of a plugged table, which is computed "
                        f"at each reading, so the write would be lost: initialise before plug(), "
                        f"or write to the table's `values` under torch.no_grad(); to change a "
                        f"copy, take weight.detach().clone()")


def guarded(table: Tensor) -> Tensor:
    """The table as a PrunedWeight; as it is where nobody initialises: compiled, traced."""
    if recorded() or _transformed(table):
        return table
    return table.as_subclass(PrunedWeight)


def _writes_unseen(name: str, weights: Iterable[Tensor], named: Mapping[str, Any]) -> bool:
    """Whether a function of this name writes into a tensor of inference mode."""
    if not any(weight.is_inference() for weight in weights):
        return False
    in_place = name == "__setitem__" or (name.endswith("_") and not name.endswith("__"))
    asked = named.get("inplace") or isinstance(named.get("out"), PrunedWeight)
    return in_place or bool(asked)


def _versions(weights: Iterable[Tensor]) -> list[int]:
    return [weight._version for weight in weights if not weight.is_inference()]


def _guard_views(result: Any, weight: Tensor) -> Any:
    """The result; tensors in it that are views of the weight as PrunedWeight, arrays read-only."""
    if isinstance(result, np.ndarray):
        result.flags.writeable = False
        return result
    if isinstance(result, (tuple, list)) and type(result) in (tuple, list):
        return type(result)(_guard_views(each, weight) for each in result)
    if type(result) is Tensor and _share(result, weight):
        return result.as_subclass(PrunedWeight)
    return result


def _weights(values: Iterable[Any]) -> Iterable[Tensor]:
    """The pruned weights among a call's arguments, and in the lists among them."""
    for value in values:
        if isinstance(value, PrunedWeight):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _weights(value)


def _transformed(table: Tensor) -> bool:
    """Whether it belongs to torch.func's grad or vmap, where tensors have no memory to look at."""
    return torch._C._functorch.is_functorch_wrapped_tensor(table)


def _share(one: Tensor, other: Tensor) -> bool:
    dense = one.layout == other.layout == torch.strided and not _transformed(one)
    return dense and one.untyped_storage()._cdata == other.untyped_storage()._cdata
