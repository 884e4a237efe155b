"""A plugin for benchmarks: write down when each step ended, in the first process."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from martlet import Callback, hookimpl


class Clock:
    """Times of ``time.perf_counter``, in ``times.txt`` of the run's folder."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.times.append(time.perf_counter())

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if args.process_index == 0:
            Path(args.output_dir, "times.txt").write_text(" ".join(map(repr, self.times)))


@hookimpl
def provide_callbacks() -> Iterator[Callback]:
    yield Callback("clock", Clock)
