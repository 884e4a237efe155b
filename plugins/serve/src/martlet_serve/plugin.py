"""What this distribution provides."""

from __future__ import annotations

from collections.abc import Iterable

from martlet import Arguments, Command, hookimpl


@hookimpl
def provide_commands() -> Iterable[Command]:
    yield Command(
        "infer",
        "martlet_serve.infer:main",
        roles=("model", "generate", "data", "infer", "template"),
        defaults={"load_args": True, "remove_unused_columns": False},
        plan="martlet_serve.infer:plan",
        summary="Chat with a model in the terminal, or answer every row of a dataset.",
    )
    yield Command(
        "quickstart",
        "martlet_serve.quickstart.main:main",
        roles=("quickstart",),
        summary="Fine-tune a tiny model offline in a few minutes and talk to it: a tour of the commands.",
    )


@hookimpl
def provide_arguments() -> Iterable[Arguments]:
    yield Arguments(
        "generation",
        "martlet_serve.args:GenerationArguments",
        roles=("generate",),
        summary="How answers are made",
    )
    yield Arguments("infer", "martlet_serve.args:InferArguments", roles=("infer",), summary="Engine and results")
    yield Arguments("quickstart", "martlet_serve.args:QuickstartArguments", roles=("quickstart",), summary="The tour")
