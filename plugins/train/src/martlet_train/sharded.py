"""Weights and optimizer state that several processes hold in parts, made whole for checkpoints and taken apart again.

Whole state has the form that one process has, so that a checkpoint tells nothing of how many processes wrote it. Three
kinds of parts are known: ZeRO's slices of concatenated weights (stages 1 and 2), its slices of each weight (stage 3),
and torch's ``DTensor`` (FSDP2). Every function is called by all processes; whole state stays where it is to be kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.distributed import get_rank, get_world_size

from .probing import base_of, embeddings_of

if TYPE_CHECKING:
    from torch.optim import Optimizer

State = dict[str, Any]
SLICES = ("fp32_partitioned_groups_flat", "single_partition_of_fp32_groups", "fp32_groups_flat_partition")
"""Where ZeRO's optimizers (stage 3; 1 and 2; 1 in bfloat16) keep this process's slices of the concatenated weights."""


def size(parameter: nn.Parameter) -> int:
    """Return how many numbers a parameter has, whatever part of it is here."""
    return int(getattr(parameter, "ds_numel", parameter.numel()))


def shape(parameter: nn.Parameter) -> list[int]:
    """Return the shape of a parameter, whatever part of it is here."""
    return list(getattr(parameter, "ds_shape", parameter.shape))


def in_parts(parameters: Iterable[nn.Parameter]) -> bool:
    """Tell whether weights are held in parts: by ZeRO stage 3 or FSDP2."""
    from torch.distributed.tensor import DTensor

    return any(hasattr(parameter, "ds_id") or isinstance(parameter, DTensor) for parameter in parameters)


# Weights


def place(model: nn.Module, device: torch.device) -> None:
    """Put a model onto ``device``, unless its weights are divided or have their places already, as bitsandbytes' do."""
    base: Any = base_of(model)
    placed = getattr(base, "hf_device_map", None) or getattr(base, "quantization_method", None) == "bitsandbytes"
    if not placed and not in_parts(model.parameters()):
        model.to(device)


