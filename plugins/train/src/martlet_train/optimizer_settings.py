"""``--optim`` and ``--optim_args``, tried out before a model is loaded: transformers ignores what it does not know."""

from __future__ import annotations

from typing import Any

import torch
from transformers import TrainingArguments
from transformers.trainer_optimizer import _OPTIMIZER_HANDLERS, OptimizerContext

from martlet import UsageError
from martlet.errors import suggest

from .resolve import optimizer_settings

WITH_FLAGS = {
    "lr": "--learning_rate",
    "learning_rate": "--learning_rate",
    "weight_decay": "--weight_decay",
    "beta1": "--adam_beta1",
    "beta2": "--adam_beta2",
    "betas": "--adam_beta1 and --adam_beta2",
    "epsilon": "--adam_epsilon",
}
"""Settings that have flags of their own; the values of those go into every group of parameters."""
TRUTH = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


class _Asked(dict[str, str]):
    """Settings that note by which names they are looked up: those are the ones that an optimizer takes."""

    def __init__(self, given: dict[str, str]) -> None:
        super().__init__(given)
        self.names: dict[str, None] = {}

    def __contains__(self, name: object) -> bool:
        self.names[str(name)] = None
        return super().__contains__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self.names[name] = None
        return super().get(name, default)

    def pop(self, name: str, *default: Any) -> Any:
        self.names[name] = None
        return super().pop(name, *default)


def try_optimizer(args: TrainingArguments) -> None:
    """Build the optimizer for one small layer; ``UsageError`` for what it does not take or cannot be."""
    given, name = optimizer_settings(args.optim_args), getattr(args.optim, "value", args.optim)
    flags = f"--optim_args {args.optim_args}: " if given else ""
    asked, layer = _Asked(given), torch.nn.Linear(2, 2)
    adam = {"betas": (args.adam_beta1, args.adam_beta2), "eps": args.adam_epsilon}
    try:
        context = OptimizerContext(args, layer, {"lr": args.learning_rate}, adam, asked)  # type: ignore[arg-type]
        cls, settings = _OPTIMIZER_HANDLERS[args.optim](context)
        _check_taken(given, asked.names, name)
        _check_truths(given, settings)
        cls(**{"params": layer.parameters(), **settings})
    except (AttributeError, ImportError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        why = " ".join(str(error).split())
        raise UsageError(f"{flags}--optim {name} cannot be made ({why}).") from error


def _check_taken(given: dict[str, str], taken: dict[str, None], optimizer: str) -> None:
    known = taken.keys() - WITH_FLAGS.keys()
    for key, value in given.items():
        if key in WITH_FLAGS:
            raise UsageError(f"--optim_args {key}={value}: use {WITH_FLAGS[key]} {value} for that.")
        if key not in known:
            raise UsageError(f"--optim_args {key}={value}: {optimizer} has no such setting. {suggest(key, known)}")


def _check_truths(given: dict[str, str], settings: dict[str, Any]) -> None:
    """Refuse a word that is neither true nor false, and one that upstream read as its contrary."""
    for key, text in given.items():
        value = settings.get(key)
        if isinstance(value, bool) and value is not TRUTH.get(text.lower()):
            raise UsageError(f"--optim_args {key}={text}: write {key}=true, or leave it out.")
