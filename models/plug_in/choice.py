"""Which tables of a model are plugged, and what is refused because it would go wrong silently."""

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
    """The modules to replace, by the first name of each.

    Raises:
        TypeError, ValueError: as `plug` says of `only`; or the model has no table, or is plugged.
    """
    if plugged_tables(model):
        raise ValueError(f"already plugged: {', '.join(plugged_tables(model))}; call unplug(model) "
                         f"first")
    found = {name: module for name, module in model.named_modules() if isinstance(module, Plain)}
    if not found:
        raise ValueError(f"{type(model).__name__} holds no nn.Embedding and no nn.EmbeddingBag, so "
                         "there is nothing to plug")
    if "" in found:
        raise ValueError(f"the model is itself an {type(model).__name__}, which cannot be replaced "
                         "in place; put it into a module, nn.Sequential(table), say")
    if only is None:
        wanted = {id(module) for module in found.values() if module.weight.shape[1] > 1}
    elif callable(only) and not isinstance(only, (type, nn.Module)):
        wanted = {id(module) for name, module in found.items() if only(name, module)}
    else:
        wanted = {id(module) for module in _named(model, only)}
    if not wanted:
        raise ValueError(f"no table is chosen; the model has {', '.join(found)} (tables of width 1 "
                         "are left alone unless only= names them)")
    return {name: module for name, module in found.items() if id(module) in wanted}


def _named(model: nn.Module, only: Any) -> list[Plain]:
    """The tables of these names; a table that is used at several places has several."""
    one = isinstance(only, (str, type, nn.Module)) or not isinstance(only, Iterable)
    names = [only] if one else list(only)
    if not all(isinstance(name, str) for name in names):
        raise TypeError(f"only must be names of tables or a function of (name, module), got "
                        f"{only!r}; by class: only=lambda name, module: isinstance(module, "
                        f"nn.Embedding)")
    tables = {name: module for name, module in model.named_modules(remove_duplicate=False)
              if isinstance(module, Plain)}
    unknown = [name for name in names if name not in tables]
    if unknown:
        raise ValueError(f"unknown tables {', '.join(map(repr, unknown))}; the model has: "
                         f"{', '.join(tables)}")
    return [tables[name] for name in names]


def refuse_unfit(name: str, module: Any) -> None:
    """Refuse a table that PEP cannot replace without changing what the model computes.

    Raises:
        ValueError: says why, and what to do.
    """
    base = nn.EmbeddingBag if isinstance(module, nn.EmbeddingBag) else nn.Embedding
    weight = module._parameters.get("weight")
    own = sorted({*module._parameters, *module._buffers, *module._modules} - {"weight"})
    reason = None
    if getattr(module.forward, "__func__", None) is not base.forward:
        reason = f"its forward is not the one of nn.{base.__name__}, and would be lost"
    elif type(module).__call__ is not nn.Module.__call__:
        reason = f"its class {type(module).__name__} has a __call__ of its own, which would be lost"
    elif weight is None:
        reason = "its weight is computed by a parametrisation or a pruning; remove that first"
    elif own:
        reason = ("parameters, buffers or modules that it has besides its weight would be lost: "
                  f"{', '.join(own)}")
    elif has_hooks(module):
        reason = "it has hooks, which would be lost; remove them first"
    elif module.sparse:
        reason = ("it has sparse gradients, and PEP's decay must reach the rows that no batch "
                  "holds; set its sparse = False and use torch.optim.Adam")
    elif module.max_norm is not None:
        reason = "max_norm rescales rows behind PEP's back; set its max_norm = None"
    elif module.scale_grad_by_freq:
        reason = ("its gradients are scaled by frequency, which PEP does not do; set its "
                  "scale_grad_by_freq = False")
    else:
        reason = _unfit(weight)
    if reason:
        raise ValueError(f"the table {name} cannot be plugged: {reason}; or leave it out with "
                         f"only=")


def _unfit(weight: Tensor) -> str | None:
    """Why PEP cannot search these values, if it cannot."""
    reason = None
    if weight.dtype not in (torch.float32, torch.float64):
        reason = (f"its weight is {weight.dtype}, too coarse for thresholds that move by the "
                  "learning rate; keep it in float32 and use autocast")
    elif weight.is_inference():
        reason = "its weight was made in inference mode and can have no gradient; make it outside"
    elif weight.is_meta:
        reason = "its weight has no values yet (device meta); load them first"
    elif not weight.requires_grad:
        reason = "its weight is frozen; set requires_grad_(True)"
    elif not weight.numel():
        reason = f"its weight is {tuple(weight.shape)} and has nothing to prune"
    elif not weight.isfinite().all():
        reason = "its weight has values that are not finite; initialise it first"
    elif not weight.any():
        reason = ("its weight is all zero, and an entry at 0 never gets a gradient from PEP; "
                  "initialise it first")
    return reason


