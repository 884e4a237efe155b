"""What this distribution provides."""

from __future__ import annotations

from collections.abc import Iterable

from martlet import Arguments, Command, hookimpl


@hookimpl
def provide_commands() -> Iterable[Command]:
    yield Command(
        "export",
        "martlet_export.export:main",
        roles=("model", "template", "data", "encode", "mode", "export", "action"),
        plan="martlet_export.export:plan",
        summary="Write datasets in a form that later runs start from.",
    )
    yield Command(
        "merge-lora",
        "martlet_export.merge:main",
        roles=("model", "export", "weights"),
        defaults={"load_args": True},
        plan="martlet_export.merge:plan",
        summary="Fold adapters into their model and save it, so that it can be used without them.",
    )


@hookimpl
def provide_arguments() -> Iterable[Arguments]:
    yield Arguments("export", "martlet_export.args:ExportArguments", roles=("export",), summary="Where the result goes")
    yield Arguments("action", "martlet_export.args:ActionArguments", roles=("action",), summary="What is written")
    yield Arguments(
        "weights", "martlet_export.args:WeightArguments", roles=("weights",), summary="How weights are saved"
    )
