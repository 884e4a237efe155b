"""Declarative templates against the chat templates that TRL ships: the same text, the same prompts, the same mask.

A row with reasoning stands to its prompt as the published template does when asked to reason, a row without as it
does when asked not to. Reasoning of earlier turns is treated as in inference: the rows are weighted by the last round.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import martlet
from martlet import Template
from martlet.protocols import Encoded
from martlet_text.bound import Limits, Thinking
from martlet_text.declarative import DeclarativeBound
from martlet_text.families import templates
from martlet_text.jinja import JinjaBound
from martlet_text.loss_scales import default, last_round
from martlet_text.renderer import Renderer
from martlet_text.weights import Weights

from .test_text_masks import RESULT, SOURCES, TOOLS, answer, call, tokenizer, user

ENTRIES: dict[str, Template] = {spec.name: spec for spec in templates()}
PAIRS = [
    ("command_r", "cohere"),
    ("deepseek_r1", "deepseek_r1_distill"),
    ("deepseek_r1", "deepseekv3"),
    ("gemma", "gemma"),
    ("gemma3", "gemma3"),
    ("gemma4", "gemma4"),
    ("gemma4", "gemma4_v5"),
    ("gemma4_thinking", "gemma4_v5"),
    ("glm4_5", "glm4moe"),
    ("gpt_oss", "gptoss"),
    ("lfm2", "lfm2"),
    ("lfm2", "lfm2_v2"),
    ("lfm2_5", "lfm2_2_5"),
    ("llama3", "llama3"),
    ("llama3_1", "llama3_1"),
    ("llama3_2", "llama3_2"),
    ("nemotron_3", "nemotron_3_ultra"),
    ("nemotron_3", "nemotron_3_5_lightning"),
    ("nemotron_3_nano", "nemotron_3_nano"),
    ("nemotron_3_nano", "nemotron_3_super"),
    ("phi3", "phi3"),
    ("phi3", "phi3_5"),
    ("qwen2_5", "qwen2_5"),
    ("qwen3", "qwen3"),
    ("qwen3_5", "qwen3_5_think"),
    ("qwen3_5", "qwen3_6"),
    ("qwen3_nothinking", "qwen3_instruct_2507"),
]
ASKED = {"gemma4_thinking": True}
"""Entries for one mode of a family, and what ``enable_thinking`` is there."""
SHOWS_NO_REASONING = {"deepseek_r1_distill", "deepseekv3", "gemma4"}
"""Published templates that leave reasoning out of a rendering, though their models write it."""


@cache
def declared(name: str, enabled: bool | None = None, whole: bool = False) -> DeclarativeBound:
    scale = default if whole else last_round
    thinking = Thinking(enabled=enabled, last_only=not whole)
    return DeclarativeBound(tokenizer(), ENTRIES[name], Weights((scale,), ("scale",)), Limits(), None, thinking)


@cache
def derived(published: str, enabled: bool | None) -> JinjaBound:
    thinking = Thinking(enabled=enabled, fill=False, last_only=True)
    return JinjaBound(
        tokenizer(), SOURCES[published], Weights((last_round,), ("last_round",)), Limits(), None, thinking
    )


@cache
def renderer(published: str, enabled: bool | None) -> Renderer:
    found = Renderer(SOURCES[published], dict(tokenizer().special_tokens_map)).thinking(enabled)
    found.adapt()
    return found


def prompted(published: str, messages: list[dict[str, Any]], enabled: bool | None) -> str:
    return renderer(published, enabled)(messages, None, True)


WORDS = st.text("ab c.é🙂天\n{}", min_size=1, max_size=9).map(lambda text: f"x{text}x")


@st.composite
def conversations(draw: Any, *, system: bool, reasons: bool) -> list[dict[str, Any]]:
    messages = [{"role": "system", "content": draw(WORDS)}] if system and draw(st.booleans()) else []
    thinks = reasons and draw(st.booleans())
    for _ in range(draw(st.integers(1, 3))):
        thoughts = draw(WORDS) if thinks else ""
        more = {"reasoning_content": thoughts, "thinking": thoughts} if thinks else {}
        messages += [user(draw(WORDS)), answer(draw(WORDS), **more)]
    return messages


def drawn(data: Any, name: str, published: str) -> list[dict[str, Any]]:
    spec = ENTRIES[name]
    reasons = bool(spec.thinking) and published not in SHOWS_NO_REASONING
    return data.draw(conversations(system=bool(spec.system), reasons=reasons))


def mode_of(spec: Template, messages: list[dict[str, Any]]) -> bool | None:
    """Say what ``enable_thinking`` is where the last answer has been given."""
    hybrid = spec.thinking and spec.non_thinking_prefix
    return "reasoning_content" in messages[-1] if hybrid else ASKED.get(spec.name)


def asked_off(name: str, enabled: bool | None, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """GLM 4.5 writes /nothink behind every question that does not end with it, where thinking is off."""
    if name != "glm4_5" or enabled is not False:
        return messages
    return [{**m, "content": m["content"] + "/nothink"} if m["role"] == "user" else m for m in messages]


quick = settings(max_examples=10, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize(("name", "published"), PAIRS)
@quick
@given(data=st.data())
def test_a_prompt_is_the_published_one(name: str, published: str, data: Any) -> None:
    spec = ENTRIES[name]
    hybrid = spec.thinking and spec.non_thinking_prefix
    enabled = data.draw(st.sampled_from([None, True, False])) if hybrid else ASKED.get(name)
    messages = asked_off(name, enabled, drawn(data, name, published)[:-1])
    assert declared(name, enabled).prompt(messages) == prompted(published, messages, enabled)


@pytest.mark.parametrize(("name", "published"), PAIRS)
@quick
@given(data=st.data())
def test_a_row_is_a_published_prompt_and_what_the_model_writes_then(name: str, published: str, data: Any) -> None:
    """And what it writes is, to the token, what the published template shows behind that prompt."""
    messages = drawn(data, name, published)
    enabled = mode_of(ENTRIES[name], messages)
    messages = asked_off(name, enabled, messages)
    spans = declared(name).spans({"messages": messages})
    text = "".join(span.text for span in spans)
    written = next(span.text for span in reversed(spans) if span.generated)
    before = text[: text.rindex(written)]
    if ENTRIES[name].thinking_prefix and enabled is None and "reasoning_content" not in messages[-1]:
        before += ENTRIES[name].thinking_prefix  # a model that always reasons; this answer does not show it
    assert before == prompted(published, messages[:-1], enabled)
    mine = [(span.text, span.message) for span in spans if span.generated]
    theirs = [s for s in derived(published, enabled).spans({"messages": messages}) if s.generated]
    assert [place for _, place in mine] == [span.message for span in theirs]
    for (text, place), span in zip(mine, theirs, strict=True):
        assert same(text, span.text, ENTRIES[name], last=place == len(messages) - 1), (text, span.text)


def same(mine: str, theirs: str, spec: Template, *, last: bool) -> bool:
    """Compare two answers; what differs is what the convention explains."""
    shown = theirs
    for supplied in (spec.history or "", spec.non_thinking_prefix):  # the Jinja template writes it unasked
        shown = min((shown.removeprefix(supplied[start:]) for start in range(len(supplied))), key=len, default=shown)
    if spec.name == "phi3":
        shown = shown.removesuffix(f"\n{tokenizer().eos_token}")  # Phi 3 ends a text with one more token
    if spec.name == "glm4_5" and last:
        shown += spec.suffix  # the template writes nothing behind the last answer; the model ends it like the others
    return mine.lstrip("\n") == shown.lstrip("\n")


@pytest.mark.parametrize(("name", "published"), [pair for pair in PAIRS if not ENTRIES[pair[0]].thinking])
@quick
@given(data=st.data())
def test_the_tokens_are_those_of_apply_chat_template(name: str, published: str, data: Any) -> None:
    """With one token at the beginning of text, and the end of every turn trained on."""
    messages = drawn(data, name, published)
    (found,) = declared(name, whole=True).encode_batch([{"messages": messages}])
    assert isinstance(found, Encoded)
    same = tokenizer().apply_chat_template(messages, chat_template=SOURCES[published], tokenize=True, return_dict=False)
    extra = [tokenizer().eos_token_id] if name == "phi3" else []
    assert found.input_ids + extra == same
    assert found.input_ids.count(tokenizer().bos_token_id) == ENTRIES[name].prefix.count("{bos}")
    (end,) = tokenizer()(ENTRIES[name].suffix.strip(), add_special_tokens=False).input_ids
    answers = sum(message["role"] == "assistant" for message in messages)
    assert [label for label in found.labels if label == end] == [end] * answers


@pytest.mark.parametrize("name", ["qwen3", "glm4_5", "nemotron_3", "gpt_oss", "deepseek_r1", "qwen3_5", "lfm2_5"])
def test_every_round_keeps_its_reasoning_where_every_round_is_trained_on(name: str) -> None:
    more = [{"reasoning_content": text, "thinking": text} for text in ("First", "Second")]
    row = {"messages": [user("One"), answer("A", **more[0]), user("Two"), answer("B", **more[1])]}
    for whole, shown in ((True, 1), (False, 0)):
        (found,) = declared(name, whole=whole).encode_batch([row])
        assert isinstance(found, Encoded)
        text = tokenizer().decode(found.input_ids)
        assert (text.count("First"), text.count("Second")) == (shown, 1)


WITH_TOOLS = [
    ("gemma4", "gemma4_v5"),
    ("glm4_5", "glm4moe"),
    ("qwen2_5", "qwen2_5"),
    ("qwen3", "qwen3"),
    ("qwen3_nothinking", "qwen3_instruct_2507"),
]
"""Entries that name an agent template, held to a template that TRL ships."""


@st.composite
def consultations(draw: Any, *, reasons: bool, words: bool) -> list[dict[str, Any]]:
    """Questions that are answered after one or two rounds of calls, each call with its result."""

    def thoughts() -> dict[str, str]:
        text = draw(WORDS) if reasons else ""
        return {"reasoning_content": text, "thinking": text} if reasons else {}

    messages = [{"role": "system", "content": draw(WORDS)}] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 2))):
        messages.append(user(draw(WORDS)))
        for _ in range(draw(st.integers(1, 2))):
            calls = [
                {**call(city=draw(WORDS), days=draw(st.integers(0, 9))), "id": f"c{n}"}
                for n in range(draw(st.integers(1, 2)))
            ]
            messages.append(
                answer(draw(st.sampled_from(["", "Look"])) if words else "", tool_calls=calls, **thoughts())
            )
            messages += [{**RESULT, "content": draw(WORDS), "tool_call_id": f"c{n}"} for n in range(len(calls))]
        messages.append(answer(draw(WORDS), **thoughts()))
    return messages


def with_agent(name: str, enabled: bool | None) -> DeclarativeBound:
    spec, thinking = ENTRIES[name], Thinking(enabled=enabled, last_only=True)
    agent = martlet.get("agent_templates", spec.agent_template)
    return DeclarativeBound(tokenizer(), spec, Weights((last_round,), ("scale",)), Limits(), None, thinking, agent)


@pytest.mark.parametrize(("name", "published"), WITH_TOOLS)
@quick
@given(data=st.data(), tools=st.booleans())
def test_tools_calls_and_results_are_the_published_ones(name: str, published: str, data: Any, tools: bool) -> None:
    spec = ENTRIES[name]
    hybrid = bool(spec.non_thinking_prefix)
    reasons = hybrid and data.draw(st.booleans())
    words = name != "gemma4"  # which writes the words that come with a call behind its result
    messages, given_tools = data.draw(consultations(reasons=reasons, words=words)), TOOLS if tools else None
    enabled = reasons if hybrid else None
    messages = asked_off(name, enabled, messages)
    bound = with_agent(name, enabled)
    for end in [n for n, message in enumerate(messages) if message["role"] == "assistant"]:
        expected = renderer(published, enabled)(messages[:end], given_tools, True)
        assert bound.prompt(messages[:end], given_tools) == expected
    if hybrid and not reasons:
        return  # each answer of the row has the block that its own prompt supplies; history shows none
    whole = renderer(published, enabled)(messages, given_tools, False)
    spans = bound.spans({"messages": messages, "tools": given_tools})
    text = "".join(span.text for span in spans).rstrip()
    assert text == whole.rstrip() + (spec.suffix if name == "glm4_5" else "")
    generated = [span for span in spans if span.generated]
    assert [span.message for span in generated] == [n for n, m in enumerate(messages) if m["role"] == "assistant"]
    for span in generated:
        assert all(made["function"]["name"] in span.text for made in messages[span.message].get("tool_calls", ()))