@contextmanager
def fetching(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Let a model run on ``device`` that is not yet where it is trained: ZeRO has divided it, or FSDP is going to.

    Every module's own weights are there, and whole, while it runs. All processes must run the same modules.
    """
    base: Any = base_of(model)
    with ExitStack() as back:
        if getattr(base, "hf_device_map", None) is None:
            _lend(embeddings_of(model)._parameters, device, back)  # probe_ids looks where they are
            for module in model.modules():
                _lend(module._buffers, device, back)
                if any(hasattr(one, "ds_id") or one.device != device for one in module.parameters(recurse=False)):
                    _lend_in_calls(module, device, back)
        yield


def _lend_in_calls(module: nn.Module, device: torch.device, back: ExitStack) -> None:
    """Have the weights of a module whole and on ``device`` in each of its calls, until ``back`` is closed."""
    calls: list[ExitStack] = []

    def fetch(*_: Any) -> None:
        calls.append(ExitStack())
        divided = [one for one in module.parameters(recurse=False) if hasattr(one, "ds_id")]
        if divided:
            import deepspeed

            calls[-1].enter_context(deepspeed.zero.GatheredParameters(divided))
        _lend(module._parameters, device, calls[-1])

    def release(*_: Any) -> None:
        calls.pop().close()

    back.callback(module.register_forward_pre_hook(fetch).remove)
    back.callback(module.register_forward_hook(release, always_call=True).remove)


def _lend(own: dict[str, Any], device: torch.device, back: ExitStack) -> None:
    """Put copies on ``device`` in the place of a module's whole tensors, until ``back`` is closed."""
    for name, tensor in own.items():
        if tensor is not None and tensor.device != device and not hasattr(tensor, "ds_id"):
            own[name] = tensor.detach().to(device)
            back.callback(own.__setitem__, name, tensor)


def whole_weights(model: nn.Module, *, keep: bool) -> dict[str, Tensor] | None:
    """Return the state dict of a divided model, on the CPU; None where nothing is divided, empty unless ``keep``.

    Of a model with adapters only what is trained, and the embeddings, which may be saved beside them.
    """
    from torch.distributed.tensor import DTensor

    parameters = dict(model.named_parameters(remove_duplicate=False))
    if not in_parts(parameters.values()):
        return None
    wanted = _worth_saving(model)
    found: dict[str, Tensor] = {}
    tensors: dict[str, Any] = model.state_dict(keep_vars=True)
    for name, tensor in tensors.items():
        parameter = parameters.get(name)
        if parameter is not None and id(parameter) not in wanted:
            continue
        if isinstance(tensor, DTensor):
            tensor = tensor.full_tensor()
        elif parameter is not None and hasattr(parameter, "ds_id"):
            tensor = _gathered(parameter)
        if keep:
            found[name] = tensor.detach().cpu().clone()
    return _tied_again(found, parameters)


def _worth_saving(model: nn.Module) -> set[int]:
    """Return the ids of the parameters that a checkpoint may hold."""
    base: Any = getattr(model, "get_base_model", None)
    if base is None:
        return {id(parameter) for parameter in model.parameters()}
    layers = (base().get_input_embeddings(), base().get_output_embeddings())
    embeddings = {id(parameter) for layer in layers if layer is not None for parameter in layer.parameters()}
    return embeddings | {id(parameter) for parameter in model.parameters() if parameter.requires_grad}


def _gathered(parameter: nn.Parameter) -> Tensor:
    import deepspeed

    with deepspeed.zero.GatheredParameters([parameter]):
        return parameter.detach().cpu().clone()


def _tied_again(found: dict[str, Tensor], parameters: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    """Let weights that are one in the model share memory, by which savers know them."""
    first: dict[int, str] = {}
    for name in found:
        if name in parameters:
            found[name] = found[first.setdefault(id(parameters[name]), name)]
    return found


# Optimizer state


def whole_optimizer(optimizer: Any, groups: list[list[nn.Parameter]], *, keep: bool) -> State:
    """Return ``optimizer.state_dict()`` as one process would; with weights of 16 bits also their float32 ``masters``.

    ``optimizer``: as prepared by accelerate. ``groups``: its parameters when it was made, before anything was divided.
    Where state is divided, nothing of it is returned unless ``keep``.
    """
    inner = _unwrapped(optimizer)
    if _is_zero(inner):
        return _whole_zero(inner, groups, keep)
    if in_parts(parameter for group in inner.param_groups for parameter in group["params"]):
        return _whole_dtensors(inner, keep)
    found: State = inner.state_dict()
    return found


def load_whole_optimizer(optimizer: Any, saved: State, groups: list[list[nn.Parameter]]) -> bool:
    """Take apart what ``whole_optimizer`` returned; False where the optimizer is not divided and can load it itself."""
    inner = _unwrapped(optimizer)
    if _is_zero(inner):
        _load_zero(inner, saved, groups)
    elif in_parts(parameter for group in inner.param_groups for parameter in group["params"]):
        _load_dtensors(inner, saved)
    else:
        return False
    return True


def _unwrapped(optimizer: Any) -> Any:
    """Return the optimizer inside accelerate's wrapper."""
    from accelerate.optimizer import AcceleratedOptimizer

    return optimizer.optimizer if isinstance(optimizer, AcceleratedOptimizer) else optimizer


def _is_zero(inner: Any) -> bool:
    return any(hasattr(inner, name) for name in SLICES)


def _flat(inner: Any) -> list[Tensor]:
    """Return the slices on which the real optimizer works."""
    return list(next(getattr(inner, name) for name in SLICES if hasattr(inner, name)))


def _numbered(groups: list[list[nn.Parameter]]) -> list[tuple[int, nn.Parameter]]:
    return list(enumerate(parameter for group in groups for parameter in group))


def _whole_zero(inner: Any, groups: list[list[nn.Parameter]], keep: bool) -> State:
    from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

    real: Optimizer = inner.optimizer
    _link(inner)
    slices = [real.state[flat] for flat in _flat(inner) if flat in real.state]
    sample = slices[0] if slices else {}
    divided = [key for key, value in sample.items() if torch.is_tensor(value) and value.dim()]
    common = {key: value for key, value in sample.items() if key not in divided}
    state: dict[int, State] = {}
    masters: dict[int, Tensor] = {}
    for number, parameter in _numbered(groups):
        whole = {key: safe_get_full_optimizer_state(parameter, key).cpu() for key in divided}
        master = safe_get_full_fp32_param(parameter).cpu() if parameter.dtype != torch.float32 else None
        if keep:
            if sample:
                state[number] = {**{key: _own(value) for key, value in common.items()}, **whole}
            if master is not None:
                masters[number] = master
    found = {"state": state, "param_groups": _described(real.param_groups, groups)}
    return {**found, "masters": masters} if masters else found


def _described(param_groups: list[State], groups: list[list[nn.Parameter]]) -> list[State]:
    """Return the settings of the groups with the numbers of their parameters."""
    found, first = [], 0
    for settings, group in zip(param_groups, groups, strict=True):
        numbers = list(range(first, first + len(group)))
        found.append({**{key: value for key, value in settings.items() if key != "params"}, "params": numbers})
        first += len(group)
    return found


def _load_zero(inner: Any, saved: State, groups: list[list[nn.Parameter]]) -> None:
    from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

    real: Optimizer = inner.optimizer
    for group, theirs in zip(real.param_groups, saved["param_groups"], strict=True):
        group.update({key: value for key, value in theirs.items() if key != "params"})
    sample: State = next(iter(saved["state"].values()), {})
    divided = [key for key, value in sample.items() if torch.is_tensor(value) and value.dim()]
    for flat in _flat(inner):
        new = {key: torch.zeros_like(flat, requires_grad=False) for key in divided}
        real.state[flat] = {key: new.get(key, _own(value)) for key, value in sample.items()}
    third = hasattr(inner, SLICES[0])
    _link(inner)
    for number, parameter in _numbered(groups):
        mine = saved["state"].get(number, {})
        values: dict[str | None, Tensor] = {key: mine[key] for key in divided if key in mine}
        if number in saved.get("masters", {}):
            values[None] = saved["masters"][number]
        for key, value in values.items():
            value = value.float()
            if third:
                _set_slice(parameter, value, key)
            elif key is None:
                safe_set_full_fp32_param(parameter, value)
            else:
                safe_set_full_optimizer_state(parameter, value, key)


def _own(value: Any) -> Any:
    return value.clone() if torch.is_tensor(value) else value


def _link(inner: Any) -> None:
    """Let the weights know where their state is: after the first group's step DeepSpeed forgets the other groups."""
    if not hasattr(inner, SLICES[0]):
        inner._hp_optimizer_states_linked = False
        inner._lazy_init_hp_params_optimizer_state()


def _set_slice(parameter: Any, value: Tensor, key: str | None) -> None:
    """Put this process's slice of ``value`` in its place; DeepSpeed's own function forgets the padding of the last."""
    from deepspeed.utils import safe_set_local_fp32_param, safe_set_local_optimizer_state

    length = parameter.ds_tensor.numel()
    padded = nn.functional.pad(value.flatten(), (0, length * get_world_size() - value.numel()))
    mine = padded[length * get_rank() :][:length]
    if key is None:
        safe_set_local_fp32_param(parameter, mine)
    else:
        safe_set_local_optimizer_state(parameter, mine, key)


def _whole_dtensors(inner: Optimizer, keep: bool) -> State:
    from torch.distributed.tensor import DTensor

    found: State = inner.state_dict()
    state: dict[int, State] = {}
    for number, values in found["state"].items():
        whole = {k: v.full_tensor() if isinstance(v, DTensor) else v for k, v in values.items()}
        if keep:
            state[number] = {k: v.detach().cpu() if torch.is_tensor(v) else v for k, v in whole.items()}
    return {**found, "state": state}


def _load_dtensors(inner: Optimizer, saved: State) -> None:
    from torch.distributed.tensor import DTensor, distribute_tensor

    parameters = [parameter for group in inner.param_groups for parameter in group["params"]]
    state: dict[int, State] = {}
    for number, values in saved["state"].items():
        parameter = parameters[number]
        state[number] = dict(values)
        if isinstance(parameter, DTensor):
            for key, value in values.items():
                if torch.is_tensor(value) and value.shape == parameter.shape:
                    value = value.to(parameter.device)
                    state[number][key] = distribute_tensor(
                        value, parameter.device_mesh, parameter.placements, src_data_rank=None
                    )
    inner.load_state_dict({**saved, "state": state})
