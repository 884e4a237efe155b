"""Standard columns beside the messages: second answers, labels, media, boxes."""

from __future__ import annotations

import json

import pytest

from martlet_data.api import RowError, load_rows
from martlet_data.layouts import alpaca, messages, preference, query_response
from martlet_data.standard import STANDARD_COLUMNS, standardise

URL = "https://example.org/a.png"


def turns(*contents):
    roles = ("user", "assistant")
    return [{"role": roles[place % 2], "content": content} for place, content in enumerate(contents)]


def reason(function, row):
    with pytest.raises(RowError) as caught:
        function(row)
    return caught.value.reason, caught.value.detail


PAIR = {"messages": turns("q", "good"), "rejected_messages": turns("q", "bad")}


@pytest.mark.parametrize(
    ("function", "row"),
    [
        (messages, {"messages": turns("q", "good"), "rejected_response": "bad"}),
        (messages, {"messages": turns("q", "good"), "rejected": {"from": "gpt", "value": "bad"}}),
        (messages, {"messages": turns("q", "good"), "rejected_messages": turns("q", "bad")[1:]}),
        (messages, {"messages": turns("q", "good"), "rejected_messages": json.dumps(turns("q", "bad"))}),
        (messages, {"messages": turns("q"), "chosen": "good", "rejected": "bad"}),
        (messages, {"messages": turns("q", "good"), "chosen": turns("q", "good"), "rejected": turns("q", "bad")}),
        (query_response, {"prompt": "q", "chosen": "good", "rejected": "bad"}),
        (query_response, {"prompt": "q", "chosen": turns("q", "good"), "rejected": turns("q", "bad")}),
        (query_response, {"question": turns("q"), "chosen": turns("q", "good")[1:], "rejected": "bad"}),
        (query_response, {"query": "q", "response": "good", "rejected_response": "bad", "rejected": None}),
        (query_response, {"query": "q", "response": None, "chosen": "good", "rejected": "bad"}),
        (alpaca, {"instruction": "q", "input": "", "chosen": "good", "rejected": "bad"}),
        (preference, {"chosen": turns("q", "good"), "rejected": turns("q", "bad")}),
        (preference, {"chosen": json.dumps(turns("q", "good")), "rejected": json.dumps(turns("q", "bad"))}),
    ],
)
def test_two_answers_in_every_dialect(function, row):
    assert function(row) == PAIR


def test_a_rejected_text_replaces_one_message_and_rejected_messages_all_behind_the_question():
    call = {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": {"name": "f"}}]}
    row = {"messages": [turns("q")[0], call, {"role": "tool", "content": "r"}, turns("q", "good")[1]]}
    one = messages({**row, "rejected_response": "bad"})["rejected_messages"]
    assert [m["role"] for m in one] == ["user", "assistant", "tool", "assistant"]
    all_of_it = messages({**row, "rejected_response": turns("q", "bad")[1:]})["rejected_messages"]
    assert all_of_it == turns("q", "bad")


def test_a_system_column_is_put_before_both_conversations():
    found = preference({"system": "s", "chosen": turns("q", "good"), "rejected": turns("q", "bad")})
    assert found["messages"][0] == found["rejected_messages"][0] == {"role": "system", "content": "s"}


@pytest.mark.parametrize(
    ("row", "expected", "why"),
    [
        ({"messages": turns("q"), "rejected": "bad"}, "bad pair", "rejected is given, but the messages end with user"),
        ({"messages": turns("q", "same"), "rejected": "same"}, "equal answers", "nothing to prefer"),
        ({"messages": turns("q", "good"), "rejected": turns("q")}, "bad pair", "rejected ends with user"),
    ],
)
def test_pairs_that_are_none_are_refused(row, expected, why):
    found, detail = reason(messages, row)
    assert found == expected
    assert why in detail


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"rejected": "bad", "rejected_response": "worse"}, "ambiguous columns"),
        ({"chosen": "better", "rejected": "bad"}, "ambiguous columns"),
        ({"rejected": 5}, "bad content"),
        ({"rejected": [5]}, "bad content"),
        ({"rejected_messages": "[{"}, "bad messages"),
        ({"rejected_messages": [*turns("q"), {"role": "narrator", "content": "x"}]}, "unknown role"),
        ({"rejected_messages": [*turns("q"), *turns("q")]}, "roles out of order"),
        ({"positive": 5}, "bad messages"),
        ({"positive": "a", "positive_messages": ["b"]}, "ambiguous columns"),
        ({"negative": ["a", 5]}, "bad messages"),
        ({"negative": ["a", [{"role": "user"}]]}, "empty content"),
        ({"negative": ["a\udc00"]}, "bad characters"),
    ],
)
def test_further_conversations_are_checked(row, expected):
    assert reason(messages, {"messages": turns("q", "good"), **row})[0] == expected


