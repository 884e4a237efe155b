"""Properties over generated conversations."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from martlet.protocols import Encoded, Refused
from martlet_sdk.tiny import CHATML, CHATML_THINKING, LLAMA3, tiny_tokenizer
from martlet_text.bound import Limits
from martlet_text.jinja import JinjaBound
from martlet_text.loss_scales import default, everything, last_round
from martlet_text.weights import Weights

TEMPLATES = {"chatml": CHATML, "thinking": CHATML_THINKING, "llama3": LLAMA3}
PIECES = [
    *"ab .\n\t\"'\\{}<>é天🙂\u00a0",
    "word", "two words", "\n\n", "<think>", "</think>", "<b>", "{{ x }}", "{% if %}", "/no_think", "[INST]",
    "<|im_end|>", "<|eot_id|>", "\ue000", "\U000f0001", "\ud83d",
]  # fmt: skip
TEXT = st.lists(st.sampled_from(PIECES), min_size=1, max_size=6).map("".join)
PLAIN = st.sampled_from(["Hi", "Hello you", "What is it", " spaced ", "line\nline", "x <b> y"])
ARGUMENTS = st.dictionaries(
    st.sampled_from("xyz"), st.one_of(TEXT, st.integers(), st.lists(PLAIN, max_size=2)), max_size=2
)


@st.composite
def conversations(draw: Any, text: Any = TEXT) -> dict[str, Any]:
    maybe = text | st.just("")
    messages = [{"role": "system", "content": draw(maybe)}] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        messages.append({"role": "user", "content": draw(text)})
        answer = {"role": "assistant", "content": draw(text)}
        if draw(st.integers(0, 3)) == 0:
            answer["reasoning_content"] = draw(text)
        if draw(st.integers(0, 5)) == 0:
            answer["loss"] = draw(st.booleans())
        if draw(st.integers(0, 3)) == 0:
            call = {"type": "function", "function": {"name": "look_up", "arguments": draw(ARGUMENTS)}}
            messages += [{**answer, "tool_calls": [call]}, {"role": "tool", "content": draw(maybe)}]
            answer = {"role": "assistant", "content": draw(text)}
        messages.append(answer)
    return {"messages": messages}


def bound(name: str, *, frames: bool, chain: Any = (default,)) -> JinjaBound:
    tokenizer = tiny_tokenizer(TEMPLATES[name])
    return JinjaBound(tokenizer, TEMPLATES[name], Weights(chain, ["x"] * len(chain)), Limits(), frames=frames)


def halves(messages: Any, spans: Any) -> list[Any]:
    """Weigh the first half of every span double."""
    cuts = [len(span.text) // 2 for span in spans]
    return [[(span.text[:cut], 2.0), (span.text[cut:], 1.0)] for span, cut in zip(spans, cuts, strict=True)]


FAST = {name: bound(name, frames=True) for name in TEMPLATES}
SLOW = {name: bound(name, frames=False) for name in TEMPLATES}
RELAXED = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize("name", TEMPLATES)
@RELAXED
@given(rows=st.lists(st.one_of(conversations(PLAIN), conversations()), min_size=1, max_size=8))
def test_frames_change_nothing(name: str, rows: list[dict[str, Any]]) -> None:
    """Ids, labels, weights and reasons are those of a full derivation, whatever was encoded before."""
    assert FAST[name].encode_batch(rows * 2) == SLOW[name].encode_batch(rows * 2)
    for row in rows:
        if isinstance(SLOW[name].encode_batch([row])[0], Encoded):
            assert FAST[name].spans(row) == SLOW[name].spans(row)


@pytest.mark.parametrize("chain", [(last_round,), (everything,), (default, halves), (last_round, halves)])
@RELAXED
@given(rows=st.lists(conversations(PLAIN), min_size=1, max_size=6))
def test_frames_change_no_weight(chain: Any, rows: list[dict[str, Any]]) -> None:
    fast, slow = bound("chatml", frames=True, chain=chain), bound("chatml", frames=False, chain=chain)
    assert fast.encode_batch(rows * 3) == slow.encode_batch(rows * 3)


@pytest.mark.parametrize("name", TEMPLATES)
@RELAXED
@given(row=conversations())
def test_every_row_is_encoded_or_refused(name: str, row: dict[str, Any]) -> None:
    """The ids are those of ``apply_chat_template``, and what is supervised decodes to what the spans say."""
    (found,) = FAST[name].encode_batch([row])
    if isinstance(found, Refused):
        assert found.reason
        return
    tokenizer = FAST[name].tokenizer
    spans = FAST[name].spans(row)
    text = "".join(span.text for span in spans)
    assert tokenizer.decode(found.input_ids) == text
    messages = [{key: value for key, value in m.items() if key != "loss"} for m in row["messages"]]
    if not any(token in m["content"] for m in messages for token in tokenizer.added_tokens_encoder):
        assert found.input_ids == tokenizer.apply_chat_template(messages, return_dict=False)
    skipped = [n for n, m in enumerate(row["messages"]) if m.get("loss") is False]
    written = "".join(span.text for span in spans if span.generated and span.message not in skipped)
    assert tokenizer.decode([label for label in found.labels if label != -100]) == written


@RELAXED
@given(row=conversations(PLAIN), limit=st.integers(1, 60), side=st.sampled_from(["left", "right"]))
def test_truncation_keeps_one_side(row: dict[str, Any], limit: int, side: str) -> None:
    (whole,) = SLOW["chatml"].encode_batch([row])
    cut = JinjaBound(SLOW["chatml"].tokenizer, CHATML, Weights((default,), ["default"]), Limits(limit, side))
    (found,) = cut.encode_batch([row])
    if isinstance(whole, Refused):
        assert found == whole
        return
    kept = slice(-limit, None) if side == "left" else slice(limit)
    if all(label == -100 for label in whole.labels[kept]):
        assert isinstance(found, Refused)
    else:
        assert (found.input_ids, found.labels) == (whole.input_ids[kept], whole.labels[kept])


def test_rows_of_one_shape_are_derived_in_full_a_few_times_only(monkeypatch: Any) -> None:
    fast = bound("chatml", frames=True)
    derivations = []
    derive = fast.derivation.derive
    monkeypatch.setattr(fast.derivation, "derive", lambda conversation: derivations.append(1) or derive(conversation))
    rows = [
        {"messages": [{"role": "user", "content": f"Question {n}"}, {"role": "assistant", "content": f"Answer {n}"}]}
        for n in range(1000)
    ]
    assert all(isinstance(found, Encoded) for found in fast.encode_batch(rows))
    assert len(derivations) <= 12


def test_an_empty_text_is_another_shape() -> None:
    fast, slow = bound("chatml", frames=True), bound("chatml", frames=False)
    rows = [
        {"messages": [{"role": "system", "content": system}, *CHAT]} for system in ("S", "S", "S", "S", "", "", "", "S")
    ]
    assert fast.encode_batch(rows) == slow.encode_batch(rows)


def test_an_id_that_is_not_rendered_is_checked_all_the_same() -> None:
    def row(number: str) -> dict[str, Any]:
        call = {"id": number, "type": "function", "function": {"name": "f", "arguments": {}}}
        answers = [{"role": "assistant", "content": "", "tool_calls": [call]}, {"role": "tool", "content": "x"}]
        return {"messages": [CHAT[0], *answers, CHAT[1]]}

    fast, slow = bound("chatml", frames=True), bound("chatml", frames=False)
    rows = [row(number) for number in ("1", "2", "3", "4", "5", "<|im_end|>")]
    assert fast.encode_batch(rows) == slow.encode_batch(rows)


CHAT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]


def test_a_frame_is_not_used_where_the_template_writes_something_else() -> None:
    """A template that looks at the text: rows of one shape, another rendering."""
    source = CHATML.replace(
        "{%- if message.content %}", "{%- if 'x' in message.content %}{{ '(x) ' }}{% endif %}{%- if message.content %}"
    )
    tokenizer = tiny_tokenizer(source)
    fast, slow = (
        JinjaBound(tokenizer, source, Weights((default,), ["default"]), Limits(), frames=frames)
        for frames in (True, False)
    )
    texts = ["plain", "more", "again", "box", "ax", "last"]
    rows = [
        {"messages": [{"role": "user", "content": one}, {"role": "assistant", "content": other}]}
        for one in texts
        for other in texts
    ]
    assert fast.encode_batch(rows) == slow.encode_batch(rows)
    assert "(x) " in "".join(span.text for span in fast.spans(rows[-2]))
