"""What this distribution provides."""

from __future__ import annotations

from collections.abc import Iterable

from martlet import Arguments, Engine, hookimpl


@hookimpl
def provide_engines() -> Iterable[Engine]:
    yield Engine(
        "transformers",
        "martlet_engine_transformers.engine:TransformersEngine",
        summary="Runs every model that transformers loads, on any device",
        can=frozenset({"stream", "lora", "logprobs", "attach", "beams", "score"}),
    )


@hookimpl
def provide_arguments() -> Iterable[Arguments]:
    yield Arguments(
        "engine.transformers",
        "martlet_engine_transformers.args:TransformersEngineArguments",
        roles=("infer",),
        only_for=(("engines", "transformers"),),
        summary="Generation with transformers",
    )