def test_what_is_wrong_with_a_further_conversation_names_its_column():
    row = {"messages": turns("q", "good"), "negative": ["x", [*turns("a", "b"), {"role": "tool"}, 7]]}
    assert reason(messages, row)[1] == "negative[1]: message 4 is a number, not an object"


@pytest.mark.parametrize(
    "given", ["p", ["p"], turns("p"), [turns("p")], json.dumps(["p"]), json.dumps([turns("p")])], ids=repr
)
@pytest.mark.parametrize("name", ["positive", "positive_messages"])
def test_a_positive_is_a_text_texts_messages_or_lists_of_messages(given, name):
    assert query_response({"query": "q", name: given})["positive_messages"] == [turns("p")]


@pytest.mark.parametrize(
    ("given", "label"),
    [
        *((True, True), ("False", False), (3, 3), ("3", 3), (0.8, 0.8), ("0.8", 0.8), (0, 0)),
        *(([0, 2], [0, 2]), ("[0, 2]", [0, 2]), ("spam", "spam"), ("[spam", "[spam"), ('"1"', '"1"')),
    ],
)
def test_labels_are_read_as_what_they_spell(given, label):
    found = messages({"messages": turns("q", "a"), "label": given})["label"]
    assert found == label
    assert type(found) is type(label)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *(("label", value) for value in ({"a": 1}, float("nan"), [[1]], "\ud800", [None])),
        *(("margin", value) for value in ("wide", True, float("inf"))),
        *(("channel", value) for value in (["a"], {"a": 1}, "\ud800")),
    ],
)
def test_labels_margins_and_channels_of_other_types_are_refused(column, value):
    found, detail = reason(messages, {"messages": turns("q", "a"), column: value})
    assert found in (f"bad {column}", "bad characters")
    assert detail.startswith(column)


def test_empty_standard_columns_and_nulls_are_absent():
    empty = {"label": None, "tools": [], "images": [], "rejected": "", "channel": " ", "objects": {}, "other": None}
    assert messages({"messages": turns("q", "a"), **empty, "solution": ""}) == {
        "messages": turns("q", "a"),
        "solution": "",
    }


@pytest.mark.parametrize("given", [URL, [URL], {"url": URL}, [{"path": URL}], json.dumps([URL])], ids=repr)
@pytest.mark.parametrize("name", ["image", "images"])
def test_images_are_a_list_and_get_tags_where_there_are_none(name, given):
    found = messages({"messages": turns("q", "a"), name: given, "rejected": "b"})
    assert (found["images"], found["messages"]) == ([URL], turns("<image>q", "a"))
    assert found["rejected_messages"] == turns("<image>q", "b")


PARTS = [
    {"type": "image", "image": URL},
    {"type": "image", "url": URL},
    {"type": "image", "path": URL},
    {"type": "image_url", "image_url": {"url": URL}},
    {"type": "image", "source": {"type": "url", "url": URL}},
    {"image": URL},
]


@pytest.mark.parametrize("part", PARTS, ids=repr)
def test_parts_of_content_leave_a_tag(part):
    found = messages({"messages": turns([{"type": "text", "text": "see "}, part, {"type": "text", "text": "?"}], "a")})
    assert found == {"messages": turns("see <image>?", "a"), "images": [URL]}


