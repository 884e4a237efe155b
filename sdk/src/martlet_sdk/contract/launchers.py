"""Launchers: ``(run) -> exit status``, which start the processes of a run."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from martlet import Command, MartletError, Run
from martlet.cli import make_run
from martlet.specs import Launcher

from .base import Broken, require
from .kit import Kit

TEXT = 'it\'s $HOME, $$5 and "quoted"'


def check_takes_a_run(kit: Kit, spec: Launcher) -> None:
    """Its target is a function that takes the run."""
    try:
        inspect.signature(kit.build(spec)).bind(object())
    except TypeError as error:
        raise Broken(f"its target cannot be called with the run as its one argument: {error}.") from error


def check_starts_ranks(kit: Kit, spec: Launcher) -> None:
    """Every process runs ``run.words`` once, knows its rank, and has the folder that the launcher has asked for."""
    place = kit.folder / f"launched-{spec.name}"
    place.mkdir()
    with _run(kit, place) as run:
        status = kit.build(spec)(run)
    require(status == 0 and isinstance(status, int), f"it returned {status!r} for ranks that ended well; return 0.")
    notes = [json.loads(file.read_text(encoding="utf-8")) for file in place.glob("rank-*.json")]
    require(len(notes) > 1, f"{len(notes)} of several processes ran the command.")
    notes.sort(key=lambda note: note["rank"])
    ranks = [note["rank"] for note in notes]
    require(ranks == list(range(len(notes))), f"RANK of its {len(notes)} processes was {ranks}; number them from 0.")
    for name, wanted in (("world_size", len(notes)), ("text", TEXT), ("kind", "rank"), ("folder", _chosen(place))):
        wrong = next((note for note in notes if note[name] != wanted), None)
        require(wrong is None, f"rank {wrong and wrong['rank']} had {name} {wrong and wrong[name]!r}, not {wanted!r}.")


def check_tells_failure(kit: Kit, spec: Launcher) -> None:
    """A rank that fails makes the run fail."""
    place = kit.folder / f"failed-{spec.name}"
    place.mkdir()
    try:
        with _run(kit, place, "--fails", "1") as run:
            status = kit.build(spec)(run)
    except MartletError:
        return
    require(status, "rank 1 failed, and it returned 0.")


def _chosen(place: Path) -> str:
    """Return the folder that a command of this process chooses."""
    return str(place / str(os.getpid()))


@contextmanager
def _run(kit: Kit, place: Path, *more: str) -> Iterator[Run]:
    """Make a run of a command that leaves notes; put the environment back afterwards."""
    note = str(Path(__file__).with_name("launched.py"))
    before: dict[str, Any] = dict(os.environ)
    try:
        if "launched" not in kit.manager.plugins:
            kit.manager.load_external(note)
        command = kit.manager.find(Command, "contract-note")[1]
        plugins = [note] if kit.entry is not None else [note, kit.reference]
        words = ["--external_plugins", *plugins, "--to", str(place), "--text", TEXT, *more]
        if any("train" in roles for _, roles in kit.flags.get("nproc_per_node", ())):
            words += ["--nproc_per_node", "2"]
        yield make_run(command, kit.manager, words, {})
    finally:
        os.environ.clear()
        os.environ.update(before)


CHECKS = (check_takes_a_run, check_starts_ranks, check_tells_failure)
