"""Files in, rows out: every format, and what is said of broken ones."""

from __future__ import annotations

import csv
import json
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from martlet import DataError
from martlet_data.api import load_rows
from martlet_data.lines import Lines, parse_line

JsonLines = partial(Lines, parse=parse_line)


def chat(question, answer):
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


ROWS = [{"query": f"What is {k}?", "response": f"It is {k}, é 中 \U0001f426."} for k in range(7)]


def write(path, rows):
    """Write rows in the format that the ending says."""
    match path.suffix:
        case ".jsonl" | ".ndjson":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        case ".json":
            path.write_text(json.dumps(rows), encoding="utf-8")
        case ".csv" | ".tsv":
            with path.open("w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]), delimiter="," if path.suffix == ".csv" else "\t")
                writer.writeheader()
                writer.writerows(rows)
        case ".parquet":
            pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=3)
        case ".arrow":
            table = pa.Table.from_pylist(rows)
            with pa.ipc.new_stream(str(path), table.schema) as stream:
                stream.write_table(table)
    return str(path)


def read(data_run, *references, **settings):
    return load_rows(data_run(**settings), references)


@pytest.mark.parametrize("ending", ["jsonl", "ndjson", "json", "csv", "tsv", "parquet", "arrow"])
def test_every_format_gives_the_same_rows(ending, tmp_path, data_run):
    found = read(data_run, write(tmp_path / f"rows.{ending}", ROWS))
    assert list(found) == [chat(row["query"], row["response"]) for row in ROWS]
    first = 2 if ending in ("csv", "tsv") else 1
    assert [one.line for one in found.ids] == list(range(first, first + 7))


def test_nested_columns_of_parquet_lose_their_nulls(tmp_path, data_run):
    rows = [chat("Hello?", "Yes."), chat("Weather?", "Rain.")]
    rows[1]["messages"][1]["reasoning_content"] = "Look out of the window."
    found = read(data_run, write(tmp_path / "rows.parquet", rows))
    assert list(found) == rows


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
def test_arguments_of_other_calls_are_not_nulls_in_this_one(ending, tmp_path, data_run):
    """Arrow gives each object of a column the keys of all: two calls, two functions, four arguments."""
    rows = [chat("Weather?", "Rain."), chat("Time?", "Noon.")]
    for row, arguments in zip(rows, ({"city": "Oslo", "days": 3}, {"zone": "CET", "at": {"day": 1}}), strict=True):
        call = {"type": "function", "function": {"name": "f", "arguments": arguments}}
        row["messages"][1]["tool_calls"] = [call]
        properties = {name: {"type": "string"} for name in arguments}
        function = {"name": "f", "parameters": {"type": "object", "properties": properties}}
        row["tools"] = [{"type": "function", "function": function}]
    path = write(tmp_path / f"rows.{ending}", rows)
    assert list(read(data_run, path)) == rows


def test_an_arrow_file_is_read_like_a_stream(tmp_path, data_run):
    table = pa.Table.from_pylist(ROWS)
    with pa.ipc.new_file(str(tmp_path / "rows.arrow"), table.schema) as file:
        file.write_table(table)
    assert len(read(data_run, str(tmp_path / "rows.arrow"))) == 7


@pytest.mark.parametrize(
    "document",
    [
        ROWS,
        {"version": "1.0", "data": ROWS},
        {f"row-{k}": row for k, row in enumerate(ROWS)},
    ],
    ids=["array", "one array inside", "rows by name"],
)
def test_shapes_of_a_json_document(document, tmp_path, data_run):
    (tmp_path / "rows.json").write_text(json.dumps(document, indent=1))
    assert len(read(data_run, str(tmp_path / "rows.json"))) == 7


def test_a_single_row_is_a_json_document(tmp_path, data_run):
    tools = [{"type": "function", "function": {"name": "f"}}]
    (tmp_path / "row.json").write_text(json.dumps({**ROWS[0], "tools": tools}))
    assert read(data_run, str(tmp_path / "row.json"), remove_unused_columns=False)[0]["tools"] == tools


def test_json_lines_may_be_named_json(tmp_path, data_run, write_jsonl):
    write_jsonl(tmp_path / "rows.json", ROWS)
    assert len(read(data_run, str(tmp_path / "rows.json"))) == 7


