"""``logging.jsonl``: the log events of a run as a file for programs."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class EventLog:
    """``logging.jsonl``: one JSON object for each log event, in the file as soon as it happened."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._at_start: list[set[str]] = []
        self._start = -1
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)

    def rewind(self, step: int) -> None:
        """Drop what is later than ``step``: a run that resumes there writes it again.

        A run that starts anew in a folder with a log keeps the old one as ``logging-1.jsonl``.
        """
        lines = self.path.read_bytes().splitlines(keepends=True)
        if not lines:
            return
        if step == 0:
            taken = 1
            while (old := self.path.with_name(f"{self.path.stem}-{taken}{self.path.suffix}")).exists():
                taken += 1
            os.rename(self.path, old)
            kept: list[bytes] = []
        else:
            kept = [line for line in lines if self._belongs(line, step)]
        if kept != lines:
            temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}")
            temporary.write_bytes(b"".join(kept))
            os.replace(temporary, self.path)
            os.close(self._file)
            self._file = os.open(self.path, os.O_RDWR | os.O_APPEND)

    def _belongs(self, line: bytes, step: int) -> bool:
        try:
            record = json.loads(line)
            if not line.endswith(b"\n") or record["step"] > step:
                return False
        except (ValueError, KeyError, TypeError):
            return False  # cut off when the run was killed
        if record["step"] == step:
            self._start = step
            self._at_start.append(set(record))
        return True

    def append(self, step: int, total: int, values: Mapping[str, Any], facts: Mapping[str, float]) -> None:
        if step == self._start and any(values.keys() <= known for known in self._at_start):
            return  # an evaluation at the start of a resumed run, written before the interruption
        record = {"step": step, "global_step/max_steps": f"{step}/{total}"}
        record |= {key: _json_value(value) for key, value in values.items()}
        record |= {key: round(value, 4) for key, value in facts.items()}
        size = os.fstat(self._file).st_size
        data = (json.dumps(record, ensure_ascii=False) + "\n").encode("utf-8")
        try:
            if os.write(self._file, data) < len(data):
                raise OSError("the disk took only a part of the line")
        except OSError:
            os.ftruncate(self._file, size)
            raise

    def close(self) -> None:
        os.close(self._file)


def _json_value(value: Any) -> Any:
    """Return ``value``, or null for the numbers that JSON does not have."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, (bool, int, float, str)) or value is None else str(value)
