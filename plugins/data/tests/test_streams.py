"""Files that are read from front to end: the same rows as by number, resumed anywhere, and in bounded memory."""

from __future__ import annotations

import gc
import gzip
import io
import json
import pickle
import random
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from martlet import DataError
from martlet_data.api import load_rows
from martlet_data.opening import open_dataset, open_stream
from martlet_data.packed import opened

PACKS = {"": lambda raw: raw, ".gz": gzip.compress, ".zst": zstandard.compress}


def pairs(count):
    return [{"query": f"q{k}", "response": f'a {k}, "é"\nand 中\r\n'} for k in range(count)]


def cells(rows, delimiter, end):
    quoted = [delimiter.join('"' + cell.replace('"', '""') + '"' for cell in row.values()) for row in rows]
    return end.join([delimiter.join(rows[0]), *quoted, ""]).encode()


def table_bytes(rows, ending):
    file = io.BytesIO()
    table = pa.Table.from_pylist(rows)
    if ending == "parquet":
        pq.write_table(table, file, row_group_size=7)
    elif ending == "arrow":
        with pa.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table, max_chunksize=7)
    else:
        with pa.ipc.new_file(file, table.schema) as stream:
            stream.write_table(table, max_chunksize=7)
    return file.getvalue()


ROWS = pairs(20)
LINES = b"\xef\xbb\xbf" + b"\n \n".join(json.dumps(row).encode() for row in ROWS)
CONTENTS = {
    "jsonl": LINES,
    "txt": "eins\r\n\nzwei\n中文\r\ndrei".encode(),
    "csv": cells(ROWS, ",", "\r\n"),
    "csv-bom": b"\xef\xbb\xbf" + cells(ROWS, ",", "\r"),
    "tsv": cells(ROWS, "\t", "\n") + b"\n\n",
    "json": json.dumps(ROWS).encode(),
    "parquet": table_bytes(ROWS, "parquet"),
    "arrow": table_bytes(ROWS, "arrow"),
    "arrow-file": table_bytes(ROWS, "arrow-file"),
}
FILES = [
    (name, pack)
    for name in CONTENTS
    for pack in PACKS
    if not pack or name.partition("-")[0] not in ("parquet", "arrow")
]


def written(folder, name, pack=""):
    path = folder / f"rows.{name.partition('-')[0]}{pack}"
    path.write_bytes(PACKS[pack](CONTENTS[name]))
    return str(path)


@pytest.mark.parametrize(("name", "pack"), FILES)
def test_a_stream_gives_the_rows_of_the_table_and_goes_on_from_anywhere(name, pack, tmp_path, data_run):
    path, run = written(tmp_path, name, pack), data_run()
    table = open_dataset(run, path, "--dataset", None).table
    stream = pickle.loads(pickle.dumps(open_stream(run, path, "--dataset", None).stream))
    found = list(stream.stream())
    assert [row for _, row in found] == table.take(range(len(table)))
    assert len(found) == (4 if name == "txt" else 20)
    for number in (0, 1, len(found) // 2, len(found) - 2, len(found) - 1):
        position = tuple(json.loads(json.dumps(found[number][0])))
        assert list(stream.stream(position)) == found[number + 1 :]


def test_files_of_a_folder_are_one_stream(tmp_path, data_run, write_jsonl):
    for number in range(3):
        write_jsonl(tmp_path / f"train-{number}.jsonl", [{"query": f"{number} {k}", "response": "a"} for k in range(4)])
    opened_stream = open_stream(data_run(), str(tmp_path), "--dataset", None)
    found = list(opened_stream.stream.stream())
    assert [row["query"] for _, row in found] == [f"{n} {k}" for n in range(3) for k in range(4)]
    assert [position[0] for position, _ in found] == [n for n in range(3) for _ in range(4)]
    assert list(opened_stream.stream.stream(found[5][0])) == found[6:]
    assert [Path(file).name for file in opened_stream.files] == [f"train-{n}.jsonl" for n in range(3)]


@pytest.fixture
def run(data_run):
    return data_run(max_dropped=1.0)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=60), cut=st.integers(0, 60), ending=st.sampled_from(["jsonl", "csv", "txt"]))
def test_any_bytes_give_the_same_rows_by_number_and_in_order(content, cut, ending, tmp_path, run):
    path = tmp_path / f"any.{ending}"
    path.write_bytes(content[:cut] + b'\n{"query": "a"}\n,\n' + content[cut:])
    try:
        table = open_dataset(run, str(path), "--dataset", None).table
    except DataError as error:
        with pytest.raises(DataError) as again:
            list(open_stream(run, str(path), "--dataset", None).stream.stream())
        assert str(again.value) == str(error)
        return
    rows = [row for _, row in open_stream(run, str(path), "--dataset", None).stream.stream()]
    assert repr(rows) == repr(table.take(range(len(table))))  # a NaN is not equal to itself


@pytest.mark.parametrize("pack", PACKS)
def test_packed_bytes_are_opened_at_any_offset(pack, tmp_path):
    content = random.Random(0).randbytes(300_000)
    path = tmp_path / f"bytes.bin{pack}"
    path.write_bytes(PACKS[pack](content))
    for start in (0, 1, 65_536, 299_999, 300_000):
        with opened(path, start) as file:
            assert file.read() == content[start:]


@pytest.mark.parametrize("pack", [".gz", ".zst"])
def test_several_packed_parts_are_one_file(pack, tmp_path, data_run):
    path = tmp_path / f"rows.jsonl{pack}"
    path.write_bytes(PACKS[pack](LINES + b"\n") + PACKS[pack](LINES.removeprefix(b"\xef\xbb\xbf")))
    assert len(load_rows(data_run(), [str(path)])) == 40


