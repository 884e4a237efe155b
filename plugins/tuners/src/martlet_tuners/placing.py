"""Where adapters go, as the flags say: a PEFT configuration, checked against the model."""

from __future__ import annotations

import re
from contextlib import suppress
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from martlet import UsageError

from .args import LoraArguments, TunerArguments
from .naming import check_ends, ends_with, pattern
from .refusal import refused

if TYPE_CHECKING:
    from torch import nn

    from martlet import Run

ALL_LINEAR = "all-linear"
CLASSIFIER = "ForSequenceClassification"
"""End of the class names of models whose score head PEFT then trains whole and saves with the adapter."""
STARTS = re.compile(r"gaussian|pissa|pissa_niter_\d+|olora|orthogonal")


def task_of(model: nn.Module) -> str:
    """Return PEFT's name of what a model is for."""
    return "SEQ_CLS" if type(model).__name__.endswith(CLASSIFIER) else "CAUSAL_LM"


def lora_config(model: nn.Module, run: Run) -> Any:
    """Return the ``peft.LoraConfig`` that the flags describe; ``UsageError`` where the model has no such part."""
    from peft import LoraConfig

    where, settings = run.config[TunerArguments], run.config[LoraArguments]
    modules = [name for name, _ in model.named_modules()]
    targets = _targets(model, modules, where)
    if not targets and not where.target_parameters:
        raise UsageError("--target_modules is empty, so nothing would be trained; name modules, or leave the flag out.")
    config = LoraConfig(
        task_type=task_of(model),
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        bias=settings.lora_bias,  # type: ignore[arg-type]
        use_dora=settings.use_dora,
        use_rslora=settings.use_rslora,
        target_modules=targets or None,
        exclude_modules=(_choosers(model) or None) if targets == ALL_LINEAR else None,
        target_parameters=list(where.target_parameters) or None,
        modules_to_save=list(where.modules_to_save) or None,
        ensure_weight_tying=_saves_tied(model, where.modules_to_save),
        init_lora_weights=_start(where.init_weights, settings),  # type: ignore[arg-type]
    )
    reached = _as_reached(config, model)
    check_ends("modules_to_save", where.modules_to_save, modules, "module")
    check_ends("target_parameters", where.target_parameters, (n for n, _ in model.named_parameters()), "parameter")
    if isinstance(targets, list):
        check_ends("target_modules", [end for end in targets if end in reached.target_modules], modules, "module")
    _settle_dropout(config, reached, run)
    if targets == ALL_LINEAR and not reached.target_parameters:
        _warn_about_experts(model, run)
    return config


def _as_reached(config: Any, model: nn.Module) -> Any:
    """Return the configuration as PEFT will use it.

    Where transformers holds experts in fused parameters, PEFT takes the names that their matrices had as linear layers
    (gate_proj, say), ``all-linear`` included, for those parameters.
    """
    from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers

    reached = deepcopy(config)
    with refused():
        convert_peft_config_for_transformers(reached, model, None)
    reached.target_modules = reached.target_modules or []
    return reached


def _settle_dropout(config: Any, reached: Any, run: Run) -> None:
    """Turn dropout off where bare parameters are adapted, which take none."""
    if not reached.target_parameters or not config.lora_dropout:
        return
    names = ", ".join(sorted(reached.target_parameters))
    if run.config.is_set("lora_dropout"):
        raise UsageError(
            f"--lora_dropout {config.lora_dropout}: there can be no dropout in front of bare parameters ({names}); "
            "add --lora_dropout 0, or name other --target_modules."
        )
    config.lora_dropout = 0.0
    run.warn(f"lora_dropout is 0 in this run: there can be none in front of bare parameters ({names}).")


def _start(value: bool | str, settings: LoraArguments) -> bool | str:
    if isinstance(value, bool):
        return value
    if not STARTS.fullmatch(value):
        raise UsageError(
            f"--init_weights {value}: not one of true, false, gaussian, pissa, pissa_niter_N (as in pissa_niter_16), "
            "olora, orthogonal."
        )
    if value == "orthogonal" and settings.lora_rank % 2:
        raise UsageError(f"--init_weights orthogonal needs an even rank; --lora_rank is {settings.lora_rank}.")
    return value


def _targets(model: nn.Module, modules: list[str], where: TunerArguments) -> list[str] | str:
    """Return target modules as PEFT takes them: a list of ends, ``all-linear``, or a regular expression."""
    if where.target_regex is not None:
        wanted = pattern("target_regex", where.target_regex)
        if not any(wanted.fullmatch(name) for name in modules):
            some = next((name for name in reversed(modules) if name.endswith("_proj")), modules[-1])
            raise UsageError(
                f"--target_regex {where.target_regex}: no module's whole name matches it; one of them is {some}."
            )
        return where.target_regex
    if [name.lower() for name in where.target_modules] == [ALL_LINEAR]:
        return ALL_LINEAR
    ends = [name for name in where.target_modules if name.lower() != ALL_LINEAR]
    if len(ends) < len(where.target_modules):
        ends += [name for name in _linear(model) if not any(ends_with(name, end) for end in ends)]
    return ends


def _linear(model: nn.Module) -> list[str]:
    """Return the names of all linear layers but the output head, and those that choose."""
    from torch import nn as layers
    from transformers.pytorch_utils import Conv1D

    whole: Any = model
    head = whole.get_output_embeddings() if hasattr(whole, "get_output_embeddings") else None
    passed = {head, *map(model.get_submodule, _choosers(model))}
    return [n for n, m in model.named_modules() if isinstance(m, layers.Linear | Conv1D) and m not in passed]


def _choosers(model: nn.Module) -> list[str]:
    """Return the linear layers that give more than one tensor, as the routers of some experts do.

    An adapter adds to what its layer gives, so there can be none on them. Tried out on the meta device; a layer with
    which that cannot be done, as with quantised weights, is not among them.
    """
    import torch
    from torch import nn as layers

    found = []
    for name, layer in model.named_modules():
        if not isinstance(layer, layers.Linear) or type(layer).forward is layers.Linear.forward:
            continue
        shapes: dict[str, tuple[int, ...]] = {"weight": (layer.out_features, layer.in_features)}
        shapes |= {} if layer.bias is None else {"bias": (layer.out_features,)}
        weights = {part: torch.empty(shape, device="meta") for part, shape in shapes.items()}
        with suppress(Exception), torch.no_grad():
            given = torch.func.functional_call(layer, weights, (torch.empty(1, layer.in_features, device="meta"),))
            found += [] if isinstance(given, torch.Tensor) else [name]
    return found


def _saves_tied(model: nn.Module, modules: list[str]) -> bool:
    """Tell whether one of two tied embeddings is trained whole: then both are, and stay tied."""
    whole: Any = model
    if not getattr(whole.config.get_text_config(), "tie_word_embeddings", False):
        return False
    pair = {id(whole.get_input_embeddings()), id(whole.get_output_embeddings())}
    return any(id(m) in pair and any(ends_with(n, end) for end in modules) for n, m in model.named_modules())


def _warn_about_experts(model: nn.Module, run: Run) -> None:
    """Say so where a large part of the weights lies in fused experts, which are no linear layers."""
    experts = {name: parameter.numel() for name, parameter in model.named_parameters() if parameter.dim() > 2}
    if experts:
        share = sum(experts.values()) / sum(parameter.numel() for parameter in model.parameters())
        ends = sorted({".".join(name.split(".")[-3:]) for name in experts})
        run.warn(
            f"all-linear does not reach the fused experts, {share:.0%} of the weights; to adapt them too, add "
            f"--target_parameters {' '.join(ends)} --lora_dropout 0"
        )
