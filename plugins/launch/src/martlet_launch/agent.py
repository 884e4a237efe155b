"""The ranks of this machine. torch's elastic agent starts them; how they end is decided here.

torch sends SIGTERM to every rank as soon as one has ended with an error, and kills them half a minute after a Ctrl-C.
Here a signal is passed on once and the ranks have as long as they need; where one of them fails, the others have a
moment to say what they know.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, cast

from torch.distributed.elastic.agent.server.api import RunResult, WorkerGroup, WorkerSpec, WorkerState
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs

from .ending import GRACE, Ended, Places, is_stop
from .machines import Machines
from .meeting import Meeting
from .rank import SIGNALS

ONE = 1.0
"""Seconds in which two signals are one: ``timeout``, say, sends its own to the process and to its group."""


class Ranks(LocalElasticAgent):
    """Starts the ranks of this machine, passes signals on, and notes how each of them ended."""

    machines: Machines

    def __init__(self, spec: WorkerSpec, places: Places, prepare: Callable[[Machines, list[int]], None]) -> None:
        super().__init__(spec, DefaultLogsSpecs(str(places.files / "torch")))
        self.places, self.prepare = places, prepare
        self.pids: dict[int, int] = {}  # by rank
        self.ended: dict[int, Ended] = {}
        self.signals: list[int] = []
        self.deadline: float | None = None
        self._last_signal = -ONE

    def _start_workers(self, worker_group: WorkerGroup) -> dict[int, Any]:
        self.machines = cast(Meeting, worker_group.spec.rdzv_handler).machines
        self.prepare(self.machines, [worker.global_rank for worker in worker_group.workers])
        ignored = {number for number in SIGNALS if signal.getsignal(number) == signal.SIG_IGN}  # by nohup, say
        # The ranks inherit the mask: a signal that comes while they start waits until they can take it.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            started: dict[int, Any] = super()._start_workers(worker_group)
            self.pids = {worker.global_rank: started[worker.local_rank] for worker in worker_group.workers}
            for number in SIGNALS:
                signal.signal(number, signal.SIG_IGN if number in ignored else self._pass_on)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        return started

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        """Pass a signal on to every rank. Ranks lead sessions of their own, so no terminal has told them already."""
        before, self._last_signal = self._last_signal, time.monotonic()
        if self._last_signal - before < ONE:
            return
        self.signals.append(signal.SIGTERM if number == signal.SIGHUP else number)
        for rank in self.pids.keys() - self.ended.keys():
            os.kill(self.pids[rank], self.signals[-1])
        if len(self.signals) > 1:
            self._end_within(GRACE)

    def _end_within(self, seconds: float) -> None:
        self.deadline = min(self.deadline or time.monotonic() + seconds, time.monotonic() + seconds)

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        """Wait until every rank has ended; torch then finds nothing to end any more."""
        self._look()
        well = not self._failed()
        late = self.deadline is not None and time.monotonic() > self.deadline
        if len(self.ended) < len(self.pids) or (well and not late and not self.machines.all_done()):
            return RunResult(WorkerState.HEALTHY)
        result: RunResult = super()._monitor_workers(worker_group)
        return result

    def _exit_barrier(self) -> None:
        """Do nothing: all machines are done, and torch would wait where no signal is heard."""

    def _look(self) -> None:
        """Note who has ended, and put an end to the others once their time is up."""
        late = self.deadline is not None and time.monotonic() > self.deadline
        for rank in sorted(self.pids.keys() - self.ended.keys()):
            # WNOWAIT: the process keeps its id, so that no signal can meet another process.
            found = os.waitid(os.P_PID, self.pids[rank], os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if found is not None:
                exited = found.si_code == os.CLD_EXITED
                self.ended[rank] = Ended(found.si_status if exited else -found.si_status)
                if not exited:
                    os.killpg(self.pids[rank], signal.SIGKILL)  # its data workers, which it could not end
            elif late:
                os.killpg(self.pids[rank], signal.SIGKILL)
                self.ended[rank] = Ended(-signal.SIGKILL, by_us=True)
        if self._failed() or self._gave_up():
            self.machines.alarm()
            self._end_within(GRACE)
        elif self.machines.alarmed():
            self._end_within(GRACE)

    def _gave_up(self) -> bool:
        """Tell whether a rank has ended at a signal with nothing to save: one that missed it would go on alone."""
        ends = [(one.status, self.places.last_words(rank)) for rank, one in self.ended.items()]
        return any(is_stop(status, said, self.signals) and not said.get("error") for status, said in ends)

    def _failed(self) -> bool:
        """Tell whether a rank has failed: it ended with an error, or has said that it is about to."""
        said = {rank: self.places.last_words(rank) for rank in self.pids}
        statuses = {rank: facts["status"] for rank, facts in said.items() if facts}
        statuses |= {rank: one.status for rank, one in self.ended.items()}
        return any(status and not is_stop(status, said[rank], self.signals) for rank, status in statuses.items())