def test_blank_lines_crlf_and_a_byte_order_mark_are_no_rows(tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\r\n   \n\n{"a": 2}\r\n{"a": 3}')
    found = JsonLines(tmp_path / "rows.jsonl").take([0, 1, 2])
    assert [(row["__line__"], row["a"]) for row in found] == [(1, 1), (5, 2), (6, 3)]


@given(st.lists(st.sampled_from([b'{"a": 1}', b"", b"  ", b"\t", b"{", b"[1]", b'{"a": "\xff"}', b" {}"]), min_size=1))
def test_each_line_that_is_not_blank_is_one_row_with_its_number(lines):
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        path.write_bytes(b"\n".join(lines))
        wanted = [number for number, line in enumerate(lines, 1) if line.strip()]
        if not wanted:
            with pytest.raises(DataError, match="is empty"):
                JsonLines(path)
            return
        table = JsonLines(path)
        assert [row["__line__"] for row in table] == wanted
        backwards = range(len(table) - 1, -1, -1)
        assert [row["__line__"] for row in table.take(backwards)] == wanted[::-1]


@pytest.mark.parametrize(
    ("line", "reason", "detail"),
    [
        (b'{"query": "a", "response": }', "malformed JSON", "column 28"),
        (b'{"query": "a"', "malformed JSON", "column 14"),
        (b'["query", "response"]', "not an object", "holds a list"),
        (b'{"query": "a", "response": "b", "response": "c"}', "malformed JSON", "key 'response' stands twice"),
        (b'{"query": "\xb0\xa1", "response": "b"}', "not UTF-8", "0xb0 at column 12"),
        (b'{"query": "\\ud800", "response": "b"}', "bad characters", "U+D800"),
        (b'{"n": ' + b"9" * 5000 + b"}", "malformed JSON", "limit"),
        (b"[" * 100_000, "malformed JSON", "recursion"),
    ],
)
def test_a_bad_line_is_dropped_with_its_number(line, reason, detail, tmp_path, data_run, write_jsonl):
    path = write_jsonl(tmp_path / "rows.jsonl", [ROWS[0], line, *ROWS[1:]])
    found = read(data_run, str(path), max_dropped=0.5)
    assert len(found) == 7
    (dropped,) = found.ledger.rows
    assert (dropped.reason, dropped.id.line, dropped.id.file) == (reason, 2, str(path))
    assert detail in dropped.detail


def test_strict_stops_at_the_first_bad_line(tmp_path, data_run, write_jsonl):
    path = write_jsonl(tmp_path / "rows.jsonl", [*ROWS, "{", "}"])
    with pytest.raises(DataError, match=r"rows\.jsonl:8: malformed JSON"):
        read(data_run, str(path), strict=True)


def test_csv_keeps_text_quotes_and_lines_within_a_cell(tmp_path, data_run):
    text = 'query,response\n007,"He said ""no"",\nand left"\n\nlast,1.50\n'
    (tmp_path / "rows.csv").write_text(text)
    found = read(data_run, str(tmp_path / "rows.csv"))
    assert list(found) == [chat("007", 'He said "no",\nand left'), chat("last", "1.50")]
    assert [one.line for one in found.ids] == [2, 5]


def test_csv_cells_may_hold_json(tmp_path, data_run):
    tools = [{"type": "function", "function": {"name": "f"}}]
    rows = [{"messages": json.dumps(chat("a", "b")["messages"]), "tools": json.dumps(tools)}]
    found = read(data_run, write(tmp_path / "rows.csv", rows))
    assert list(found) == [{**chat("a", "b"), "tools": tools}]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"only one", "wrong number of fields"),
        (b'"a"b,c', "malformed CSV"),
        (b"\xe9t\xe9,c", "not UTF-8"),
    ],
)
def test_a_bad_csv_line_is_dropped_with_its_number(line, reason, tmp_path, data_run):
    (tmp_path / "rows.csv").write_bytes(b"query,response\n1,2\n" + line + b"\n3,4\n")
    found = read(data_run, str(tmp_path / "rows.csv"), max_dropped=0.5)
    assert [(one.reason, one.id.line) for one in found.ledger.rows] == [(reason, 3)]
    assert [one.line for one in found.ids] == [2, 4]


