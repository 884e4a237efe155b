"""A family that is known by its id, and one that is known by its architecture."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from martlet import Model, Run, hookimpl
from martlet_models.loader import DefaultLoader


class Special(DefaultLoader):
    """A family's own loader."""

    def load_processor(self, run: Run) -> Any:
        return f"the tokenizer of {self.spec.name}"


@hookimpl
def provide_models() -> Iterator[Model]:
    yield Model("wren", Special, checkpoints=("birds/wren*", "wren-*"), template="chatml")
    yield Model("qwen", Special, architectures=("Qwen3ForCausalLM",))