@pytest.mark.parametrize("pack", [".gz", ".zst"])
def test_processes_share_the_unpacked_copy_which_goes_with_the_rows(pack, tmp_path, data_run, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    path = tmp_path / f"rows.jsonl{pack}"
    path.write_bytes(PACKS[pack](b"\n".join(json.dumps(row).encode() for row in pairs(700))))
    found = load_rows(data_run(dataset_num_proc=2), [str(path)])
    assert [row["messages"][0]["content"] for row in found] == [f"q{k}" for k in range(700)]
    gc.collect()
    assert not list(tmp_path.glob("martlet-*"))


@pytest.mark.parametrize("pack", [".gz", ".zst"])
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda packed: packed[: len(packed) // 2], "ends too early.*cut off"),
        (lambda packed: b"not packed at all\n" * 9, "not a readable (gzip|Zstandard) file"),
        (lambda packed: b"", "is empty"),
    ],
    ids=["cut off", "not packed", "empty"],
)
def test_a_packed_file_that_is_none_is_refused(pack, damage, said, tmp_path, data_run):
    path = tmp_path / f"rows.jsonl{pack}"
    path.write_bytes(damage(PACKS[pack](LINES)))
    with pytest.raises(DataError, match=f"{path}.*{said}"):
        load_rows(data_run(), [str(path)])


@pytest.mark.parametrize(("pack", "right"), [(".gz", ".zst"), (".zst", ".gz"), ("", ".gz"), ("", ".zst")])
def test_another_packing_than_the_ending_says_is_refused(pack, right, tmp_path, data_run):
    path = tmp_path / f"rows.jsonl{pack}"
    path.write_bytes(PACKS[right](LINES))
    with pytest.raises(DataError, match="not a readable" if pack else f"let its name end in {right}"):
        load_rows(data_run(), [str(path)])


def bomb(pack, size):
    """Return the packed form of many zeros, made without holding them."""
    zeros = bytes(1 << 20)
    if pack == ".zst":
        packer = zstandard.ZstdCompressor().compressobj()
        return b"".join(packer.compress(zeros) for _ in range(size >> 20)) + packer.flush()
    file = io.BytesIO()
    with gzip.GzipFile(fileobj=file, mode="wb", compresslevel=1) as packed:
        for _ in range(size >> 20):
            packed.write(zeros)
    return file.getvalue()


PROGRAM = """
import resource, sys
import martlet
from martlet import DataError
from martlet_data.api import load_rows
from martlet_data.opening import open_stream
run = martlet.prepare(roles=("template", "data"))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    if sys.argv[2] == "table":
        load_rows(run, [sys.argv[1]])
    else:
        for _ in open_stream(run, sys.argv[1], "--dataset", None).stream.stream():
            pass
except DataError as error:
    print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""


@pytest.mark.parametrize("pack", [".gz", ".zst"])
@pytest.mark.parametrize("how", ["stream", pytest.param("table", marks=pytest.mark.long)])
def test_a_decompression_bomb_is_refused_in_bounded_memory(pack, how, tmp_path):
    path = tmp_path / f"rows.jsonl{pack}"
    path.write_bytes(b"".join((PACKS[pack](LINES + b"\n"), bomb(pack, 5 << 26))))
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(path), how], capture_output=True, text=True, check=True)
    said, grown = done.stdout.strip().rsplit("\n", 1)
    assert "unpacks to more than 200 times its size" in said
    assert int(grown) < 250
    assert not list(tmp_path.glob("martlet-*"))


def test_a_table_that_counts_more_rows_than_it_has_bytes_is_refused(tmp_path, data_run):
    same = pa.array(["a"]).dictionary_encode().take(pa.array([0] * 2_000_000, pa.int8()))
    pq.write_table(pa.table({"query": same, "response": same}), tmp_path / "rows.parquet", compression="zstd")
    with pytest.raises(DataError, match="counts 2000000 rows in fewer bytes"):
        load_rows(data_run(), [str(tmp_path / "rows.parquet")])


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
def test_a_table_that_unpacks_without_end_is_refused(ending, tmp_path, data_run, monkeypatch):
    monkeypatch.setattr("martlet_data.packed._FREE", 1 << 22)
    path = tmp_path / f"rows.{ending}"
    table = pa.table({"query": [f"{k}" + "x" * (1 << 16) for k in range(100)]})
    if ending == "parquet":
        pq.write_table(table, path, compression="zstd", use_dictionary=False)
    else:
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        with pa.ipc.new_file(str(path), table.schema, options=options) as file:
            file.write_table(table, max_chunksize=10)
    with pytest.raises(DataError, match="unpacks to more than 200 times its size"):
        load_rows(data_run(), [str(path)])


def test_a_line_that_is_too_long_costs_its_row_and_little_memory(tmp_path):
    path = tmp_path / "rows.jsonl"
    with path.open("wb") as file:
        file.write(b'{"query": "a", "response": "')
        for _ in range(150):
            file.write(b"x" * (1 << 20))
        file.write(b'"}\n' + b"\n".join(json.dumps(row).encode() for row in ROWS))
    code = PROGRAM.replace(
        "            pass", "            rows = print(_[1].get('__fault__')) if _[1]['__line__'] == 1 else 0"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path), "stream"], capture_output=True, text=True, check=True)
    said, grown = done.stdout.strip().rsplit("\n", 1)
    assert said == "('too long a line', 'more than 64 MiB')"
    assert int(grown) < 250


def test_streaming_a_file_holds_nothing_of_it(tmp_path):
    path = tmp_path / "rows.jsonl"
    line = json.dumps({"query": "q" * 500, "response": "a" * 500}).encode() + b"\n"
    path.write_bytes(line * 100_000)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path), "stream"], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 15
