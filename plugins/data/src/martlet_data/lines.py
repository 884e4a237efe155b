"""JSON Lines: find the lines once, parse each when it is asked for."""

from __future__ import annotations

import json
import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from martlet.errors import DataError

from .rows import FAULT, LINE, Row, Table

if TYPE_CHECKING:
    from martlet.run import Run

_BLOCK = 1 << 24
_BOM = b"\xef\xbb\xbf"
_MAGIC = {
    b"PAR1": "a Parquet file; name it .parquet",
    b"ARROW1": "an Arrow file; name it .arrow",
    b"\x1f\x8b": "gzip; unpack it first",
    b"\x28\xb5\x2f\xfd": "Zstandard; unpack it first",
    b"PK\x03\x04": "a zip archive; unpack it first",
    b"\xff\xfe": "UTF-16 text; convert it: iconv -f UTF-16 -t UTF-8",
    b"\xfe\xff": "UTF-16 text; convert it: iconv -f UTF-16 -t UTF-8",
}


def read_jsonl(path: str, *, subset: str, split: str, run: Run | None) -> JsonLines:
    """Return the rows of a JSON Lines file. ``DataError`` when it is empty or not text."""
    return JsonLines(Path(path))


def check_text(path: Path) -> None:
    """Raise ``DataError`` for a file that cannot be read, is empty or is no text."""
    try:
        with path.open("rb") as file:
            head = file.read(1 << 16)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from error
    if not head.strip(_BOM + b" \t\r\n") and len(head) < 1 << 16:
        raise DataError(f"{path} is empty; it must hold at least one row.")
    for magic, what in _MAGIC.items():
        if head.startswith(magic):
            raise DataError(f"{path} is not UTF-8 text but {what}.")
    if b"\0" in head:
        raise DataError(f"{path} is not text: byte {head.index(0)} is zero. Check that the file is what its name says.")


class JsonLines(Table):
    """Rows of a file, parsed on demand. Blank lines are no rows. Pickles as its path and offsets."""

    def __init__(self, path: Path) -> None:
        self.path = path
        check_text(path)
        self._map: mmap.mmap | None = None
        self._starts, self._ends, self._numbers = self._find()
        if not len(self._starts):
            raise DataError(f"{path} is empty; it must hold at least one row.")

    def __len__(self) -> int:
        return len(self._starts)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_map": None}

    def _open(self) -> mmap.mmap:
        if self._map is None:
            with self.path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return self._map

    def _find(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return where each row starts and ends, and its line number."""
        data = self._open()
        found = []
        for begin in range(0, len(data), _BLOCK):
            block = np.frombuffer(data[begin : begin + _BLOCK], np.uint8)
            found.append(np.flatnonzero(block == 10) + begin)
        ends = np.concatenate(found)
        if not len(ends) or ends[-1] != len(data) - 1:
            ends = np.append(ends, len(data))
        starts = np.concatenate([[0], ends[:-1] + 1])
        if data[:3] == _BOM:
            starts[0] = 3
        numbers = np.arange(1, len(starts) + 1)
        filled = ends > starts
        firsts = np.frombuffer(data, np.uint8)[np.minimum(starts, len(data) - 1)]
        for k in np.flatnonzero(filled & (firsts <= 32)):
            filled[k] = not data[starts[k] : ends[k]].isspace()
        return starts[filled], ends[filled], numbers[filled]

    def take(self, indices: Sequence[int]) -> list[Row]:
        data = self._open()
        places = zip(self._starts[indices].tolist(), self._ends[indices].tolist(), strict=True)
        numbers = self._numbers[indices].tolist()
        return [parse_line(data[start:end], number) for (start, end), number in zip(places, numbers, strict=True)]


def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of JSON; ``ValueError`` where a key stands in it twice, of which one would be lost."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} stands twice in an object")
    return found


_decode = json.JSONDecoder(object_pairs_hook=without_repeats).decode


def parse_line(line: bytes, number: int) -> Row:
    """Parse one line; a fault is part of the row that is returned."""
    try:
        row = _decode(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        detail = f"not UTF-8: byte 0x{line[error.start]:02x} at column {error.start + 1}"
        return {LINE: number, FAULT: ("not UTF-8", detail)}
    except json.JSONDecodeError as error:
        return {LINE: number, FAULT: ("malformed JSON", f"{error.msg} at column {error.colno}")}
    except (ValueError, RecursionError) as error:
        return {LINE: number, FAULT: ("malformed JSON", str(error).partition(";")[0])}
    if not isinstance(row, dict):
        return {LINE: number, FAULT: ("not an object", f"the line holds a {type(row).__name__}, not an object")}
    row[LINE] = number
    return row
