"""The report of ``martlet data check``: one HTML file that needs nothing beside it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from martlet.errors import DataError, UsageError

from .findings import Findings
from .ledger import Ledger, RowId

if TYPE_CHECKING:
    from martlet.config import Config

MARK = '<meta name="generator" content="martlet data check">'
"""Every report begins with it: a file without it is not replaced."""
LISTED = 200
"""Dropped rows that the report itself lists."""
ASKED = ["model", "template", "template_mode", "loss_scale", "max_length", "truncation_strategy", "system", "columns"]
ASKED += ["max_dropped"]


@dataclass(frozen=True)
class Shown:
    """A sample, as far as it is shown."""

    id: RowId
    length: int
    supervised: int
    pieces: Sequence[tuple[str, float]]
    """Text and its weight; 0 where it is not supervised."""
    hidden: int
    """Tokens left out at the end."""
    name: str
    """Which sample of its row it is, where there are several kinds."""


@dataclass(frozen=True)
class Facts:
    """What a report tells."""

    config: Config
    ledger: Ledger
    found: Findings | None
    samples: Sequence[Shown]
    max_length: int | None
    speed: str
    fault: str
    """Why the datasets cannot be used, or an empty text."""


class Report:
    """A file to write. ``UsageError`` for a path that cannot take it, before any row is read."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        if self.path.is_dir() or not self.path.name:
            raise UsageError(f"--report {path}: this is a folder; name a file in it.")
        self.drops = self.path.with_name(f"{self.path.stem}.dropped.jsonl")
        if not self.path.parent.is_dir():
            raise UsageError(f"--report {path}: there is no folder {self.path.parent}; make it first.")
        if self.path.exists() and MARK not in self._beginning():
            raise UsageError(f"--report {path}: a file that is no report of data check is there; choose another name.")

    def _beginning(self) -> str:
        try:
            with self.path.open("rb") as file:
                return file.read(1000).decode("utf-8", "replace")
        except OSError as error:
            raise UsageError(f"--report {self.path}: cannot be read ({error.strerror or error}).") from error

    def write(self, facts: Facts) -> Iterator[str]:
        """Write the report and, where rows were dropped, all of them as JSON lines beside it. Yields what was done."""
        text = _rendered(facts, self.drops.name)
        yield self._replaced(self.path, "Report", lambda draft: draft.write_text(text, "utf-8", "backslashreplace"))
        if facts.ledger.rows or self.drops.exists():
            yield self._replaced(self.drops, "Dropped rows", facts.ledger.write_dropped)

    def _replaced(self, path: Path, what: str, write: Callable[[Path], object]) -> str:
        before = ""
        if path.exists():
            before = f", in place of the one of {time.strftime('%Y-%m-%d %H:%M', time.localtime(path.stat().st_mtime))}"
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            write(draft)
            draft.replace(path)
        except OSError as error:
            draft.unlink(missing_ok=True)
            raise DataError(f"{path}: cannot be written ({error.strerror or error}).") from error
        return f"{what}: {path}{before}"


def _rendered(facts: Facts, drops: str) -> str:
    from jinja2 import PackageLoader, StrictUndefined
    from jinja2.sandbox import SandboxedEnvironment

    environment = SandboxedEnvironment(
        loader=PackageLoader("martlet_data", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"number": "{:,}".format, "percent": "{:.1%}".format, "shade": _shade, "plain": _plain}
    known = {flag.name for flag in facts.config.flags}
    return environment.get_template("report.html.jinja").render(
        mark=MARK,
        facts=facts,
        totals=facts.ledger.totals(),
        settings=[(name, facts.config.value(name)) for name in ASKED if name in known],
        listed=facts.ledger.rows[:LISTED],
        drops=drops,
        when=time.strftime("%Y-%m-%d %H:%M"),
        weighted=any(weight not in (0, 1) for one in facts.samples for _, weight in one.pieces),
    )


def _shade(weight: float) -> int:
    """Return a step of colour for a weight: 0 for weight 0, 3 for weight 1, 6 for 4 and more."""
    return sum(weight > bound for bound in (0, 0.5, 0.9, 1.5, 2.5, 3.5))


def _plain(value: Any) -> str:
    return "not given" if value is None else str(value)
