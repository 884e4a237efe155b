"""What martlet-launch adds: the launcher ``torchrun`` and the flags that say how many processes there are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from martlet import Arguments, Launcher, hookimpl

if TYPE_CHECKING:
    from martlet import Config, Run


@hookimpl
def provide_arguments() -> Iterable[Arguments]:
    yield Arguments(
        "launch",
        "martlet_launch.args:LaunchArguments",
        summary="processes of the run",
        roles=("train",),
        resolve="martlet_launch.resolve:choose",
    )


@hookimpl
def provide_launchers() -> Iterable[Launcher]:
    yield Launcher("torchrun", "martlet_launch.torchrun:launch", summary="torch's elastic agent, without restarts")


@hookimpl
def on_config(config: Config) -> None:
    """Refuse what cannot meet."""
    from .resolve import check

    check(config)


@hookimpl
def on_run_start(run: Run) -> None:
    """Tell that a run which was not handed over is one process."""
    from .resolve import tell_alone

    tell_alone(run)