def test_a_part_may_be_a_place_for_what_the_column_lists():
    found = messages({"messages": turns([{"type": "video"}, {"type": "text", "text": "?"}], "a"), "videos": [URL]})
    assert found == {"messages": turns("<video>?", "a"), "videos": [URL]}


def test_base64_becomes_a_data_url_and_bytes_stay():
    source = {"type": "base64", "media_type": "image/png", "data": "AAAA"}
    sound = {"type": "input_audio", "input_audio": {"data": "BBBB", "format": "wav"}}
    found = messages({"messages": turns([{"type": "image", "source": source}, sound], "a")})
    assert (found["images"], found["audios"]) == (["data:image/png;base64,AAAA"], ["data:audio/wav;base64,BBBB"])
    raw = {"bytes": b"\x89PNG", "path": None}
    assert messages({"messages": turns("q", "a"), "image": raw})["images"] == [{"bytes": b"\x89PNG"}]


@pytest.mark.parametrize(
    ("row", "expected", "why"),
    [
        ({"images": [URL, "nowhere.png"]}, "missing image", "images[1]: there is no file 'nowhere.png'"),
        ({"videos": "file:///nowhere.mp4"}, "missing video", "videos[0]"),
        ({"audio": {"path": "nowhere.wav"}}, "missing audio", "audio[0]"),
        ({"images": [5]}, "bad images", "images[0] is a number"),
        ({"images": [""]}, "bad images", "images[0] is empty"),
        ({"images": [URL], "image": URL}, "ambiguous columns", "image"),
        ({"images": [URL], "messages": turns("<image><image>", "a")}, "bad images", "2 <image> tags"),
        ({"images": [URL], "messages": turns([PARTS[0]], "a")}, "ambiguous columns", "in the messages"),
        ({"messages": turns([{"type": "image", "image": "nowhere.png"}], "a")}, "missing image", "message 1"),
        ({"positive": [[{"role": "user", "content": [PARTS[0]]}]]}, "bad content", "positive[0]"),
        ({"images": [URL], "rejected_messages": turns([PARTS[0], PARTS[0]], "b")}, "bad pair", "other media"),
    ],
)
def test_media_that_cannot_be_shown_are_refused(row, expected, why):
    found, detail = reason(messages, {"messages": turns("q", "a"), **row})
    assert found == expected
    assert why in detail


def test_a_file_that_is_there_is_listed(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    for path in ("a.png", str(tmp_path / "a.png"), (tmp_path / "a.png").as_uri()):
        assert messages({"messages": turns("q", "a"), "images": [path]})["images"] == [path]


def test_a_text_model_refuses_rows_with_images(tmp_path, data_run, bound):
    run = data_run()
    rows = [{"messages": turns("q", "a"), name: [URL]} for name in ("images", "videos", "audios")]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    found = bound(run).encode_batch(list(load_rows(run, [str(tmp_path / "rows.json")])))
    assert [one.reason for one in found] == ["media not supported"] * 3
    assert "the row has videos" in found[1].detail


def boxed(content="q", images=1, **objects):
    return {"messages": turns(content, "a"), "images": [URL] * images, "objects": objects}


def test_boxes_are_put_in_order_and_counted_by_their_tags():
    row = boxed("<image><ref-object>", ref=["sheep"], bbox=[[9, 8, 1, 2], [1.5, 2]])
    row["messages"][1]["content"] = "<bbox><bbox>"
    assert messages(row)["objects"] == {"ref": ["sheep"], "bbox": [[1, 2, 9, 8], [1.5, 2]]}
    assert messages({**row, "objects": json.dumps(row["objects"])}) == messages(row)


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (boxed(bbox=[[1, 2, 3]]), "objects.bbox[0] is not a list of two or four numbers"),
        (boxed(bbox=[[1, 2], [1, "2"]]), "objects.bbox[1] holds something else"),
        (boxed(bbox=[[True, 2]]), "objects.bbox[0]"),
        (boxed(bbox=[[float("nan"), 2]]), "objects.bbox[0]"),
        (boxed(bbox={"a": 1}), "objects.bbox is an object"),
        (boxed(ref=["a"]), "objects.bbox is null"),
        (boxed(ref=[5], bbox=[]), "objects.ref"),
        (boxed(ref=["a", "b"], bbox=[[1, 2]]), "2 names for 1 boxes"),
        (boxed("<image><ref-object><bbox>", ref=["a", "b"], bbox=[[1, 2]]), "1 <ref-object> tags"),
        (boxed("<image><ref-object>", ref=["a"], bbox=[[1, 2]]), "0 <bbox> tags"),
        (boxed(bbox=[[1, 2]], bbox_type="norm"), "objects.bbox_type"),
        (boxed(bbox=[[1, 2]], image_id=[1]), "objects.image_id[0] is 1; the row has 1 images"),
        (boxed(bbox=[[1, 2]], image_id=[0, 0]), "objects.image_id"),
        ({**boxed(), "objects": "[1]"}, "objects is a list"),
        ({**boxed(), "objects": "{"}, "not JSON"),
    ],
)
def test_boxes_that_are_none_are_refused(row, why):
    found, detail = reason(messages, row)
    assert found == "bad objects"
    assert why in detail