def test_an_open_quote_names_the_line_where_it_opens(tmp_path, data_run):
    (tmp_path / "rows.csv").write_text('query,response\n1,2\n3,"4\n5,6\n')
    with pytest.raises(DataError, match=r"rows\.csv:3: a quote is opened here"):
        read(data_run, str(tmp_path / "rows.csv"))


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "tsv", "txt", "parquet", "arrow"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty|not a readable"),
        (bytes(range(256)) * 20, "is not text|not a readable"),
        (b"PK\x03\x04" + b"x" * 100, "zip archive|not a readable"),
    ],
    ids=["empty", "garbage", "zip"],
)
def test_a_file_that_holds_no_rows_is_refused(ending, content, said, tmp_path, data_run):
    path = tmp_path / f"rows.{ending}"
    path.write_bytes(content)
    with pytest.raises(DataError, match=said) as caught:
        read(data_run, str(path))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("ending", ["jsonl", "csv", "json"])
def test_another_encoding_is_named(ending, tmp_path, data_run):
    path = tmp_path / f"rows.{ending}"
    path.write_bytes('query,response\n{"query": "é"}\n'.encode("utf-16"))
    with pytest.raises(DataError, match="UTF-16"):
        read(data_run, str(path))


def test_a_fault_of_a_json_document_names_its_line(tmp_path, data_run):
    (tmp_path / "rows.json").write_text('[\n{"query": "a"},\n{"query": b}\n]')
    with pytest.raises(DataError, match=r"rows\.json:3: not valid JSON at column 11"):
        read(data_run, str(tmp_path / "rows.json"))


def test_a_row_of_a_json_document_does_not_say_where_it_stands(tmp_path, data_run):
    (tmp_path / "rows.json").write_text(json.dumps([{**row, "__line__": 70} for row in ROWS]))
    assert [one.line for one in read(data_run, str(tmp_path / "rows.json")).ids] == [1, 2, 3, 4, 5, 6, 7]


def test_a_key_that_stands_twice_in_a_json_document_is_named(tmp_path, data_run):
    (tmp_path / "rows.json").write_text('[{"query": "a", "response": "b", "query": "c"}]')
    with pytest.raises(DataError, match="key 'query' stands twice"):
        read(data_run, str(tmp_path / "rows.json"))


def test_a_json_document_without_rows_is_refused(tmp_path, data_run):
    (tmp_path / "rows.json").write_text('{"a": 1}')
    with pytest.raises(DataError, match="no rows are found"):
        read(data_run, str(tmp_path / "rows.json"))


def test_a_truncated_parquet_file_is_refused(tmp_path, data_run):
    path = tmp_path / "rows.parquet"
    write(path, ROWS)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="not a readable Parquet file"):
        read(data_run, str(path))


def test_a_source_is_named_for_a_file_with_any_ending(tmp_path, data_run):
    write(tmp_path / "rows.csv", ROWS)
    (tmp_path / "rows.csv").rename(tmp_path / "rows.txt")
    assert len(read(data_run, f"csv::{tmp_path / 'rows.txt'}")) == 7


def test_lines_of_plain_text_are_rows(tmp_path, data_run):
    (tmp_path / "rows.txt").write_bytes(
        "\ufeffeins\r\n\n  zwei \n\xff\n中文".encode("utf-8").replace(b"\xc3\xbf", b"\xff")
    )
    found = read(data_run, str(tmp_path / "rows.txt"), max_dropped=0.5)
    assert [row["messages"] for row in found] == [
        [{"role": "assistant", "content": t}] for t in ("eins", "  zwei ", "中文")
    ]
    assert [one.line for one in found.ids] == [1, 3, 5]
    assert [(one.reason, one.id.line) for one in found.ledger.rows] == [("not UTF-8", 4)]


