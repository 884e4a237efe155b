"""How a run of several processes ended: one sentence about the process that ended it, whatever the others say."""

from __future__ import annotations

import json
import math
import re
import shlex
import signal
import socket
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from martlet import MartletError, Run, UsageError
from martlet.run import write_json

from .rank import exit_file, log_file

if TYPE_CHECKING:
    from .machines import Machines

STOPPED = (130, 143)
"""Exit statuses after SIGINT and SIGTERM."""
GRACE = 5.0
"""Seconds that ranks have to end by themselves where one has failed, or after the second signal."""
HEAD_START = 1.0
"""Seconds by which a death without a word, seen only when it is over, is taken to be older than what others say."""


class RankFailed(MartletError):
    """A process of the run has ended it."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.exit_code = status


@dataclass
class Ended:
    """A process that is over: its exit status, or the number of the signal that killed it, negative."""

    status: int
    at: float = field(default_factory=time.time)
    by_us: bool = False
    """It was killed because others had failed, or because a second signal came."""


@dataclass
class Cause:
    """What ended the run: when, the exit status, and the sentence; none where a command returned its status."""

    at: float
    status: int
    text: str
    rank: int


@dataclass
class Places:
    """Where things are: ``files`` of this machine while the run lasts, and the run's folder, if the command has one."""

    files: Path
    folder: Path | None
    ranks: list[int] = field(default_factory=list)
    """Those of this machine."""
    only_model: bool = False
    """Checkpoints hold no optimizer state, and one has to say so to continue from them."""
    started: float = field(default_factory=time.time)
    _created: list[Path] = field(default_factory=list)

    @property
    def logs(self) -> Path:
        return (self.folder or self.files) / "logs"

    def create(self) -> None:
        """Make the folder of the logs, and with it that of the run."""
        self._created = [path for path in (self.logs, *self.logs.parents) if not path.exists()]
        try:
            self.logs.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"{self.logs} cannot be created ({error.strerror or error}). Choose another --output_dir."
            ) from error

    def tidy(self, *, all_logs: bool) -> None:
        """Remove the logs, or those that are empty, and created folders in which nothing is left."""
        for log in (log_file(self.logs, rank) for rank in self.ranks):
            if log.exists() and (all_logs or not log.stat().st_size):
                log.unlink()
        for path in self._created:
            with suppress(OSError):
                path.rmdir()

    def last_words(self, rank: int) -> dict[str, Any]:
        """Return what a rank said when it ended with an error; empty if nothing."""
        if found := _read(exit_file(self.files, rank)):
            return found
        last = self.state(rank)  # one that had to leave at once
        return {"status": 1, "own": True, "traceback": "", **last} if last.get("error") else {}

    def state(self, rank: int) -> dict[str, Any]:
        """Return what a rank last told about itself, such as its host and its step; empty if nothing."""
        return _read(self.files / f"{rank}.json")

    def last_checkpoint(self) -> Path | None:
        """Return the newest whole checkpoint of this run: its index is what is written last."""
        found = (self.folder or self.files).glob("checkpoint-*/checkpoint.json")
        written = [(file.stat().st_mtime, file.parent) for file in found]
        return max(((at, folder) for at, folder in written if at > self.started - 1), default=(0, None))[1]