def full_row():
    return {
        **PAIR,
        "tools": [{"name": "f"}],
        "positive": "p",
        "negative": ["n"],
        "images": [URL],
        "videos": [URL],
        "audios": [URL],
        "objects": {"bbox": [[1, 2]]},
        "label": True,
        "channel": "c",
        "margin": 1.5,
        "solution": "s",
    }


def test_standard_columns_stay_in_the_rows_and_others_on_request(tmp_path, data_run):
    (tmp_path / "rows.json").write_text(json.dumps([full_row()]))
    (found,) = load_rows(data_run(), [str(tmp_path / "rows.json")])
    assert found.keys() == STANDARD_COLUMNS
    (kept,) = load_rows(data_run(remove_unused_columns=False), [str(tmp_path / "rows.json")])
    assert kept == {**found, "solution": "s"}
    assert standardise(kept) == kept


@pytest.mark.parametrize(
    ("call", "found"),
    [
        ({"id": "7", "name": "f", "arguments": {"a": 1}}, {"id": "7", "a": 1}),
        ({"name": "f", "arguments": {"a": 1}}, {"a": 1}),
        ({"name": "f", "parameters": '{"a": 1}', "type": "function"}, {"a": 1}),
    ],
)
def test_a_bare_call_keeps_its_id_and_arguments(call, found):
    row = standardise({"messages": [*turns("q"), {"role": "assistant", "content": "", "tool_calls": [call]}]})
    (made,) = row["messages"][1]["tool_calls"]
    assert {**{k: v for k, v in made.items() if k == "id"}, **made["function"]["arguments"]} == found


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ({"name": "f", "args": {"a": 1}}, "a call of f in message 2 .* has no arguments, but 'args'"),
        ({"function": {"name": "f", "input": [1]}}, "has no arguments, but 'input'"),
        ({"name": "f", "arguments": '{"a": 1, "a": 2}'}, "the key 'a' stands twice in an object"),
    ],
)
def test_arguments_that_would_be_lost_refuse_the_row(call, said):
    with pytest.raises(RowError, match=said) as caught:
        standardise({"messages": [*turns("q"), {"role": "assistant", "content": "", "tool_calls": [call]}]})
    assert caught.value.reason == "bad tool call"


def test_a_message_without_content_tells_its_keys():
    with pytest.raises(RowError, match=r"message 2 \(assistant\) is empty; its keys: role, text$"):
        standardise({"messages": [*turns("q"), {"role": "assistant", "text": "a"}]})


def test_a_blank_system_column_is_as_good_as_none():
    assert messages({"messages": turns("q", "a"), "system": "  "}) == {"messages": turns("q", "a")}
