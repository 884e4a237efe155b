"""Every row is accounted for: used, or dropped with a reason; and what is on disk says the same."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import martlet
from martlet import DataError
from martlet_data.api import prepare

GOOD = ['{"query": "a?", "response": "b."}', '{"text": "c"}', '{"conversation": [{"human": "a", "assistant": "b"}]}']
BAD = {
    "{": "malformed JSON",
    "[]": "not an object",
    "nonsense": "malformed JSON",
    '{"Frage": "a"}': "unknown layout",
    '{"query": "", "response": "b"}': "empty content",
    '{"query": "a", "response": 5}': "bad content",
    '{"query": "a", "response": null}': "empty content",
    '{"messages": []}': "no messages",
    '{"messages": [{"role": "tool", "content": "a"}]}': "roles out of order",
    '{"messages": [{"role": "who", "content": "a"}]}': "unknown role",
    '{"query": "a"}': "nothing supervised",
    "\udcff": "not UTF-8",
}
LINES = st.lists(st.sampled_from(GOOD) | st.sampled_from(list(BAD)), min_size=1, max_size=30)


@settings(max_examples=60)
@given(lines=LINES, count=st.none() | st.integers(1, 50), ratio=st.sampled_from([0.0, 0.3]), data=st.data())
def test_the_sums_hold_whatever_the_rows_are(lines, count, ratio, data, bound, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ledger")
    path = folder / "rows.jsonl"
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogateescape"))
    reference = str(path) if count is None else f"{path}#{count}"
    run = martlet.prepare(
        roles=("template", "data"), dataset=[reference], split_dataset_ratio=ratio, max_dropped=1.0, max_length=1000
    )
    run.folder = folder
    try:
        prepared = prepare(run, bound(run))
        used = Counter(prepared.train.origin(k).line for k in range(len(prepared.train)))
        used += Counter(prepared.eval.origin(k).line for k in range(len(prepared.eval or ())))
    except DataError:
        prepared, used = None, Counter()
    ledger = json.loads((folder / "ledger.json").read_text())
    rows = [json.loads(line) for line in (folder / "dropped.jsonl").read_text().splitlines()]
    (one,) = ledger["datasets"]
    assert one["read"] == len(lines)
    assert one["read"] + one["repeated"] == one["selected"] + one["not_sampled"]
    assert one["selected"] == one["train"] + one["eval"] + sum(one["dropped"].values())
    assert Counter(one["dropped"]) == sum((Counter({row["reason"]: row["times"]}) for row in rows), Counter())
    assert all(row["reason"] == BAD[lines[row["line"] - 1]] for row in rows)
    assert len({row["line"] for row in rows}) == len(rows)
    if prepared is not None:
        assert sum(used.values()) == one["train"] + one["eval"]
        assert all(lines[line - 1] in GOOD for line in used)
        assert prepared.ledger.as_dict() == ledger


def test_dropped_rows_are_named_on_screen_and_on_disk(data_run, bound, chats, logged):
    path = chats(30)
    with open(path, "a") as file:
        file.write("{broken\n")
    run = data_run(folder=True, dataset=[path])
    prepare(run, bound(run))
    assert f"dropped 1 of {path}: malformed JSON, such as {path}:31" in "\n".join(logged)
    assert "rows/s" in logged[-1]
    (row,) = (json.loads(line) for line in (run.folder / "dropped.jsonl").read_text().splitlines())
    assert (row["dataset"], row["file"], row["line"], row["reason"]) == (path, path, 31, "malformed JSON")
    assert run.record.notes["data"]["totals"]["dropped"] == {"malformed JSON": 1}


def test_too_many_dropped_rows_abort_with_their_reasons(data_run, bound, chats):
    path = chats(8)
    with open(path, "a") as file:
        file.write('{"query": ""}\n{broken\n')
    run = data_run(folder=True, dataset=[path])
    with pytest.raises(DataError) as caught:
        prepare(run, bound(run))
    said = ("2 of 10 rows (20.0%)", "--max_dropped 0.1", f"1 malformed JSON ({path}:10", f"{path}:9", "dropped.jsonl")
    for text in said:
        assert text in str(caught.value)
    assert "\n" not in str(caught.value)
    assert json.loads((run.folder / "ledger.json").read_text())["totals"]["dropped"]
    assert len(prepare(data_run(dataset=[path], max_dropped=0.2), bound(run)).train) == 8


def test_rows_that_are_all_too_long_name_both_lengths(data_run, bound, chats):
    run = data_run(dataset=[chats(5)], max_length=4)
    with pytest.raises(DataError, match=r"every row is longer than --max_length 4; the longest has \d\d tokens"):
        prepare(run, bound(run))


def test_a_dataset_without_a_usable_row_aborts_beside_a_good_one(data_run, bound, chats, tmp_path):
    (tmp_path / "prompts.jsonl").write_text('{"query": "a"}\n')
    run = data_run(dataset=[chats(), str(tmp_path / "prompts.jsonl")])
    with pytest.raises(DataError, match=r"prompts\.jsonl: none of its 1 rows can be used"):
        prepare(run, bound(run))


def test_strict_names_the_first_bad_row_of_the_template_too(data_run, bound, chats, tmp_path):
    path = chats(5)
    with open(path, "a") as file:
        file.write('{"query": "no answer"}\n')
    run = data_run(dataset=[path], strict=True)
    with pytest.raises(DataError, match=r"chats\.jsonl:6: nothing supervised"):
        prepare(run, bound(run))


def test_the_mask_ledger_counts_supervised_tokens(data_run, bound, chats):
    run = data_run(dataset=[chats(10)], val_dataset=[chats(4, "held.jsonl")])
    prepared = prepare(run, bound(run))
    for one, samples in zip(prepared.ledger.datasets, (prepared.train, prepared.eval), strict=True):
        assert one.tokens == sum(len(sample.input_ids) for sample in samples)
        assert one.supervised_tokens == sum(int((sample.labels != -100).sum()) for sample in samples)
        assert 0 < one.share_supervised < 1


def test_a_long_fault_is_kept_short(data_run, tmp_path, write_jsonl):
    from martlet_data.api import load_rows

    role = "many\nlines " * 1000
    bad = {"messages": [{"role": role, "content": "a"}]}
    path = write_jsonl(tmp_path / "rows.jsonl", [bad, '{"query": "a"}'])
    (dropped,) = load_rows(data_run(max_dropped=0.5), [str(path)]).ledger.rows
    assert len(dropped.detail) <= 300
    assert "\n" not in dropped.detail


def test_a_row_that_its_template_splits_counts_as_the_rows_it_becomes(data_run, bound, chats):
    run = data_run(dataset=[chats(10) + "#15"], folder=True, dataset_shuffle=False, max_dropped=0.9)
    template = bound(run)
    whole = template.encode_batch

    def split(rows):
        found = []
        for number, one in enumerate(whole(rows)):
            middle, last = one.length // 2, one.length - 1
            cuts = [(0, middle), (middle, last), (last, one.length)] if number % 2 else [(0, one.length)]
            pieces = [type(one)(one.input_ids[a:b], one.input_ids[a:b]) for a, b in cuts]
            found.append(pieces if number % 2 else pieces[0])
        return found

    object.__setattr__(template, "encode_batch", split)
    prepared = prepare(run, template)
    one = json.loads((run.folder / "ledger.json").read_text())["datasets"][0]
    split_rows = [2, 4, 6, 8, 10, 2, 4]
    lines = [line for line in [*range(1, 11), *range(1, 6)] for _ in range(1 + (line in split_rows))]
    assert [prepared.train.origin(k).line for k in range(len(prepared.train))] == lines
    assert (one["selected"], one["made"], one["train"]) == (15, 14, 22)
    assert one["dropped"] == {"nothing supervised": 7}  # a single token predicts nothing
