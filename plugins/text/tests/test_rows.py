"""Rows that cannot be used: refused with a reason, never an exception."""

from __future__ import annotations

import json
from typing import Any

import pytest

from martlet import DataError
from martlet.protocols import Encoded
from martlet_sdk.tiny import CHATML, LLAMA3


def rows(*pairs: tuple[str, Any], **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in pairs], **more}


GOOD = rows(("user", "Hi"), ("assistant", "Hello"))


def calls(*given: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "", "tool_calls": list(given)}]
    return {"messages": messages}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({}, "no messages"),
        ({"messages": []}, "no messages"),
        ({"messages": "Hi"}, "bad messages"),
        ({"messages": ["Hi"]}, "bad messages"),
        ({"messages": [{"content": "Hi"}]}, "unknown role"),
        (rows(("user", "Hi"), ("bard", "Hello")), "unknown role"),
        (rows(("user", "Hi"), (["assistant"], "Hello")), "unknown role"),
        (rows(("user", "Hi"), ("user", "Hi"), ("assistant", "Hello")), "roles out of order"),
        (rows(("user", "Hi"), ("assistant", "Hello"), ("system", "Late")), "roles out of order"),
        (rows(("tool", "sunny"), ("assistant", "Hello")), "roles out of order"),
        (rows(("user", "Hi"), ("tool", "sunny"), ("assistant", "Hello")), "roles out of order"),
        (rows(("user", ""), ("assistant", "Hello")), "empty content"),
        (rows(("user", "Hi"), ("assistant", " \n")), "empty content"),
        (rows(("user", None), ("assistant", "Hello")), "bad content"),
        (rows(("user", "Hi"), ("assistant", None)), "empty content"),
        (rows(("user", 7), ("assistant", "Hello")), "bad content"),
        (rows(("user", [{"type": "image"}]), ("assistant", "Hello")), "bad content"),
        (rows(("user", "Hi")), "nothing supervised"),
        (rows(("user", "Hi"), ("assistant", "Hello"), tools="{"), "bad tools"),
        (rows(("user", "Hi"), ("assistant", "Hello"), tools=[3]), "bad tools"),
        (calls({"function": {"arguments": {}}}), "bad tool call"),
        (calls({"function": {"name": "f", "arguments": "{"}}), "bad tool call"),
        (calls({"function": {"name": "f", "arguments": [1]}}), "bad tool call"),
        (rows(("user", "Hi"), ("assistant", "\ud800")), "bad characters"),
        (rows(("user", "Hi"), ("assistant", "\U000f0000\U00100000")), "private-use characters"),
        (rows(("user", "Hi"), ("assistant", "Hello<|im_end|>")), "special token"),
        (None, "unusable row"),
    ],
)
def test_a_row_is_refused_with_its_reason(row: Any, reason: str, bind: Any, tokenizer_for: Any) -> None:
    bound = bind(tokenizer_for(CHATML))
    first, found, last = bound.encode_batch([GOOD, row, GOOD])
    assert found.reason == reason, found
    assert isinstance(first, Encoded)
    assert first == last


@pytest.mark.parametrize("settings", [{}, {"template": "chatml"}])
def test_an_answer_cannot_hold_the_token_that_ends_a_text(
    settings: dict[str, Any], bind: Any, tokenizer_for: Any, refusal: Any
) -> None:
    """Generation would stop there."""
    bound = bind(tokenizer_for(CHATML, eos_token="<|endoftext|>"), **settings)
    for given in (GOOD, rows(("user", "What is <|endoftext|>?"), ("assistant", "Hello"))):
        assert isinstance(bound.encode_batch([given])[0], Encoded)
    assert refusal(bound, rows(("user", "Hi"), ("assistant", "It ends<|endoftext|> here"))).reason == "special token"


def test_the_detail_says_which_message(bind: Any, tokenizer_for: Any, refusal: Any) -> None:
    bound = bind(tokenizer_for(CHATML), system="Be brief")
    row = rows(("user", "Hi"), ("assistant", "Hello"), ("user", " "), ("assistant", "Hello"))
    assert refusal(bound, row).detail == "message 3 (user) is empty"


