"""Files that are read as a whole: JSON documents and CSV."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from martlet.errors import DataError

from .layouts import ROW_COLUMNS
from .lines import JsonLines, check_text, parse_line, without_repeats
from .rows import FAULT, Held, Row

if TYPE_CHECKING:
    from martlet.run import Run

    from .rows import RowTable


def read_json(path: str, *, subset: str, split: str, run: Run | None) -> RowTable:
    """Return the rows of a JSON document.

    It may be an array of rows; an object with one array of rows in it, or rows by name; or, in spite of its
    ending, JSON Lines. ``DataError`` names line and column of a fault.
    """
    file = Path(path)
    check_text(file)
    raw = file.read_bytes()
    try:
        document = json.loads(raw.decode("utf-8-sig"), object_pairs_hook=without_repeats)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{file}:{line}: not UTF-8 text (byte 0x{raw[error.start]:02x}); convert it with iconv, say."
        ) from error
    except json.JSONDecodeError as error:
        if FAULT not in parse_line(raw.lstrip(b"\xef\xbb\xbf \t\r\n").partition(b"\n")[0], 1):
            return JsonLines(file)
        raise DataError(f"{file}:{error.lineno}: not valid JSON at column {error.colno}: {error.msg}.") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: not a usable JSON document ({error}).") from error
    rows = _rows_of(document)
    if rows is None:
        raise DataError(f"{file}: no rows are found in it; give an array of objects, or one object a line as .jsonl.")
    if not rows:
        raise DataError(f"{file} is empty; it must hold at least one row.")
    return Held([_as_row(row) for row in rows], range(1, len(rows) + 1))


def _rows_of(document: Any) -> list[Any] | None:
    """Find the rows: an array; an object that is a row, that names rows, or that has one array of objects."""
    if isinstance(document, list):
        return document
    if not isinstance(document, dict):
        return None
    if ROW_COLUMNS & document.keys():
        return [document]
    values = list(document.values())
    if all(isinstance(value, dict) for value in values):
        return values
    arrays = [value for value in values if isinstance(value, list) and value and isinstance(value[0], dict)]
    return arrays[0] if len(arrays) == 1 else None


def _as_row(row: Any) -> Row:
    if isinstance(row, dict):
        return row
    return {FAULT: ("not an object", f"the row is a {type(row).__name__}, not an object")}


def read_csv(path: str, *, subset: str, split: str, run: Run | None) -> RowTable:
    """Return the rows of a CSV file, every value as text. The first line names the columns."""
    file = Path(path)
    check_text(file)
    rows: list[Row] = []
    lines: list[int] = []
    before = csv.field_size_limit(sys.maxsize)
    try:
        with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
            reader = csv.reader(text, strict=True)
            head = _header(file, reader)
            while True:
                line = reader.line_num + 1
                try:
                    cells = next(reader)
                except StopIteration:
                    break
                except csv.Error as error:
                    if "unexpected end" in str(error):
                        raise DataError(f"{file}:{line}: a quote is opened here and never closed.") from error
                    rows.append({FAULT: ("malformed CSV", str(error))})
                else:
                    if not cells:
                        continue
                    rows.append(_csv_row(head, cells))
                lines.append(line)
    finally:
        csv.field_size_limit(before)
    if not rows:
        raise DataError(f"{file} is empty: it has a header, and no row under it.")
    return Held(rows, lines)


def _header(file: Path, reader: Any) -> list[str]:
    try:
        head = next(reader)
    except csv.Error as error:
        raise DataError(f"{file}:1: the header cannot be read: {error}.") from error
    if not all(_is_utf8(name) for name in head):
        raise DataError(f"{file}:1: the header is not UTF-8 text; convert the file with iconv, say.")
    names = [name.strip() for name in head]
    if twice := [name for name in names if names.count(name) > 1]:
        raise DataError(f"{file}:1: column {twice[0]!r} stands twice in the header; rename one.")
    return names


def _csv_row(head: list[str], cells: list[str]) -> Row:
    if len(cells) != len(head):
        detail = f"{len(cells)} fields, and the header has {len(head)}"
        return {FAULT: ("wrong number of fields", detail)}
    for name, cell in zip(head, cells, strict=True):
        if not cell.isascii() and not _is_utf8(cell):
            return {FAULT: ("not UTF-8", f"column {name!r} is not UTF-8 text")}
    return dict(zip(head, cells, strict=True))


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
