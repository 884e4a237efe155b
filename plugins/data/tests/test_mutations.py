"""Damaged files: whatever happens to their bytes, rows are used as they stand in the file, dropped with a reason, or
the file is refused."""

from __future__ import annotations

import csv
import gzip
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from martlet import DataError
from martlet_data.api import load_rows
from martlet_data.opening import open_stream

ROWS = [{"query": f"What is {k}?", "response": f"It is {k}, é 中 \U0001f426."} for k in range(12)]


def as_cells(delimiter):
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(ROWS[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(ROWS)
    return text.getvalue().encode()


def as_table(write):
    file = io.BytesIO()
    write(pa.Table.from_pylist(ROWS), file)
    return file.getvalue()


def as_arrow(table, file):
    with pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table, max_chunksize=5)


LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()
FILES = {
    "jsonl": LINES,
    "json": json.dumps(ROWS, indent=1).encode(),
    "csv": as_cells(","),
    "tsv": as_cells("\t"),
    "txt": "".join(row["response"] + "\n" for row in ROWS).encode(),
    "jsonl.gz": gzip.compress(LINES),
    "jsonl.zst": zstandard.compress(LINES),
    "parquet": as_table(lambda table, file: pq.write_table(table, file, row_group_size=5)),
    "arrow": as_table(as_arrow),
}


SIGNS = (b"\0", b'"', b"\n", b"{", b",", b"\xff", b"\r", b"[", b"\xef\xbb\xbf")


def edits(length):
    """Return a strategy for one to four edits: where, how many bytes go, and what comes instead.

    A number instead of bytes repeats so many of those that stand there.
    """
    gone = st.sampled_from((0, 0, 0, 1, 1, 1, 1, 3, 20, length))
    new = st.binary(max_size=2) | st.sampled_from(SIGNS) | st.sampled_from((1, 8, 60))
    return st.lists(st.tuples(st.integers(0, length - 1), gone, new), min_size=1, max_size=4)


def mutated(content, changes):
    """Change, drop, repeat, insert or cut off a few bytes."""
    found = bytearray(content)
    for place, gone, new in changes:
        found[place : place + gone] = found[place : place + new] if isinstance(new, int) else new
    return bytes(found)


def pairs_in(ending, content):
    """Read a file in the plainest way there is: every pair of texts that stands in it."""
    if ending.endswith((".gz", ".zst")):
        content = (
            gzip.decompress(content) if ending.endswith("gz") else zstandard.ZstdDecompressor().decompress(content)
        )
        ending = "jsonl"
    if ending in ("parquet", "arrow"):
        source = io.BytesIO(content)
        table = pq.read_table(source) if ending == "parquet" else pa.ipc.open_stream(source).read_all()
        return [tuple(row.values()) for k in range(len(table)) for row in _row(table, k)]
    if ending == "txt":
        lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
        return [(line.decode(errors="replace").removesuffix("\r"),) for line in lines]
    if ending in ("csv", "tsv"):
        lines = list(io.StringIO(content.decode("utf-8-sig", "surrogateescape"), newline=""))
        delimiter = "," if ending == "csv" else "\t"
        # From each line on: where quotes are damaged, a reader takes up again at one of them.
        return {tuple(cells) for at in range(len(lines)) for cells in csv.reader(lines[at:], delimiter=delimiter)}
    try:
        found = json.loads(content.decode("utf-8-sig")) if ending == "json" else None
        rows = found if isinstance(found, list) else [found]
    except ValueError:
        rows = None
    if not rows or rows == [None]:
        rows = [_parsed(line) for line in content.removeprefix(b"\xef\xbb\xbf").split(b"\n")]
    return [tuple(value for value in row.values() if isinstance(value, str)) for row in rows if isinstance(row, dict)]


def _row(table, number):
    row = table.slice(number, 1)
    try:
        row.validate(full=True)  # reading one that is not valid may end the process
        return row.to_pylist()
    except (ValueError, pa.ArrowException):
        return []


def _parsed(line):
    try:
        return json.loads(line)
    except ValueError:
        return None


def check(run, ending, content, path):
    path.write_bytes(content)
    try:
        found = load_rows(run, [str(path)])
    except DataError as error:
        assert str(path) in str(error)
        return 0
    (ledger,) = found.ledger.datasets
    assert ledger.balanced()
    assert ledger.read == len(found) + ledger.lost == ledger.selected
    assert len(found.ledger.rows) == ledger.lost
    assert all(row.reason and row.id.line >= 1 and row.id.file == str(path) for row in found.ledger.rows)
    used = [tuple(one["content"] for one in row["messages"]) for row in found]
    if set(used) - ORIGINAL:
        there = [set(pair) for pair in pairs_in(ending, content)]
        assert all(any(set(texts) <= pair for pair in there) for texts in used)
    streamed = open_stream(run, str(path), "--val_dataset", None).stream.stream()
    assert sum(1 for _ in streamed) == ledger.read
    return len(used)


ORIGINAL = {tuple(row.values()) for row in ROWS} | {(row["response"],) for row in ROWS}


def batter(run, ending, path, count):
    used = []

    @settings(max_examples=count, database=None, derandomize=True)
    @given(edits(len(FILES[ending])))
    def one(changes):
        used.append(check(run, ending, mutated(FILES[ending], changes), path))

    one()
    assert len(used) >= count
    assert any(used)
    assert not all(rows == len(ROWS) for rows in used)


@pytest.fixture
def run(data_run):
    return data_run(max_dropped=1.0)


@pytest.mark.parametrize("ending", FILES)
def test_a_whole_file_is_used_whole(ending, run, tmp_path):
    assert check(run, ending, FILES[ending], tmp_path / f"rows.{ending}") == len(ROWS)


@pytest.mark.parametrize("ending", FILES)
def test_a_damaged_file_is_never_used_silently(ending, run, tmp_path):
    batter(run, ending, tmp_path / f"rows.{ending}", 200)


@pytest.mark.long
@pytest.mark.parametrize("ending", FILES)
def test_ten_thousand_damaged_files_are_never_used_silently(ending, run, tmp_path):
    batter(run, ending, tmp_path / f"rows.{ending}", 10_000)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ((1, 1, b"x"), b"axcd"),
        ((1, 2, b""), b"ad"),
        ((1, 0, b"xy"), b"axybcd"),
        ((1, 0, 2), b"abcbcd"),
        ((1, 4, b""), b"a"),
    ],
)
def test_an_edit_changes_drops_inserts_repeats_or_cuts_off(change, found):
    assert mutated(b"abcd", [change]) == found