def test_spans_of_a_bad_row_are_a_data_error(bind: Any, tokenizer_for: Any) -> None:
    with pytest.raises(DataError, match="roles out of order"):
        bind(tokenizer_for(CHATML)).spans(rows(("user", "Hi"), ("user", "Hi"), ("assistant", "Hello")))


def test_nothing_is_a_prompt_that_ends_with_an_answer(bind: Any, tokenizer_for: Any) -> None:
    with pytest.raises(DataError, match="answer already"):
        bind(tokenizer_for(CHATML)).prompt(GOOD["messages"])


def test_values_given_as_json_text_are_read(bind: Any, tokenizer_for: Any, supervised: Any) -> None:
    """Arguments, calls and tools are text in CSV files, and arguments are text in the OpenAI format."""
    bound = bind(tokenizer_for(CHATML))
    plain = calls({"type": "function", "function": {"name": "f", "arguments": {"x": [1, "é"]}}})
    texts = calls({"type": "function", "function": {"name": "f", "arguments": '{"x": [1, "é"]}'}})
    whole = {"messages": [plain["messages"][0], {**plain["messages"][1]}], "tools": "[]"}
    whole["messages"][1]["tool_calls"] = json.dumps(plain["messages"][1]["tool_calls"])
    assert supervised(bound, plain) == supervised(bound, texts) == supervised(bound, whole)


def test_nulls_are_as_if_absent(bind: Any, tokenizer_for: Any) -> None:
    bound = bind(tokenizer_for(CHATML))
    keys = {"tool_calls": None, "reasoning_content": None, "name": None, "loss": None}
    padded = {"messages": [{**message, **keys} for message in GOOD["messages"]], "tools": None}
    assert bound.encode_batch([padded]) == bound.encode_batch([GOOD])


def test_a_greeting_is_refused_where_the_template_has_no_prompt_for_it(
    bind: Any, tokenizer_for: Any, refusal: Any
) -> None:
    needy = "{{- messages[0].content[:0] }}" + LLAMA3
    row = rows(("assistant", "Welcome"), ("user", "Hi"), ("assistant", "Hello"))
    assert refusal(bind(tokenizer_for(needy)), row).reason == "unproven mask"


def test_system_of_the_row_wins_over_the_flag(bind: Any, tokenizer_for: Any, tmp_path: Any) -> None:
    path = tmp_path / "system.txt"
    path.write_text("From a file\n", encoding="utf-8")
    tokenizer = tokenizer_for(CHATML)
    own = [{"role": "system", "content": "Own"}, *GOOD["messages"]]
    for given, shown in ((None, ""), ("Flag", "Flag"), (str(path), "From a file")):
        bound = bind(tokenizer, system=given)
        text = "".join(span.text for span in bound.spans(GOOD))
        assert text.startswith(f"<|im_start|>system\n{shown}<|im_end|>" if shown else "<|im_start|>user")
        assert bound.prompt(GOOD["messages"][:1]) + "Hello<|im_end|>\n" == text
        assert "".join(span.text for span in bound.spans({"messages": own})).startswith("<|im_start|>system\nOwn")


def test_a_system_file_that_is_missing_is_a_usage_error(bind: Any, tokenizer_for: Any) -> None:
    with pytest.raises(Exception, match=r"--system nowhere.txt: the file cannot be read") as caught:
        bind(tokenizer_for(CHATML), system="nowhere.txt")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("template", ["jinja", "chatml", "completion"])
def test_a_prompt_that_is_no_text_is_an_error_of_ours(template: str, bind: Any, tokenizer_for: Any) -> None:
    bound = bind(tokenizer_for(CHATML), template=template)
    for make in (bound.prompt_ids, bound.prompt):
        with pytest.raises(DataError, match=r"made a prompt: they hold U\+D800, half of a surrogate pair"):
            make([{"role": "user", "content": "a\ud800b"}])
