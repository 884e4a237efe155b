"""A command that takes every type of flag and prints what it was given."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from martlet import Arguments, Command, Loss, Tuner, hookimpl


@dataclass
class Demo:
    rate: float = field(default=0.1, metadata={"ge": 0, "lt": 10, "important": True})
    """How fast it goes, in turns a second."""
    shift: float = 0.0
    """How far it moves, either way."""
    steps: int = field(default=10, metadata={"gt": 0})
    """How often it turns."""
    bold: bool = False
    """Print it in bold."""
    maybe: bool | None = None
    """Yes, no or undecided."""
    label: str = "plain"
    """What it is called."""
    title: str | None = None
    """What stands above it."""
    names: list[str] = field(default_factory=list)
    """Who takes part."""
    sizes: list[int] | None = None
    """How large each of them is."""
    extra: dict[str, Any] | None = None
    """Anything else."""
    limit: int | str = "all"
    """How many, or all."""
    color: str = field(default="red", metadata={"choices": ("red", "green")})
    """Which colour it has."""
    colors: list[str] = field(default_factory=list, metadata={"choices": ("red", "green")})
    """Which colours it may have."""
    place: str | None = field(default=None, metadata={"path": True})
    """Where its rows are."""
    places: list[str] = field(default_factory=list, metadata={"path": True})
    """Where more rows are."""
    key: str | None = field(default=None, metadata={"secret": True, "env": ("DEMO_KEY", "DEMO_TOKEN")})
    """The password."""
    loud: bool = field(default=False, metadata={"env": "DEMO_LOUD"})
    """Shout."""
    loss: str | None = field(default=None, metadata={"component": "losses", "unset": "flat"})
    """Which loss it uses."""
    tuners: list[str] = field(default_factory=list, metadata={"component": "tuners"})
    """Which tuners it uses."""
    chain: str = field(default="flat", metadata={"component": "losses", "separator": "+"})
    """Losses joined with +."""
    shiny: bool = False
    """Use the tuner that shines."""
    picked: int | None = None
    """Chosen from the steps where nobody says."""
    folder: str | None = None
    """Where the run is recorded."""
    checkpoint: str | None = field(default=None, metadata={"checkpoint": True, "restore": False})
    """A checkpoint to go on from."""


@dataclass
class Steep:
    angle: int = 45
    """Only the steep loss looks at it."""


def pick(config: Any) -> Iterable[tuple[str, Any, str]]:
    demo = config[Demo]
    if demo.picked is None:
        yield "picked", demo.steps * 2, "twice the steps"


def flat(logits: Any, labels: Any) -> Any:
    return logits


def steep(logits: Any, labels: Any) -> Any:
    return -logits


class Shine:
    pass


def main(run: Any) -> dict[str, Any]:
    """Build what was selected and print every setting; record the run where a folder was given."""
    if run.config[Demo].folder:
        run.open(Path(run.config[Demo].folder))
    run.all("losses")
    run.all("tuners")
    found = {}
    for group in (Demo, Steep):
        for name, value in vars(run.config[group]).items():
            origin = run.config.origin(name)
            found[name] = {"value": value, "source": origin.source, "detail": origin.detail}
    print(json.dumps(found))
    return found


@hookimpl
def provide_commands() -> Iterable[Command]:
    yield Command("demo", main, roles=("demo",), summary="Print settings.", defaults={"label": "from the command"})
    yield Command("demo twice", main, roles=("demo",), summary="Print settings as well.")


@hookimpl
def provide_arguments() -> Iterable[Arguments]:
    yield Arguments("demo", Demo, roles=("demo",), resolve=pick, restored_by="load_args")
    yield Arguments("demo.steep", Steep, roles=("demo",), only_for=(("losses", "steep"),))


@hookimpl
def provide_losses() -> Iterable[Loss]:
    yield Loss("flat", flat, summary="A loss without slope.")
    yield Loss("steep", steep, defaults={"rate": 9.0, "label": "from the loss"})


@hookimpl
def provide_tuners() -> Iterable[Tuner]:
    yield Tuner("shine", Shine, enabled_by="shiny", conflicts=("matt",), defaults={"steps": 77})
    yield Tuner("matt", Shine)
