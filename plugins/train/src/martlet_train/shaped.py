"""Callbacks of plugins: shaped like ``transformers.TrainerCallback``, without having to import transformers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl

from martlet import MartletError
from martlet.errors import told

EVENTS = [name for name in dir(TrainerCallback) if name.startswith("on_")]
WISHES = ("should_training_stop", "should_epoch_stop", "should_save", "should_evaluate", "should_log")
"""What a callback may ask of the loop."""


class Shaped(TrainerCallback):  # type: ignore[misc]
    """Hand over the events that an object has methods for; the others do nothing."""

    def __init__(self, target: Any) -> None:
        self.target = target
        for event in EVENTS:
            if hasattr(target, event):
                setattr(self, event, _guarded(getattr(target, event), type(target).__name__, event))


def _guarded(method: Callable[..., Any], name: str, event: str) -> Callable[..., Any]:
    """Say whose fault it is when a method raises."""

    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return method(*args, **kwargs)
        except MartletError:
            raise
        except (Exception, SystemExit) as error:
            raise MartletError(f"Callback {name} failed in {event}: {told(error, __file__)}.") from error

    return call


def shaped(callbacks: list[Any]) -> list[TrainerCallback]:
    """Return callbacks that answer every event and whose errors name them.

    A ``TrainerCallback`` stays the object that it is, with its state, of a class derived from its own: transformers
    knows it by both.
    """
    return [_guard(one) if isinstance(one, TrainerCallback) else _named(one)(one) for one in callbacks]


def _guard(callback: TrainerCallback) -> TrainerCallback:
    own = type(callback)
    events = [event for event in EVENTS if getattr(own, event) is not getattr(TrainerCallback, event)]
    guarded = {event: _guarded(getattr(own, event), own.__name__, event) for event in events}
    callback.__class__ = type(own.__name__, (own,), {**guarded, "__module__": own.__module__})
    return callback


def _named(target: Any) -> type[Shaped]:
    """Return a class of its own for each: transformers warns of two callbacks of one class."""
    return type(type(target).__name__, (Shaped,), {})


class Agreed(TrainerCallback):  # type: ignore[misc]
    """Let what one process's callbacks ask for count for all: one that stopped alone would leave the others waiting.

    Must come after the callbacks of plugins. The loop looks at what is asked for after these events.
    """

    def on_step_end(self, args: Any, state: Any, control: TrainerControl, **kwargs: Any) -> None:
        mine = torch.tensor([getattr(control, wish) for wish in WISHES], dtype=torch.int32, device=args.device)
        torch.distributed.all_reduce(mine, torch.distributed.ReduceOp.MAX)
        for wish, asked in zip(WISHES, mine.tolist(), strict=True):
            setattr(control, wish, bool(asked))

    on_epoch_end = on_log = on_evaluate = on_save = on_step_end
