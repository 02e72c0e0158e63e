"""Which tables of a model are plugged, and which cannot be."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..embedding.pep import Thresholds
from ..start import fitting_start, share_below
from .snapshot import log, plugged_tables
from .table import Plain
from .watch import listed

REFUSED_SHARE = 0.5  # of a table under the thresholds at the start
WARNED_SHARE = 0.05
FITTING_SHARE = 0.01  # under the start that the message proposes

Only = str | Iterable[str] | Callable[[str, nn.Module], bool] | None


def choose(model: nn.Module, only: Only) -> dict[str, Plain]:
    """The modules to replace, by the first name of each."""
    if isinstance(only, (type, nn.Module)):  # both can be called, but not to choose
        raise TypeError(f"only must be names of tables or a function of (name, module), got "
                        f"{only!r}; by class: only=lambda name, module: isinstance(module, "
                        f"nn.Embedding)")
    if plugged_tables(model):
        raise ValueError(f"already plugged: {', '.join(plugged_tables(model))}; call unplug(model) "
                         f"first")
    found = {name: module for name, module in model.named_modules() if isinstance(module, Plain)}
    every = {name: module for name, module in model.named_modules(remove_duplicate=False)
             if isinstance(module, Plain)}
    if not found:
        raise ValueError(f"{type(model).__name__} holds no nn.Embedding and no nn.EmbeddingBag, so "
                         "there is nothing to plug")
    if "" in found:
        raise ValueError(f"the model is itself an {type(model).__name__}, which cannot be replaced "
                         "in place; put it into a module, nn.Sequential(table), say")
    if only is None:
        wanted = [module for module in found.values() if module.weight.shape[1] > 1]
    elif callable(only):
        wanted = [module for name, module in found.items() if only(name, module)]
    else:
        names = (
            [only]
            if isinstance(only, str)
            else list(only)
            if isinstance(only, Iterable)
            else [only]
        )
        if not all(isinstance(name, str) for name in names):
            raise TypeError(f"only must be names of tables or a function of (name, module), got "
                            f"{only!r}")
        unknown = [name for name in names if name not in every]
        if unknown:
            raise ValueError(f"unknown tables {', '.join(map(repr, unknown))}; the model has: "
                             f"{', '.join(every)}")
        wanted = [every[name] for name in names]
    if not wanted:
        raise ValueError(f"no table is chosen; the model has {', '.join(found)} (tables of width 1 "
                         "are left alone unless only= names them)")
    return {name: module for name, module in found.items() if any(module is one for one in wanted)}


def refuse_unfit(name: str, module: Any) -> None:
    """A ValueError for a table that PEP cannot stand for."""
    base = nn.EmbeddingBag if isinstance(module, nn.EmbeddingBag) else nn.Embedding
    weight = dict(module.named_parameters(recurse=False)).get("weight")
    own = [key for part in (module._parameters, module._buffers, module._modules) for key in part
           if key != "weight"]
    reason = None
    if getattr(module.forward, "__func__", None) is not base.forward:
        reason = f"its forward is not the one of nn.{base.__name__}, and would be lost"
    elif type(module).__call__ is not nn.Module.__call__:
        reason = f"its class {type(module).__name__} has a __call__ of its own, which would be lost"
    elif weight is None:
        reason = "its weight is computed by a parametrisation or a pruning; remove that first"
    elif own:
        reason = f"parameters, buffers or modules that it has besides its weight would be lost: {', '.join(own)}"
    elif _hooks(module):
        reason = f"it has {_hooks(module)}, which would be lost; remove them first"
    elif module.sparse:
        reason = ("it has sparse gradients, and PEP's decay must reach the rows that no batch "
                  "holds; set its sparse = False and use torch.optim.Adam")
    elif module.max_norm is not None:
        reason = "max_norm rescales rows behind PEP's back; set its max_norm = None"
    elif module.scale_grad_by_freq:
        reason = "its gradients are scaled by frequency, which PEP does not do; set its scale_grad_by_freq = False"
    elif weight.dtype not in (torch.float32, torch.float64):
        reason = (f"its weight is {weight.dtype}, too coarse for thresholds that move by the "
                  "learning rate; keep it in float32 and use autocast")
    elif weight.is_meta:
        reason = "its weight has no values yet (device meta); load them first"
    elif not weight.requires_grad:
        reason = "its weight is frozen; set requires_grad_(True)"
    elif not weight.isfinite().all():
        reason = "its weight has values that are not finite; initialise it first"
    elif not weight.any():
        reason = "its weight is all zero, and an entry at 0 never gets a gradient from PEP; initialise it first"
    if reason:
        raise ValueError(
            f"the table {name} cannot be plugged: {reason}; or leave it out with only="
        )


def _hooks(module: nn.Module) -> str:
    """What hooks a module has, if any."""
    if any((module._forward_hooks, module._forward_pre_hooks, module._backward_hooks,
            module._backward_pre_hooks)):
        return "forward or backward hooks"
    if any((module._state_dict_hooks, module._state_dict_pre_hooks,
            module._load_state_dict_pre_hooks,
            module._load_state_dict_post_hooks)):
        return "hooks of its state_dict"
    return ""


def refuse_high_start(chosen: Mapping[str, Plain], thresholds: Thresholds, allowed: bool) -> None:
    """A ValueError for a start above more than half of a table, a warning from a twentieth.

    The padding row and entries that are exactly 0 do not count.
    """
    gate = thresholds.gate, thresholds.scale
    shares, starts = {}, []
    for name, module in chosen.items():
        values = module.weight.detach()
        if module.padding_idx is not None and values[module.padding_idx].any():
            values = torch.cat([values[:module.padding_idx], values[module.padding_idx + 1:]])
        share = share_below(values, *gate, thresholds.init)
        if share >= WARNED_SHARE:
            shares[name] = share
            starts.append(fitting_start(values, *gate, FITTING_SHARE))
    if not shares:
        return
    of = listed([f"{share:.0%} of {name}" for name, share in shares.items()])
    said = (f"at threshold_init={thresholds.init:g} the thresholds prune {of} before anything is "
            f"learned, and a pruned entry gets no gradient; at threshold_init={min(starts):g} it "
            f"is {FITTING_SHARE:.0%} at most (the search needs more steps then)")
    if max(shares.values()) > REFUSED_SHARE and not allowed:
        raise ValueError(f"{said}; take that, initialise the tables wider, or pass "
                         f"allow_high_start=True")
    log.warning("%s", said)


def warn_of_zeros(name: str, module: Plain) -> None:
    """A warning of the rows, but for padding, that training will not reach."""
    zero = ~module.weight.any(1)
    if module.padding_idx is not None:
        zero[module.padding_idx] = False
    if count := int(zero.sum()):
        log.warning("%d of the %d rows of the table %s are all zero and will stay so, for an entry "
                    "at 0 never gets a gradient from PEP: initialise them before plug()", count,
                    len(zero), name)


def refuse_hooked(tables: Mapping[str, nn.Module]) -> None:
    """A ValueError for a plugged table on which hooks were put since."""
    for name, table in tables.items():
        if _hooks(table):
            raise ValueError(f"the table {name} has {_hooks(table)}, which would be lost; remove "
                             "them first, and put them on what stands in its place afterwards")


def refuse_compiled(model: nn.Module, tables: Iterable[nn.Module]) -> None:
    """A ValueError for a table that is compiled by itself: the compiled call would go on with the
    module of before."""
    known = {id(table) for table in tables}
    for path, module in model.named_modules(remove_duplicate=False):
        name, _, last = path.rpartition(".")
        if last == "_orig_mod" and id(module) in known:
            raise ValueError(f"{name} is a table that is compiled by itself and cannot be replaced "
                             f"in there; put the bare module back (it is {path}), and compile it "
                             f"again afterwards, or the whole model")


def refuse_tied(model: nn.Module, chosen: dict[str, Plain]) -> None:
    """A ValueError for a table whose weight, or part of the memory under it, is another parameter
    or buffer too."""
    users = []
    for path, module in model.named_modules():
        held = (*module.named_parameters(recurse=False, remove_duplicate=False),
                *module.named_buffers(recurse=False, remove_duplicate=False))
        users += [(f"{path}.{name}".lstrip("."), _memory(tensor)) for name, tensor in held]
    for name, module in chosen.items():
        device, start, end = _memory(module.weight)
        others = [user for user, (place, first, last) in users if place == device and first < end
                  and start < last]
        if len(others) > 1:
            raise ValueError(f"the weight of the table {name} is tied: {', '.join(others)} share "
                             f"their memory, and PEP would prune only what {name} sees of it; give "
                             "each a weight of its own, use one module at both places, or leave it "
                             "out with only=")


def _memory(tensor: Tensor) -> tuple[torch.device, int, int]:
    """Device, first byte and the byte after the last; not the storage, which tensors may divide
    among them."""
    unread = nn.parameter.is_lazy(tensor) or tensor.is_meta or tensor.layout != torch.strided
    if unread or not tensor.numel() or not tensor.data_ptr():
        return tensor.device, 0, 0
    last = sum((size - 1) * stride for size,
               stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.device, tensor.data_ptr(), tensor.data_ptr() + (last + 1) * tensor.element_size()
