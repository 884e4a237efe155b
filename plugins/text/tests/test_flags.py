"""Each flag of the group ``template`` changes what it says, and contradictions are refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import martlet
from martlet import ConfigError
from martlet.protocols import Encoded, Refused
from martlet_sdk.tiny import CHATML, CHATML_THINKING, tiny_tokenizer

HYBRID = """\
{%- set thinks = enable_thinking is not defined or enable_thinking %}
{{- '<|im_start|>system\\n' + ('think' if thinks else 'answer at once') + '<|im_end|>\\n' }}
{%- for m in messages %}
{{- '<|im_start|>' + m.role + '\\n' }}
{%- if m.reasoning_content %}{{ '<think>\\n' + m.reasoning_content + '\\n</think>\\n\\n' }}{% endif %}
{{- m.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' + ('' if thinks else '<think>\\n\\n</think>\\n\\n') }}
{%- endif %}"""
"""Answers with and without reasoning. With thinking off its prompt has an empty think block; its answers have none."""
WRITES_IT = HYBRID.replace(
    "{{- m.content", "{{- ('' if m.reasoning_content or m.role == 'user' else EMPTY) + m.content"
)
WRITES_IT = WRITES_IT.replace("EMPTY", "'<think>\\n\\n</think>\\n\\n'")
"""The same, but its answers without reasoning have the block."""
EMPTY = "<think>\n\n</think>\n\n"
END = "<|im_end|>"
ASK = {"role": "user", "content": "Hi"}
ANSWER = {"role": "assistant", "content": "Hello"}
ROW = {"messages": [ASK, ANSWER, {"role": "user", "content": "Bye"}, {"role": "assistant", "content": "See you"}]}
THOUGHT = {"role": "assistant", "content": "Hello", "reasoning_content": "A greeting"}


def check(roles: tuple[str, ...] = ("template", "preview"), **settings: Any) -> None:
    """Do what every command does before it loads anything."""
    run = martlet.prepare(roles=roles, **settings)
    run.emit("on_config", config=run.config)


def text_of(bound: Any, row: dict[str, Any]) -> str:
    return "".join(span.text for span in bound.spans(row))


# Thinking


def test_enable_thinking_reaches_prompts_and_training_alike(bind: Any, tokenizer_for: Any, supervised: Any) -> None:
    tokenizer = tokenizer_for(HYBRID)
    for enabled, told, supplied in ((None, "think", ""), (True, "think", ""), (False, "answer at once", EMPTY)):
        bound = bind(tokenizer, enable_thinking=enabled)
        assert bound.prompt([ASK]).endswith(f"<|im_start|>assistant\n{supplied}")
        text = text_of(bound, {"messages": [ASK, ANSWER]})
        assert text.startswith(f"<|im_start|>system\n{told}<") and text.startswith(bound.prompt([ASK]))
        assert supervised(bound, {"messages": [ASK, ANSWER]}) == [(EMPTY + "Hello" + END).removeprefix(supplied)]


def test_ids_are_those_of_apply_chat_template_with_the_same_variable(bind: Any, tokenizer_for: Any) -> None:
    tokenizer = tokenizer_for(HYBRID)
    row = {"messages": [ASK, THOUGHT]}
    for enabled in (True, False):
        bound = bind(tokenizer, enable_thinking=enabled)
        theirs = tokenizer.apply_chat_template(row["messages"], return_dict=False, enable_thinking=enabled)
        assert bound.encode_batch([row])[0].input_ids == theirs


def test_answers_without_reasoning_begin_as_when_thinking_is_off(
    bind: Any, tokenizer_for: Any, supervised: Any
) -> None:
    tokenizer = tokenizer_for(HYBRID)
    mixed = {"messages": [ASK, THOUGHT, *ROW["messages"][2:]]}
    assert supervised(bind(tokenizer), ROW) == [EMPTY + "Hello" + END, EMPTY + "See you" + END]
    assert supervised(bind(tokenizer), mixed) == [
        "<think>\nA greeting\n</think>\n\nHello" + END,
        EMPTY + "See you" + END,
    ]
    said = {"messages": [ASK, {"role": "assistant", "content": "<think>\nHm\n</think>\n\nHello"}]}
    assert supervised(bind(tokenizer), said) == ["<think>\nHm\n</think>\n\nHello" + END]
    assert supervised(bind(tokenizer, add_non_thinking_prefix=False), ROW) == ["Hello" + END, "See you" + END]


def test_with_last_round_only_answers_behind_the_last_question_do(bind: Any, tokenizer_for: Any) -> None:
    tokenizer = tokenizer_for(HYBRID)
    assert text_of(bind(tokenizer), ROW).count(EMPTY) == 2
    late = text_of(bind(tokenizer, loss_scale="last_round"), ROW)
    assert late.count(EMPTY) == 1 and late.endswith(EMPTY + "See you" + END + "\n")


def test_content_in_parts_and_bare_calls_get_the_prefix_too(bind: Any, tokenizer_for: Any) -> None:
    bound = bind(tokenizer_for(HYBRID))
    parts = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}
    row = {"messages": [ASK, parts, {"role": "tool", "content": "x"}, ANSWER]}
    conversation = bound._read(row)
    assert [m.get("content") for m in conversation.messages] == ["Hi", EMPTY, "x", EMPTY + "Hello"]
    listed = {"messages": [ASK, {"role": "assistant", "content": [{"type": "text", "text": "Hello"}]}]}
    assert bound._read(listed).messages[1]["content"][0] == {"type": "text", "text": EMPTY}
    assert listed["messages"][1]["content"] == [{"type": "text", "text": "Hello"}]  # the row is as it was


@pytest.mark.parametrize("template", [WRITES_IT, CHATML, CHATML_THINKING])
def test_nothing_is_added_where_the_template_does_it_or_knows_no_thinking(
    template: str, bind: Any, tokenizer_for: Any
) -> None:
    with_prefix, without = (bind(tokenizer_for(template), add_non_thinking_prefix=flag) for flag in (True, False))
    assert with_prefix.encode_batch([ROW]) == without.encode_batch([ROW])


# The beginning of an answer


def test_a_response_prefix_stands_behind_the_prompt_and_in_no_training_row(bind: Any, tokenizer_for: Any) -> None:
    tokenizer = tokenizer_for(CHATML)
    plain, bound = bind(tokenizer), bind(tokenizer, response_prefix="Sure: ")
    assert bound.prompt([ASK]) == plain.prompt([ASK]) + "Sure: "
    assert bound.prompt_ids([ASK]) == tokenizer(bound.prompt([ASK]), add_special_tokens=False).input_ids
    assert bound.encode_batch([ROW]) == plain.encode_batch([ROW])


def test_a_response_prefix_stands_in_the_place_of_what_thinking_supplies(bind: Any, tokenizer_for: Any) -> None:
    bound = bind(
        tokenizer_for(WRITES_IT.replace("answer at once", "think")), enable_thinking=False, response_prefix="So"
    )
    assert bound.prompt([ASK]).endswith("<|im_start|>assistant\nSo")


@pytest.mark.parametrize("settings", [{"template": "chatml"}, {"use_chat_template": False}])
def test_every_template_takes_a_response_prefix(settings: dict[str, Any], bind: Any, tokenizer_for: Any) -> None:
    tokenizer = tokenizer_for(None)
    plain, bound = bind(tokenizer, **settings), bind(tokenizer, **settings, response_prefix="Sure")
    assert bound.prompt([ASK]) == plain.prompt([ASK]) + "Sure"
    assert bound.prompt_ids([ASK])[: len(plain.prompt_ids([ASK]))] == plain.prompt_ids([ASK])


def test_an_answer_goes_back_into_the_conversation_as_it_was_written(bind: Any, tokenizer_for: Any) -> None:
    """The prompt of the next turn begins with the last prompt and the answer, reasoning apart that history drops."""
    keeps = HYBRID.replace("{{- m.content", "{{- m.content|trim")
    bound = bind(tokenizer_for(keeps))
    for written in ("<think>\nA greeting\n</think>\n\nHello", "Hello", "<think>\nA greeting"):
        after = bound.prompt([ASK, bound.message(written), {"role": "user", "content": "Bye"}])
        assert after.startswith(bound.prompt([ASK]) + written + END)
    drops = bind(tokenizer_for(CHATML_THINKING))
    divided = drops.message("<think>\nA greeting\n</think>\n\nHello")
    assert divided == {"role": "assistant", "content": "Hello", "reasoning_content": "A greeting"}


# Length


@settings(max_examples=25)
@given(
    answer=st.text("abc 天", min_size=1, max_size=40).filter(str.strip),
    limit=st.integers(1, 12),
    template=st.sampled_from([None, "chatml"]),
)
def test_a_row_that_is_split_loses_no_token(answer: str, limit: int, template: str | None) -> None:
    settings = {"loss_scale": "all", "use_chat_template": template is not None, "template": template}
    row = {"messages": [ASK, {"role": "assistant", "content": answer}]}
    run = martlet.prepare(roles=("template", "preview"), **settings)
    (whole,) = run.one("templates").bind(tiny_tokenizer(), run).encode_batch([row])
    run = martlet.prepare(roles=("template", "preview"), max_length=limit, truncation_strategy="split", **settings)
    found = run.one("templates").bind(tiny_tokenizer(), run).encode_batch([row, row])
    assert isinstance(whole, Encoded) and found[0] == found[1]
    parts = found[0] if isinstance(found[0], list) else [found[0]]
    assert isinstance(found[0], list) == (whole.length > limit)
    assert [token for part in parts for token in part.input_ids] == whole.input_ids
    assert [label for part in parts for label in part.labels] == whole.labels
    assert all(part.length == limit for part in parts[:-2]) and all(0 < part.length <= limit for part in parts)
    assert limit < 3 or all(part.length > 1 for part in parts)  # a token alone is never predicted


def test_split_is_refused_where_answers_are_trained_on() -> None:
    with pytest.raises(ConfigError, match=r"--truncation_strategy split is for pre-training.*--loss_scale all"):
        check(truncation_strategy="split")
    check(truncation_strategy="split", loss_scale="all")
    check(("template",), truncation_strategy="split")  # inference with what a checkpoint was trained with


# What cannot be


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_pixels": 1000}, r"--max_pixels 1000 .*takes text only"),
        ({"norm_bbox": "norm1000"}, r"--norm_bbox norm1000 .*takes text only"),
        ({"enable_thinking": True, "use_chat_template": False}, r"--enable_thinking true .*use_chat_template is false"),
    ],
)
def test_what_contradicts_is_refused_before_anything_is_loaded(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check(**settings)


def test_the_backend_named_swift_is_the_declarative_one(bind: Any, tokenizer_for: Any) -> None:
    with pytest.raises(martlet.UsageError, match="--template_backend swift: no declarative template is known"):
        bind(tokenizer_for(CHATML), template_backend="swift")


def test_a_truncated_side_is_refused_when_it_holds_no_answer(bind: Any, tokenizer_for: Any) -> None:
    for side, refused in (("right", True), ("left", False)):
        (found,) = bind(tokenizer_for(CHATML), max_length=4, truncation_strategy=side).encode_batch([ROW])
        assert isinstance(found, Refused) is refused
