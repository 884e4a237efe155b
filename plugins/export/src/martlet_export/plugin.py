"""What this distribution provides."""

from __future__ import annotations

from collections.abc import Iterable

from martlet import Arguments, Command, hookimpl


@hookimpl
def provide_commands() -> Iterable[Command]:
    yield Command(
        "merge-lora",
        "martlet_export.merge:main",
        roles=("model", "export"),
        defaults={"load_args": True},
        plan="martlet_export.merge:plan",
        summary="Fold adapters into their model and save it, so that it can be used without them.",
    )


@hookimpl
def provide_arguments() -> Iterable[Arguments]:
    yield Arguments("export", "martlet_export.args:ExportArguments", roles=("export",), summary="Where the result goes")
