"""What a check is, how it fails, and what running one gives."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from martlet.errors import MartletError
from martlet.specs import Spec, load

Check = Callable[..., None]
"""``(kit)`` or ``(kit, spec)``: raises ``Broken`` with what is wrong, ``Skipped`` with why it cannot be told."""


class Broken(AssertionError):
    """A plugin does not keep its contract."""


class Skipped(Exception):
    """A check cannot be made here."""


def require(condition: object, message: str) -> None:
    """Raise ``Broken(message)`` unless ``condition`` holds."""
    if not condition:
        raise Broken(message)


@dataclass(frozen=True)
class Samples:
    """What the kit cannot know about a plugin. All of it is optional."""

    flags: Mapping[str, Any] = field(default_factory=dict)
    """Flags of the runs in which components are tried: ``{"lora_rank": 2}``."""
    rows: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    """Name of a preprocessor or dataset -> raw rows it has to convert."""
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    """Columns that rewards read, four values each."""
    paths: Mapping[str, str] = field(default_factory=dict)
    """Name of a dataset source or hub -> a path or id it can read here."""
    skip: Mapping[str, str] = field(default_factory=dict)
    """Check (``losses:mine:finite``, or ``finite`` for all) -> why it does not apply."""


@dataclass(frozen=True)
class Result:
    """How one check ended."""

    id: str
    """``kind:name:check``, or ``plugin:check``."""
    outcome: Literal["passed", "failed", "skipped"]
    message: str = ""
    where: str = ""
    """``file:line`` of the component, where it is known."""
    trace: str = ""
    """Traceback of an error that is not the check's own."""

    def __str__(self) -> str:
        text = f"{self.outcome:<7} {self.id}"
        if self.message:
            text += f"\n        {self.message}"
        return text + (f" [{self.where}]" if self.where and self.outcome == "failed" else "")


def check_name(check: Callable[..., None]) -> str:
    """``check_one_score_each`` -> ``one_score_each``."""
    return check.__name__.removeprefix("check_")


def location(spec: Spec) -> str:
    """Return ``file:line`` of a spec's target, or an empty string."""
    try:
        target = inspect.unwrap(load(spec.target)) if spec.target is not None else None
        return f"{inspect.getsourcefile(target)}:{inspect.getsourcelines(target)[1]}" if target is not None else ""
    except Exception:  # a target that cannot be imported is reported by its own check
        return ""


def run_check(id: str, check: Callable[[], None], *, where: str = "", skip: Mapping[str, str] | None = None) -> Result:
    """Run one check and say how it ended; never raises for what the plugin does."""
    for key in (id, id.rpartition(":")[2]):
        if skip and key in skip:
            return Result(id, "skipped", skip[key])
    try:
        check()
    except Broken as broken:
        return Result(id, "failed", str(broken), where)
    except Skipped as reason:
        return Result(id, "skipped", str(reason))
    except MartletError as error:
        return Result(id, "failed", f"{type(error).__name__}: {error}", where, traceback.format_exc())
    except (Exception, SystemExit) as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        message = f"it raised {type(error).__name__}: {error} ({last.filename}:{last.lineno})"
        return Result(id, "failed", message, where, traceback.format_exc())
    return Result(id, "passed")