def has_hooks(module: nn.Module) -> bool:
    """Whether hooks act on the module's calls or its state dict."""
    return any((module._forward_hooks, module._forward_pre_hooks, module._backward_hooks,
                module._backward_pre_hooks, module._state_dict_hooks,
                module._state_dict_pre_hooks, module._load_state_dict_pre_hooks,
                module._load_state_dict_post_hooks))


def refuse_high_start(chosen: Mapping[str, Plain], thresholds: Thresholds, allowed: bool) -> None:
    """Refuse a start that prunes more than half of a table, warn where it prunes a twentieth.

    The padding row and entries that are exactly 0 do not count.

    Raises:
        ValueError: it prunes more than half, and that is not `allowed`.
    """
    gate, scale = thresholds.gate, thresholds.scale
    shares, starts = {}, []
    for name, module in chosen.items():
        values = module.weight.detach()
        if module.padding_idx is not None and values[module.padding_idx].any():
            values = torch.cat([values[:module.padding_idx], values[module.padding_idx + 1:]])
        share = share_below(values, gate, scale, thresholds.init)
        if share >= WARNED_SHARE:
            shares[name] = share
            starts.append(fitting_start(values, gate, scale, FITTING_SHARE))
    if not shares:
        return
    parts = listed([f"{share:.0%} of {name}" for name, share in shares.items()])
    message = (f"at threshold_init={thresholds.init:g} the thresholds prune {parts} before "
               f"anything is learned, and a pruned entry gets no gradient; at "
               f"threshold_init={min(starts):g} it is {FITTING_SHARE:.0%} at most (the search "
               f"needs more steps then)")
    if max(shares.values()) > REFUSED_SHARE and not allowed:
        raise ValueError(f"{message}; take that, initialise the tables wider, or pass "
                         f"allow_high_start=True")
    log.warning("%s", message)


def warn_of_zeros(name: str, module: Plain) -> None:
    """Warn of rows of zeros, the padding row aside: PEP never trains them."""
    zero = ~module.weight.any(1)
    if module.padding_idx is not None:
        zero[module.padding_idx] = False
    if count := int(zero.sum()):
        log.warning("%d of the %d rows of the table %s are all zero and will stay so, since an "
                    "entry at 0 gets no gradient from PEP: initialise them before plug()", count,
                    len(zero), name)


def refuse_hooked(tables: Mapping[str, nn.Module]) -> None:
    """Refuse plugged tables that were given hooks: these would be lost with the table.

    Raises:
        ValueError: names one.
    """
    for name, table in tables.items():
        if has_hooks(table):
            raise ValueError(f"the table {name} has hooks, which would be lost; remove them first, "
                             "and put them on what replaces it afterwards")


def refuse_compiled(model: nn.Module, tables: Iterable[nn.Module]) -> None:
    """Refuse a table that is compiled on its own: the compiled call would keep the old module.

    Raises:
        ValueError: names it.
    """
    known = {id(table) for table in tables}
    for path, module in model.named_modules(remove_duplicate=False):
        name, _, last = path.rpartition(".")
        if last == "_orig_mod" and id(module) in known:
            raise ValueError(f"{name} is a table that is compiled by itself and cannot be replaced "
                             f"in there; put the bare module back (it is {path}), and compile it "
                             f"again afterwards, or the whole model")


def refuse_tied(model: nn.Module, chosen: Mapping[str, Plain]) -> None:
    """Refuse a table whose memory is shared with another parameter or buffer.

    Raises:
        ValueError: names all that share it.
    """
    users: dict[int, list[str]] = {}
    for path, module in model.named_modules():
        held = [*module.named_parameters(recurse=False, remove_duplicate=False),
                *module.named_buffers(recurse=False, remove_duplicate=False)]
        for name, tensor in held:
            users.setdefault(_storage(tensor), []).append(f"{path}.{name}".lstrip("."))
    for name, module in chosen.items():
        storage = _storage(module.weight)
        if storage and len(users[storage]) > 1:
            raise ValueError(f"the weight of the table {name} is tied: "
                             f"{', '.join(users[storage])} share their memory, and PEP would prune "
                             f"only what {name} sees of it; give each a weight of its own "
                             "(weight.data = weight.data.clone()), use one module at both places, "
                             "or leave it out with only=")


def _storage(tensor: Tensor) -> int:
    """Address of the memory that a tensor lies in; 0 where it has none."""
    if nn.parameter.is_lazy(tensor) or tensor.layout != torch.strided:
        return 0
    return tensor.untyped_storage().data_ptr()
