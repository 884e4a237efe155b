"""Model patches that can be told apart by what they do."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch

from martlet import ModelPatch, Run, hookimpl


class Recorder:
    """Keeps what the loader is about to hand to transformers."""

    def before_load(self, config: Any, kwargs: dict[str, Any], run: Run) -> None:
        self.seen = copy.deepcopy(kwargs)

    def after_load(self, model: Any, processor: Any, run: Run) -> Any:
        return model


class Doubled:
    """Doubles the output head, and turns the cache off on the way."""

    def before_load(self, config: Any, kwargs: dict[str, Any], run: Run) -> None:
        config.use_cache = False

    def after_load(self, model: Any, processor: Any, run: Run) -> Any:
        with torch.no_grad():
            model.lm_head.weight.mul_(2)
        return model


class Shifted(Doubled):
    """Adds one to the output head."""

    def after_load(self, model: Any, processor: Any, run: Run) -> Any:
        with torch.no_grad():
            model.lm_head.weight.add_(1)
        return model


@hookimpl
def provide_model_patches() -> Iterator[ModelPatch]:
    yield ModelPatch("recorder", Recorder)
    yield ModelPatch("doubled", Doubled)
    yield ModelPatch("shifted", Shifted, conflicts=("rival",))
    yield ModelPatch("rival", Doubled)
