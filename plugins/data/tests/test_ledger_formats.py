"""The sums of the ledger hold in every format that rows are read from, and each dropped row is named."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections import Counter

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import martlet
from martlet import DataError
from martlet_data.api import load_rows, prepare

REASONS = {
    ("a?", "b."): "",
    ("c?", "d\ne."): "",
    ("a?", " "): "empty content",
    (" ", "b."): "empty content",
    ("a?", "x <|im_end|> y"): "special token",
    ("long", "word and word " * 80): "too long",
}
"""Question and answer -> why the row is dropped; an empty text where it is used."""
PAIRS = st.lists(st.sampled_from(list(REASONS)), min_size=1, max_size=25)


def separated(delimiter):
    def text(rows):
        file = io.StringIO(newline="")
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerows([("query", "response"), *rows])
        return file.getvalue().encode()

    return text


def lines(rows):
    return b"".join(json.dumps({"query": one, "response": other}).encode() + b"\n" for one, other in rows)


def array(rows):
    return json.dumps([{"query": one, "response": other} for one, other in rows], indent=1).encode()


def table(write):
    def content(rows):
        sink = io.BytesIO()
        write(pa.table({"query": [one for one, _ in rows], "response": [other for _, other in rows]}), sink)
        return sink.getvalue()

    return content


def zstd(text):
    return pa.compress(text, "zstd", asbytes=True)


FORMATS = {
    "jsonl": lines,
    "jsonl.gz": lambda rows: gzip.compress(lines(rows)),
    "jsonl.zst": lambda rows: zstd(lines(rows)),
    "json": array,
    "json.gz": lambda rows: gzip.compress(array(rows)),
    "csv": separated(","),
    "csv.gz": lambda rows: gzip.compress(separated(",")(rows)),
    "tsv": separated("\t"),
    "parquet": table(pq.write_table),
    "arrow": table(lambda found, sink: pyarrow.feather.write_feather(found, sink, compression="uncompressed")),
}


def first_lines(ending, rows):
    """Return the line at which each row begins, or its number where a file has no lines of text."""
    if not ending.startswith(("csv", "tsv")):
        return list(range(1, len(rows) + 1))
    found, line = [], 2
    for row in rows:
        found.append(line)
        line += 1 + sum(text.count("\n") for text in row)
    return found


@pytest.mark.parametrize("ending", FORMATS)
@settings(max_examples=12)
@given(rows=PAIRS, count=st.none() | st.integers(1, 40), ratio=st.sampled_from([0.0, 0.3]))
def test_every_row_is_used_or_named(ending, rows, count, ratio, bound, tmp_path_factory):
    folder = tmp_path_factory.mktemp("formats")
    path = folder / f"rows.{ending}"
    path.write_bytes(FORMATS[ending](rows))
    reference = str(path) if count is None else f"{path}#{count}"
    given = {"dataset": [reference], "split_dataset_ratio": ratio, "max_dropped": 1.0, "max_length": 120}
    run = martlet.prepare(roles=("template", "data"), **given)
    run.folder = folder
    try:
        prepared = prepare(run, bound(run))
        origins = [part.origin(k) for part in (prepared.train, prepared.eval or ()) for k in range(len(part))]
        used = Counter(origin.line for origin in origins)
    except DataError:
        used = Counter()
    one = json.loads((folder / "ledger.json").read_text())["datasets"][0]
    dropped = [json.loads(line) for line in (folder / "dropped.jsonl").read_text().splitlines()]
    wanted = dict(zip(first_lines(ending, rows), (REASONS[row] for row in rows), strict=True))
    assert one["read"] == len(rows)
    assert one["read"] + one["repeated"] == one["selected"] + one["not_sampled"]
    assert one["selected"] + one["made"] == one["train"] + one["eval"] + sum(one["dropped"].values())
    assert Counter(one["dropped"]) == sum((Counter({row["reason"]: row["times"]}) for row in dropped), Counter())
    assert all(row["file"] == str(path) and row["reason"] == wanted[row["line"]] for row in dropped)
    assert all(wanted[line] == "" for line in used)
    if used:
        assert sum(used.values()) == one["train"] + one["eval"]
        assert count is not None or {line for line, reason in wanted.items() if not reason} == set(used)


def test_rows_that_are_read_without_encoding_are_accounted_for_too(data_run, chats, logged):
    path = chats(9)
    with open(path, "a") as file:
        file.write('{"query": "", "response": "b"}\n')
    run = data_run(folder=True)
    assert len(load_rows(run, [path])) == 9
    (row,) = (json.loads(line) for line in (run.folder / "dropped.jsonl").read_text().splitlines())
    assert (row["file"], row["line"], row["reason"]) == (path, 10, "empty content")
    assert any(text.startswith("Read 10 rows in ") and text.endswith(" rows/s") for text in logged)


@settings(max_examples=12)
@given(rows=st.lists(st.sampled_from(["grass is green", "  ", "word and word " * 80]), min_size=1, max_size=20))
@pytest.mark.parametrize("ending", ["txt", "txt.gz"])
def test_every_line_of_a_text_is_used_or_named(ending, rows, bound, tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    rows = ["grass is green", *rows]
    content = "\n".join(rows).encode() + b"\n"
    (folder / f"rows.{ending}").write_bytes(gzip.compress(content) if ending.endswith("gz") else content)
    given = {"dataset": [str(folder / f"rows.{ending}")], "max_dropped": 1.0, "max_length": 120}
    run = martlet.prepare(roles=("template", "data"), use_chat_template=False, **given)
    run.folder = folder
    train = prepare(run, bound(run)).train
    used = {train.origin(k).line for k in range(len(train))}
    dropped = {row["line"] for row in map(json.loads, (folder / "dropped.jsonl").read_text().splitlines())}
    told = json.loads((folder / "ledger.json").read_text())["totals"]
    short, long = ({line for line, text in enumerate(rows, 1) if word in text} for word in ("grass", "word"))
    assert told["selected"] + told["made"] == told["train"] + sum(told["dropped"].values())
    assert short <= used
    assert long <= dropped
    assert not used & dropped