@pytest.mark.parametrize("ending", ["jsonl", "csv", "tsv", "txt"])
def test_a_zero_byte_costs_its_row_alone(ending, tmp_path, data_run):
    path = tmp_path / f"rows.{ending}"
    if ending == "txt":
        path.write_bytes(b"one\ntw\0o\nthree\n")
    else:
        raw = Path(write(path, ROWS)).read_bytes()
        path.write_bytes(raw.replace(b"It is 3", b"It is \0"))
    found = read(data_run, str(path), max_dropped=0.5)
    (dropped,) = found.ledger.rows
    assert dropped.reason in ("malformed JSON", "bad characters")
    assert dropped.id.line == {"jsonl": 4, "txt": 2}.get(ending, 5)
    assert len(found) == (2 if ending == "txt" else 6)


@pytest.mark.parametrize("ending", ["jsonl", "csv", "txt"])
def test_utf_16_without_a_mark_is_no_text(ending, tmp_path, data_run):
    path = tmp_path / f"rows.{ending}"
    path.write_bytes('query,response\n{"query": "a"}\n'.encode("utf-16-le"))
    with pytest.raises(DataError, match="is not text: byte 1 is zero"):
        read(data_run, str(path))


def test_numbers_that_are_none_are_numbers_where_numbers_may_stand(tmp_path, data_run, write_jsonl):
    rows = ['{"query": "a", "response": "b", "score": NaN}', '{"query": NaN, "response": "b"}', *ROWS]
    found = read(
        data_run, str(write_jsonl(tmp_path / "rows.jsonl", rows)), remove_unused_columns=False, max_dropped=0.5
    )
    assert len(found) == 8
    assert found[0]["score"] != found[0]["score"]
    assert [one.id.line for one in found.ledger.rows] == [2]


def test_nesting_without_end_costs_its_row(tmp_path, data_run, write_jsonl):
    deep = '{"query": "a", "response": "b", "extra": ' + '{"a":' * 50_000 + "1" + "}" * 50_001
    found = read(data_run, str(write_jsonl(tmp_path / "rows.jsonl", [deep, *ROWS])), max_dropped=0.5)
    assert [(one.reason, one.id.line) for one in found.ledger.rows] == [("malformed JSON", 1)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("query,response,query\na,b,c\n", "column 'query' stands twice in the header"),
        ("\n\nquery,response\na,b\n", "the first line is blank"),
        ("query,response\n", "a header, and no row under it"),
        ('"query,response\na,b\n', "the header cannot be read"),
    ],
)
def test_a_header_that_names_no_columns_is_refused(text, said, tmp_path, data_run):
    (tmp_path / "rows.csv").write_text(text)
    with pytest.raises(DataError, match=said):
        read(data_run, str(tmp_path / "rows.csv"))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_cells_keep_their_text_whatever_ends_the_lines(end, tmp_path, data_run):
    text = end.join(["query\tresponse", 'a\t"b ""c""\td\ne"', "too few", "f\tg", ""])
    (tmp_path / "rows.tsv").write_bytes(text.encode())
    found = read(data_run, str(tmp_path / "rows.tsv"), max_dropped=0.5)
    assert list(found) == [chat("a", 'b "c"\td\ne'), chat("f", "g")]
    assert [(one.reason, one.id.line) for one in found.ledger.rows] == [("wrong number of fields", 4)]


def test_a_footer_that_counts_other_rows_than_there_are_is_refused(tmp_path, data_run):
    """Two numbers are changed so that they agree with each other, and not with the rows."""
    path = tmp_path / "rows.parquet"
    whole = Path(write(path, ROWS)).read_bytes()
    raised = {}
    for place in range(len(whole) - 8 - int.from_bytes(whole[-8:-4], "little"), len(whole) - 8):
        content = bytearray(whole)
        content[place] = (content[place] + 2) % 256
        try:
            meta = pq.ParquetFile(pa.BufferReader(bytes(content))).metadata
            counts = (meta.num_rows, *(meta.row_group(k).num_rows for k in range(meta.num_row_groups)))
        except (pa.ArrowException, OSError, ValueError):
            continue
        raised[counts] = place
    content = bytearray(whole)
    for counts in ((8, 3, 3, 1), (7, 3, 4, 1)):
        content[raised[counts]] += 2
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"3 rows are where its footer says 4|7 rows are where its footer says 8"):
        read(data_run, str(path))
    content[raised[(8, 3, 3, 1)]] -= 2
    path.write_bytes(content)
    with pytest.raises(DataError, match="its footer counts 7 rows, and its row groups 8"):
        read(data_run, str(path))
