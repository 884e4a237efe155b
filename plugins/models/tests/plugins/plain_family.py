"""A family with facts and no loader of its own."""

from __future__ import annotations

from collections.abc import Iterator

from martlet import Model, hookimpl


@hookimpl
def provide_models() -> Iterator[Model]:
    yield Model("plain", architectures=("LlamaForCausalLM",), template="chatml")
