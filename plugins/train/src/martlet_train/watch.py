"""Which process of a run is lost, and where: told by those that wait for it, instead of a failed transfer's words.

Every process keeps a line about itself in the store where they met: host, step, and how it ended. torchrun's store
survives them. A thread renews the line, so that a process that is stopped, or cut off, falls silent.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from transformers import TrainerCallback

from martlet import MartletError, Run
from martlet.errors import told

from .args import TrainerArguments
from .checkpoint import find_last, flags_to_continue
from .joining import PATIENCE, Meeting, part

BEAT = 1.0
"""Seconds between two signs of life."""
FILES = "MARTLET_RANK_FILES"
"""Environment variable: a folder into which processes write their lines as well, for the launcher on their machine."""
Line = Mapping[str, Any]


class Lost(MartletError):
    """Another process of the run is gone. Those that waited for it all say the same."""


class Watch:
    """Enter it for as long as the processes work together. With one process it does nothing."""

    def __init__(self, run: Run, meeting: Meeting | None) -> None:
        self.run, self.meeting = run, meeting
        self.step = 0
        """The last step that this process has finished."""
        self.transfers_raise = True
        """A transfer that takes too long raises an error; those of NCCL wait on the device and never do."""
        self._cut_off, self._began = False, time.time()
        self._line: dict[str, Any] = {"host": socket.gethostname(), "pid": os.getpid(), "beat": 0}
        self._news, self._over, self._telling = threading.Event(), threading.Event(), threading.Lock()
        self._heard: dict[int, tuple[int, float]] = {}
        self._thread = threading.Thread(target=self._keep_telling, name="martlet-watch", daemon=True)

    def __enter__(self) -> Watch:
        if self.meeting is not None:
            import torch.distributed as dist

            self.transfers_raise = dist.get_backend() == "gloo"
            self._tell()
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.meeting is None:
            return
        lost = error is not None and is_broken_transfer(error)
        if lost:
            _hold_signals()  # whoever started the processes ends the rest of them; let this one speak first
        self._over.set()
        self._news.set()
        self._thread.join(timeout=2 * BEAT)
        if lost:
            self._tell(waited=True)
            sentence = self._who_is_lost()
            self._tell(error=sentence)
            _leave()
            raise Lost(sentence) from error
        self._tell(ended=True) if error is None else self._tell(error=told(error) or type(error).__name__)
        if error is not None:
            _leave()

    def finished(self, step: int) -> None:
        """Note the last step that this process has finished."""
        self.step = step
        self._news.set()

    # The line about this process

    def _tell(self, **more: Any) -> None:
        """Renew the line. What cannot be told is told by silence."""
        meeting, folder = self.meeting, os.environ.get(FILES)
        if meeting is None:
            return
        with self._telling:
            self._line |= {"step": self.step, "beat": self._line["beat"] + 1, "at": time.time(), **more}
            text = json.dumps(self._line)
            try:
                if not self._cut_off:  # torch complains at length each time
                    meeting.store.set(f"rank/{meeting.rank}", text)
            except RuntimeError:
                self._cut_off = True
            if folder:
                with suppress(OSError):
                    draft = Path(folder, f".{meeting.rank}.json")
                    draft.write_text(text, encoding="utf-8")
                    os.replace(draft, draft.with_name(f"{meeting.rank}.json"))

    def _keep_telling(self) -> None:
        while not self._over.is_set():
            self._news.wait(BEAT)
            self._news.clear()
            if self._over.is_set():
                return
            self._tell()
            if not self.transfers_raise and (sentence := self._overdue()):
                self._tell(error=sentence)
                print(f"error: {sentence}", file=sys.stderr, flush=True)
                self.run.record.end(Lost(sentence))
                os._exit(1)  # the main thread waits inside the device's library, where no error reaches it
            self._over.wait(BEAT / 10)  # many short steps are one piece of news

    # The lines of the others

    def _lines(self) -> dict[int, Line]:
        """Return what the others say, by rank; those that can no longer be asked are left out."""
        found: dict[int, Line] = {}
        if self.meeting is not None and not self._cut_off:
            try:
                for rank in set(range(self.meeting.size)) - {self.meeting.rank}:
                    if self.meeting.store.check([f"rank/{rank}"]):
                        found[rank] = json.loads(self.meeting.store.get(f"rank/{rank}"))
            except RuntimeError:
                self._cut_off = True
        return found

    def _overdue(self) -> str:
        """Return the sentence about processes that failed, or fell silent too long ago; empty if there are none."""
        now, lines, limit = time.monotonic(), self._lines(), self.meeting.timeout if self.meeting else 0.0
        for rank, line in lines.items():
            if self._heard.get(rank, (-1, now))[0] != line["beat"]:
                self._heard[rank] = (line["beat"], now)
        failed = {rank for rank in lines if "error" in lines[rank] and now - self._heard[rank][1] > PATIENCE}
        silent = {rank for rank in lines if "ended" not in lines[rank] and now - self._heard[rank][1] > limit}
        return self._sentence({rank: lines[rank] for rank in failed or silent}, set()) if failed or silent else ""

    def _who_is_lost(self) -> str:
        """Return the sentence about the processes that the others waited for in vain."""
        before, deadline = self._lines(), time.monotonic() + PATIENCE
        lines = before
        while time.monotonic() < deadline and lines and not all(_has_spoken(line) for line in lines.values()):
            time.sleep(BEAT / 10)
            lines = self._lines()
        if self.meeting is not None and not lines:
            rank, host = self.meeting.rank, self._line["host"]
            return f"Rank {rank} on {host} lost its connection to the others {_after(self.step)}. {self._way_on()}"
        failed = {rank for rank, line in lines.items() if "error" in line and "waited" not in line}
        lost = failed or {rank for rank, line in lines.items() if not _has_spoken(line)}
        alive = {rank for rank in lost & before.keys() if lines[rank]["beat"] > before[rank]["beat"]}
        return self._sentence({rank: lines[rank] for rank in lost}, alive)

    def _sentence(self, lost: Mapping[int, Line], alive: set[int]) -> str:
        told = []
        for rank, line in sorted(lost.items()):
            who = f"Rank {rank} on {line['host']} (process {line['pid']})"
            when = _after(max(line["step"], self.step))  # what this process has finished, all took part in
            if "error" in line:
                told.append(f"{who} failed {when}: {line['error'].rstrip('.')}")
            elif rank in alive:
                told.append(f"{who} hangs, or is busy with something else, {when}: the others waited for it in vain")
            else:
                told.append(f"{who} is gone or stopped {when}, or its network is")
        what = ". ".join(told) or f"The processes lost their connections to one another {_after(self.step)}"
        limit = f" (--ddp_timeout {self.meeting.timeout:g})" if alive and self.meeting else ""
        return f"{what}{limit}. {self._way_on()}"

    def _way_on(self) -> str:
        last = find_last(self.run.folder, since=self._began - 1) if self.run.folder else None
        if last is None:
            return "There is no checkpoint of this run yet."
        more = flags_to_continue(last, only_model=self.run.config[TrainerArguments].save_only_model)
        return f"To continue from the last checkpoint, add {more} to the same command."


def _after(step: int) -> str:
    return f"after step {step}" if step else "before its first step ended"


def _has_spoken(line: Line) -> bool:
    return not line.keys().isdisjoint(("waited", "error", "ended"))


def is_broken_transfer(error: BaseException | None) -> bool:
    """Tell whether an error, or what caused it, is a transfer between processes that failed."""
    from torch.distributed import DistError

    while error is not None:
        if isinstance(error, DistError) or (isinstance(error, RuntimeError) and "/gloo/" in str(error)):
            return True
        error = error.__cause__
    return False


def _leave() -> None:
    """Close the connections to the others, so that none of them waits for this process."""
    import torch.distributed as dist

    if dist.is_initialized() and dist.get_backend() == "gloo":
        part()
    atexit.unregister(part)  # NCCL would wait for the others; its connections end with the process


def _hold_signals() -> None:
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)


class TellSteps(TrainerCallback):
    """Note each step that is finished."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.watch.finished(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.watch.finished(state.global_step)
