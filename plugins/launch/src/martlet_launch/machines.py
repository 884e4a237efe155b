"""What the machines of a run tell one another while it lasts and when it ends.

Each keeps a line about itself in the store of machine 0, and reads those of the others. A thread does so: a machine
that does not answer holds up nothing here.
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import asdict
from typing import Any

from torch.distributed import DistError, Store  # type: ignore[attr-defined]

from .ending import GRACE, Cause

BEAT = 0.5
"""Seconds between two looks at the lines of the others."""
Line = dict[str, Any]


class Machines:
    """The machines of a run; one alone has nothing to tell."""

    def __init__(self, store: Store, rank: int, count: int, wait: float) -> None:
        self.store, self.rank, self.count, self.wait = store, rank, count, wait
        self.gone = False
        """Machine 0 has ended, or closed its connection."""
        self._mine: Line = {"beat": 0}
        self._told: Line = {}
        """The line about itself as the others can read it."""
        self._lines: dict[int, Line] = {number: {"beat": 0} for number in range(count) if number != rank}
        self._heard = dict.fromkeys(self._lines, time.monotonic())
        self._done = 0.0
        self._thread = threading.Thread(target=self._exchange, name="martlet-machines", daemon=True)

    def first(self, text: str) -> str:
        """Return what machine 0 gives here, as soon as all have met."""
        if self.count == 1:
            return text
        if self.rank == 0:
            self.store.set("first", text)
        found = self.store.get("first").decode()
        self._thread.start()
        return found

    def alarm(self) -> None:
        """Tell the others that a rank has failed here: theirs may wait for it."""
        self._mine["failed"] = True

    def alarmed(self) -> bool:
        """Tell whether a rank has failed on another machine, or one of them has fallen silent for too long."""
        return self.gone or bool(self.silent()) or any(line.get("failed") for line in self._lines.values())

    def silent(self) -> list[int]:
        """Return the machines that have not been heard of for as long as anybody waits."""
        late = time.monotonic() - self.wait
        return [number for number, line in self._lines.items() if self._heard[number] < late and not line.get("done")]

    def all_done(self) -> bool:
        """Tell whether the ranks of all machines have ended, as those of this one: machine 0 serves them until then.

        Not before the others can read that they have here: one that left without a word would be waited for.
        """
        self._mine["done"] = True
        lines = (self._told, *self._lines.values()) if self._lines else ()
        return self.alarmed() or all(line.get("done") for line in lines)

    def agree(self, mine: Cause) -> Cause:
        """Return what came first on any machine, as far as they say so within a moment."""
        self._mine |= {"failed": True, "cause": asdict(mine)}
        deadline = time.monotonic() + 2 * GRACE

        def wait_for(name: str) -> None:
            while (
                not all(name in line for line in self._lines.values()) and time.monotonic() < deadline and not self.gone
            ):
                time.sleep(BEAT / 5)

        wait_for("cause")
        self._mine["agreed"] = True
        if self.rank == 0:
            wait_for("agreed")  # the store goes with this process
        elif self._lines:
            time.sleep(2 * BEAT)  # so that this is read
        found = [Cause(**line["cause"]) for line in self._lines.values() if "cause" in line]
        return min([mine, *found], key=lambda cause: cause.at)

    def reason(self, host: str) -> str:
        """Say why the ranks of this machine, which did nothing wrong, were ended."""
        if self.gone:
            what = "The launcher on machine 0 has ended, or cannot be reached any more"
        elif silent := self.silent():
            what = f"Machine {', '.join(map(str, silent))} has not been heard of for {self.wait:g} s"
        else:
            what = "Another machine has failed and did not say why"
        return f"{what}; the processes on {host} were stopped."

    def _exchange(self) -> None:
        while True:
            try:
                self._mine["beat"] += 1
                told = dict(self._mine)
                self.store.set(f"line/{self.rank}", json.dumps(told))
                self._told = told
                for number, line in self._lines.items():
                    if self.store.check([f"line/{number}"]):
                        self._lines[number] = json.loads(self.store.get(f"line/{number}"))
                    if self._lines[number]["beat"] != line["beat"]:
                        self._heard[number] = time.monotonic()
            except DistError:
                self.gone = True
                return
            time.sleep(BEAT)
