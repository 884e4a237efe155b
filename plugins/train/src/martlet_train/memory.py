"""The memory that weights, gradients and optimizer state take, to the byte and without allocating any of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from martlet import Run

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import TrainingArguments


def memory(run: Run, model: nn.Module, args: TrainingArguments) -> dict[str, Any]:
    """Return the bytes that training ``model``, which is on the meta device, holds beside its activations."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    spread = run.config.is_set("device_map")
    return {
        "weights": _bytes([*model.parameters(), *model.buffers()]),
        "gradients": _bytes(trained),
        "optimizer": _optimizer_state(args, model, trained),
        "unit": "bytes on all devices together" if spread else "bytes on each device",
    }


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _optimizer_state(args: TrainingArguments, model: nn.Module, trained: list[nn.Parameter]) -> int | dict[str, str]:
    """Let the real optimizer take a step on tensors without memory, and count the state that it made."""
    import torch
    from transformers import Trainer

    cls, settings = Trainer.get_optimizer_cls_and_kwargs(args, model)  # type: ignore[arg-type]
    settings.pop("fused", None)  # the same state, by kernels that the meta device lacks
    try:
        optimizer = cls(**{"params": trained, **settings})
        for parameter in trained:
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
    except Exception as error:  # an optimizer is foreign code, made for tensors with values
        why = f"{type(error).__name__}: {' '.join(str(error).split())}"
        return {"unknown": f"{cls.__name__} cannot step without values ({why})"}
    return _bytes(value for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value))
