"""Encoded datasets that are kept from one run to the next: ``--load_from_cache_file true``."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock, Timeout

from .args import DataArguments
from .facts import Unknown, digest_of, facts_of, facts_of_rows
from .stored import Damaged, Encoding, drafted, read, write

if TYPE_CHECKING:
    from martlet.protocols import BoundTemplate
    from martlet.run import Run

    from .modes import Mode
    from .selection import Part

PATIENCE = 120.0
"""Seconds that one process waits for another which encodes the same rows and does not get on."""
PAUSE = 0.5
"""Seconds between two looks at whether it does."""


def cache_folder() -> Path:
    """Return where encoded datasets are kept: below ``MODELSCOPE_CACHE``, else in the user's cache."""
    given = os.environ.get("MODELSCOPE_CACHE")
    home = Path(given).expanduser() if given else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "martlet" / "encoded"


class Cache:
    """Encoded datasets by the digest of everything that they depend on.

    What cannot be kept or found costs time and never the run: it is said, and the dataset is encoded.
    """

    def __init__(self, run: Run, facts: dict[str, Any]) -> None:
        self.run, self.facts, self.folder = run, facts, cache_folder()
        self.locks = self.folder.with_name("locks")
        self._known: dict[Path, dict[str, Any]] = {}
        """By place: everything that the encoding there depends on."""
        self._beats: list[Path] = []
        """Files whose times tell the processes that wait for this one that it gets on."""

    @classmethod
    def of(cls, run: Run, template: BoundTemplate, mode: Mode) -> Cache | None:
        """Return the cache of a run; None where it is not wanted, or not possible."""
        if not run.config[DataArguments].load_from_cache_file:
            return None
        try:
            return cls(run, {**facts_of(run, template), "mode": mode.name})
        except (Unknown, OSError) as error:
            run.warn(f"--load_from_cache_file: nothing is cached, because {error}.")
            return None

    def place(self, part: Part) -> Path | None:
        """Return the folder of a dataset's encoding; None where it cannot be told from others."""
        try:
            facts = {**self.facts, "rows": facts_of_rows(part)}
        except (Unknown, OSError) as error:
            self.run.warn(f"--load_from_cache_file: {part.opened.label} is not cached, because {error}.")
            return None
        place = self.folder / digest_of(facts)
        self._known[place] = facts
        return place

    @contextmanager
    def turn(self, places: Iterable[Path | None]) -> Iterator[None]:
        """Wait while another process encodes the same: the ranks of a machine, say. What it kept is found afterwards.

        The others wait as long as this one calls ``get_on`` now and then. A place is locked only while nothing is
        there, and all of them in one order, so that nobody waits in a circle.
        """
        with ExitStack() as held:
            for place in sorted({place for place in places if place is not None and not place.is_dir()}):
                lock, beat = (self.locks / f"{place.name}.{kind}" for kind in ("lock", "beat"))
                try:
                    self.locks.mkdir(parents=True, exist_ok=True)
                    if self._locked(lock, beat, held):
                        beat.touch()
                        held.callback(beat.unlink, missing_ok=True)
                        self._beats.append(beat)
                except (OSError, NotImplementedError) as error:  # then everybody encodes, as without a cache
                    self.run.logger.debug("%s cannot be locked (%s)", place, error)
            yield

    def get_on(self) -> None:
        """Let those who wait for this process know that it is at work."""
        with suppress(OSError):
            for beat in self._beats:
                beat.touch()

    def _locked(self, path: Path, beat: Path, held: ExitStack) -> bool:
        """Wait for a lock, which ``held`` then releases; False where who has it does not get on."""
        lock, seen, since, told = FileLock(path), None, time.monotonic(), False
        while time.monotonic() - since < PATIENCE:
            try:
                lock.acquire(timeout=PAUSE if told else 0)
                held.callback(lock.release)
                return True
            except Timeout:
                now = beat.stat().st_mtime_ns if beat.exists() else None
                if now != seen:
                    seen, since = now, time.monotonic()
                if not told:
                    self.run.logger.info("Waiting for another process that encodes the same rows (%s).", path)
                    told = True
        self.run.warn(
            f"Another process holds {path} and has encoded nothing for {PATIENCE:g} s: it is no longer waited for, and "
            "the rows are encoded here as well."
        )
        return False

    def load(self, part: Part, place: Path | None) -> Encoding | None:
        """Return a dataset as it was encoded before. What is damaged is removed, with a word."""
        if place is None or not place.is_dir():
            return None
        try:
            found = read(place)
        except Damaged as error:
            self.run.warn(f"{error}; {part.opened.label} is encoded anew.")
            shutil.rmtree(place, ignore_errors=True)
            return None
        found.arrays.sources = part.sources
        self.run.logger.info("%s: %s rows from the cache %s", part.opened.label, f"{len(found.arrays):,}", place)
        return found

    def save(self, part: Part, place: Path | None, encoding: Encoding) -> None:
        """Keep an encoded dataset for the next run."""
        if place is None:
            return
        owners = np.repeat(np.arange(len(part.used)), part.used)
        outcome = replace(encoding.outcome, made=part.made.tolist(), owners=owners.tolist())
        try:
            with drafted(place) as draft:
                write(draft, Encoding(encoding.arrays, outcome), self._known[place])
        except (OSError, TypeError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            self.run.warn(f"--load_from_cache_file: {part.opened.label} could not be cached in {place} ({why}).")