def _read(file: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found


def is_stop(status: int, said: dict[str, Any], signals: list[int]) -> bool:
    """Tell whether a rank ended as one that was told to: here, or by another rank that was."""
    if -status in signals:
        return True  # it was only starting
    return status in STOPPED and bool(signals or said.get("error"))


def conclude(run: Run, ended: dict[int, Ended], signals: list[int], places: Places, machines: Machines) -> int:
    """Return the exit status of a run whose ranks have ended, or raise what one of them ended it with."""
    failed = {rank: one for rank, one in ended.items() if one.status}
    said = {rank: places.last_words(rank) for rank in failed}
    stops = [rank for rank, one in failed.items() if is_stop(one.status, said[rank], signals)]
    killed = [rank for rank, one in failed.items() if one.by_us]
    if failed and (len(stops) == len(failed) or (signals and (stops or killed))):
        for rank in sorted(stops):
            if said[rank].get("error"):
                status = failed[rank].status  # a second signal can still kill one that has said everything
                raise RankFailed(said[rank]["error"], status if status > 0 else 128 - status)
        raise KeyboardInterrupt("SIGTERM" if signal.SIGTERM in signals[:1] else "")
    if not failed:
        return 0
    everyone = len(ended) if machines.count == 1 else 0
    reason = machines.reason(socket.gethostname())
    cause = machines.agree(_cause(run, failed, said, places, everyone, reason))
    if not cause.text:
        return cause.status
    error = RankFailed(cause.text, cause.status)
    if said.get(0, {}).get("error") != cause.text:  # else rank 0 has done so itself
        _close_record(places, error)
    raise error


def _cause(
    run: Run, failed: dict[int, Ended], said: dict[int, dict[str, Any]], places: Places, everyone: int, reason: str
) -> Cause:
    """Return what came first on this machine; ``reason`` where nothing has gone wrong here."""
    since = {
        rank: float(said[rank]["at"]) if said[rank] else one.at - HEAD_START
        for rank, one in failed.items()
        if said[rank] or not one.by_us
    }
    if not since:
        return Cause(math.inf, 1, reason, min(failed))
    rank = min(since, key=since.__getitem__)
    facts = said[rank]
    if not facts:
        return Cause(since[rank], 1, _death(rank, failed[rank].status, places), rank)
    if facts["traceback"] and run.config.value("debug"):
        print(facts["traceback"], file=sys.stderr, end="")
    text = _told(rank, said, places, everyone) if facts["error"] else ""
    return Cause(since[rank], int(facts["status"]), text, rank)


def _told(rank: int, said: dict[int, dict[str, Any]], places: Places, everyone: int) -> str:
    """Return what a rank said, with its name where it was not what all of them found."""
    facts = said[rank]
    text: str = facts["error"]
    same = len(said) == everyone and all(other.get("error") == text for other in said.values())
    if same or (facts["own"] and (facts["status"] == 2 or re.search(r"\brank \d", text, re.IGNORECASE))):
        return text
    return f"{_name(rank, places)}: {text}{'' if text.endswith('.') else '.'}{_traces(rank, places, text)}"


def _death(rank: int, status: int, places: Places) -> str:
    """Say what is known of a rank that ended without a word."""
    if status < 0:
        number = signal.Signals(-status)
        how = f"was killed by {number.name}{', probably because memory ran out' if number == signal.SIGKILL else ''}"
    else:
        how = f"ended with status {status} and said nothing"
    return f"{_name(rank, places)} {how}.{_traces(rank, places)}"


def _name(rank: int, places: Places) -> str:
    steps = [one["step"] for one in map(places.state, {rank, *places.ranks}) if one.get("step") is not None]
    step = f" at step {max(steps)}" if steps else ""  # what one has finished, all took part in
    return f"Rank {rank} on {places.state(rank).get('host') or socket.gethostname()}{step}"


def _traces(rank: int, places: Places, text: str = "") -> str:
    """Name its log, and the last good checkpoint unless ``text`` has named it."""
    log, checkpoint = log_file(places.logs, rank), places.last_checkpoint()
    parts = [f" Its log is {log}."] if places.folder is not None and log.exists() and log.stat().st_size else []
    if checkpoint is not None and str(checkpoint) not in text:
        more = f"{shlex.quote(str(checkpoint))}{' --resume_only_model true' if places.only_model else ''}"
        parts.append(f" The last whole checkpoint is {checkpoint}; to continue, add --resume_from_checkpoint {more}.")
    return "".join(parts)


def _close_record(places: Places, error: MartletError) -> None:
    """Note in ``run.json`` what ended the run: rank 0 may be dead, or know only that another one is gone."""
    file = (places.folder or places.files) / "run.json"
    record = _read(file) if 0 in places.ranks else {}
    if record:
        now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        record["ended"] = {"at": now, "outcome": f"{type(error).__name__}: {error}"}
        write_json(file, record)
