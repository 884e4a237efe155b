"""Callbacks of plugins: shaped like ``transformers.TrainerCallback``, without having to import transformers."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

EVENTS = [name for name in dir(TrainerCallback) if name.startswith("on_")]


class Shaped(TrainerCallback):  # type: ignore[misc]
    """Hand over the events that an object has methods for; the others do nothing."""

    def __init__(self, target: Any) -> None:
        self.target = target
        for event in EVENTS:
            if hasattr(target, event):
                setattr(self, event, getattr(target, event))


def shaped(callbacks: list[Any]) -> list[TrainerCallback]:
    """Return callbacks that answer every event."""
    return [one if isinstance(one, TrainerCallback) else Shaped(one) for one in callbacks]
