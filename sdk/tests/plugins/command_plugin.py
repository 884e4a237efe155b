"""A command, its flags, and a setting that is chosen for the user."""

from dataclasses import dataclass, field
from typing import Any

from martlet import Arguments, Command, hookimpl


@dataclass
class GreetArguments:
    name: list[str] = field(default_factory=list)
    """Whom to greet."""
    times: int | None = field(default=None, metadata={"ge": 1})
    """How often."""
    tone: str = field(default="warm", metadata={"choices": ("warm", "cool"), "env": "GREET_TONE"})
    """In which tone."""
    extra: dict[str, Any] | None = None
    """What else to say."""
    loss: str | None = field(default=None, metadata={"component": "losses"})
    """A loss to greet with."""


def choose(config):
    if config.value("times") is None:
        yield "times", 1, "once is enough"


def greet(run):
    chosen = run.config[GreetArguments]
    return [f"hello {name}" for name in chosen.name] * chosen.times


def plan(run):
    return {"greetings": len(greet(run))}


@hookimpl
def provide_arguments():
    yield Arguments("greet", GreetArguments, roles=("greet",), resolve=choose)


@hookimpl
def provide_commands():
    yield Command("greet", greet, roles=("greet",), positional="name", plan=plan, summary="Say hello.")
