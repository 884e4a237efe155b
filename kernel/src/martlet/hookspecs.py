"""Every hook a plugin may implement.

``provide_KIND`` takes nothing and yields specs of that kind, at most once a process; must be cheap (no torch). What a
target must do, and what selects it, says the docstring of the kind's spec (``specs``). ``on_EVENT`` is told of an event
and returns nothing; it reaches only plugins that own a component or a set flag of this run, or that the user named. No
``firstresult``, no ``tryfirst``: the user chooses by name, and lists keep the order the user wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import pluggy

from .specs import KINDS, Spec

if TYPE_CHECKING:
    from .config import Config
    from .run import Process, Run

PROJECT = "martlet"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


def _provide(kind: type[Spec]) -> Callable[[], Iterable[Spec]]:
    def hook() -> Iterable[Spec]:
        return ()

    hook.__name__, hook.__doc__ = f"provide_{kind.kind}", kind.__doc__
    return hookspec(hook)


globals().update({f"provide_{kind.kind}": _provide(kind) for kind in KINDS.values()})


@hookspec
def on_process_start(process: Process) -> None:
    """A process of the run has started: the place for process-local side effects. Must be safe to call twice."""


@hookspec
def on_config(config: Config) -> None:
    """The configuration is final. Raise ``ConfigError`` to refuse it; do not change it."""


@hookspec
def on_run_start(run: Run) -> None:
    """The run is about to start."""


@hookspec
def on_run_end(run: Run, error: BaseException | None) -> None:
    """The run is over. ``error`` is what ended it, if anything did."""
