"""The command that the checks of launchers start: it notes what its process has, and fails where it is told to."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from martlet import Arguments, Command, Run, UsageError, hookimpl


@dataclass
class NoteArguments:
    to: str = "."
    """Folder of the notes."""
    text: str = ""
    """Any text."""
    fails: int = -1
    """The rank that fails."""


def main(run: Run) -> int:
    """Leave a note."""
    flags, rank = run.config[NoteArguments], run.process.rank
    if flags.fails == rank:
        raise UsageError("A rank of the contract has failed, as it was told to.")
    facts = {**vars(run.process), "text": flags.text, "folder": os.environ.get("MARTLET_RUN_FOLDER", "")}
    draft = Path(flags.to, f".rank-{rank}-{os.getpid()}")
    draft.write_text(json.dumps(facts), encoding="utf-8")
    draft.rename(draft.with_name(f"rank-{rank}-{os.getpid()}.json"))
    return 0


def folder(run: Run) -> Path:
    """Return a folder that is chosen once: its name has the process that chose it."""
    return Path(run.config[NoteArguments].to) / str(os.getpid())


@hookimpl
def provide_arguments() -> Iterator[Arguments]:
    yield Arguments("contract-note", NoteArguments, roles=("contract-note",))


@hookimpl
def provide_commands() -> Iterator[Command]:
    yield Command("contract-note", main, summary="Leave a note.", roles=("contract-note", "train"), folder=folder)
