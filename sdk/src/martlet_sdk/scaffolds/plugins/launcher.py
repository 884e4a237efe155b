"""What this package adds to Martlet. Imported for every listing, so nothing heavy is imported here."""

from collections.abc import Iterator

from martlet import Launcher, hookimpl


@hookimpl
def provide_launchers() -> Iterator[Launcher]:
    yield Launcher(
        "my-name", "martlet_my_name.launcher:my_name", summary="Processes of this machine, without torchrun."
    )
