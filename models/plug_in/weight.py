"""What reading `weight` of a plugged table gives: a tensor that tells who writes into it."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

_SET_DATA = torch.Tensor.data.__set__  # type: ignore[attr-defined]


class PrunedWeight(Tensor):
    """A pruned table (N, D) that is computed at each reading; to write into it is a RuntimeError.

    `nn.init.xavier_uniform_(table.weight)` would otherwise fill a tensor that is thrown away, and a
    model's `reset_parameters` would do nothing. Views of it (`weight[0]`, `weight.data`) are of
    this class as well; `weight.detach()`, copies and all other results are plain tensors. So take
    `weight.detach()` to make a Parameter of it, and pass `weight.clone()` to a function that is
    compiled apart from the code that reads `weight`: torch.compile refuses the class as an input.

    >>> weight = guarded(torch.ones(2, 2))
    >>> weight.data[0] = 0.0
    Traceback (most recent call last):
    RuntimeError: __setitem__ would write into `weight` of a plugged table, ...
    >>> type(weight @ weight), type(weight.detach())
    (<class 'torch.Tensor'>, <class 'torch.Tensor'>)
    """

    @classmethod
    def __torch_function__(cls, func: Callable[..., Any], types: Any, args: Any = (),
                           kwargs: Any = None) -> Any:
        """Call torch's function; afterwards the version counters say whether it wrote."""
        kwargs = kwargs or {}
        with torch._C.DisableTorchFunctionSubclass():
            if torch.compiler.is_compiling():
                return func(*args, **kwargs)
            given = [(value, value._version) for value in _weights((*args, *kwargs.values()))]
            result = func(*args, **kwargs)
            if func == _SET_DATA or any(value._version != before for value, before in given):
                raise RuntimeError(
                    f"{func.__name__} would write into `weight` of a plugged table, which is "
                    f"computed at each reading, so nothing would come of it: initialise before "
                    f"plug(), or write to the table's `values` under torch.no_grad()")
            if func != Tensor.detach:
                result = _guard_views(result, given[0][0])
        return result

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Copied and saved as a plain tensor."""
        return self.as_subclass(Tensor).__reduce_ex__(protocol)


def guarded(table: Tensor) -> Tensor:
    """The table as a PrunedWeight; as it is where nobody initialises: compiled, traced."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or _transformed(table):
        return table
    return table if table.is_inference() else table.as_subclass(PrunedWeight)


def _guard_views(result: Any, weight: Tensor) -> Any:
    """A result that is a view of the weight, or holds such views, as PrunedWeight."""
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
