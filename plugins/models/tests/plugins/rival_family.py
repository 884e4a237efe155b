"""Another family of the same architecture."""

from __future__ import annotations

from collections.abc import Iterator

from martlet import Model, hookimpl


@hookimpl
def provide_models() -> Iterator[Model]:
    yield Model("qwen-too", architectures=("Qwen3ForCausalLM",))
