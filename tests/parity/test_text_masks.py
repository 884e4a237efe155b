"""Masks for the chat templates that TRL ships, against the marks of its training variants.

TRL's wheel holds the chat templates of many families as published, and for most of them a variant with
``{% generation %}`` marks. The convention of ``docs/explanation/masks.md`` explains every token where those marks and
ours differ.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from itertools import groupby
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from martlet.protocols import Encoded, Refused
from martlet_sdk.tiny import tiny_tokenizer
from martlet_text.bound import Limits
from martlet_text.jinja import JinjaBound
from martlet_text.loss_scales import default
from martlet_text.weights import Weights

FOLDER = files("trl") / "chat_templates"
SOURCES = {entry.name.removesuffix(".jinja"): entry.read_text() for entry in FOLDER.iterdir() if ".jinja" in entry.name}
NAMES = sorted(name for name in SOURCES if not name.endswith("_training"))
MARKED = {name: SOURCES.get(f"{name}_training", SOURCES[name]) for name in NAMES}
MARKED = {name: source for name, source in MARKED.items() if "generation" in source.replace("add_generation", "")}

SPECIAL = re.compile(
    r"<[|｜][^<>\s|｜]{1,40}[|｜]>|<\|[a-z_]+>|<[a-z_]+\|>|<(?:start|end)_of_\w+>|<end_of_utterance>|\[/?INST\]|\[gMASK\]|<sop>"
)


@cache
def tokenizer() -> Any:
    """Return a tokenizer with the special tokens of all families."""
    found = tiny_tokenizer(None)
    special = {token for source in SOURCES.values() for token in SPECIAL.findall(source)} | {"<bos>", "<eos>", "</s>"}
    found.add_special_tokens({"additional_special_tokens": sorted(special)})
    found.add_tokens(["<think>", "</think>", "<tool_call>", "</tool_call>"])
    found.bos_token, found.eos_token = "<bos>", "<eos>"
    return found


@cache
def bound(name: str, frames: bool = True) -> JinjaBound:
    return JinjaBound(tokenizer(), SOURCES[name], Weights((default,), ("default",)), Limits(), frames=frames)


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def answer(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


def call(**arguments: Any) -> dict[str, Any]:
    return {"type": "function", "id": "call_0001", "function": {"name": "weather", "arguments": arguments}}


RESULT = {"role": "tool", "content": "25 degrees", "tool_call_id": "call_0001", "name": "weather"}
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string", "description": "City"}}, "required": ["city"]}
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "Look it up", "parameters": PARAMETERS}}]
SYSTEM = {"role": "system", "content": "Be kind"}
CONVERSATIONS: dict[str, list[dict[str, Any]]] = {
    "single": [user("Hi there"), answer("Hello you")],
    "system": [SYSTEM, user("Hi there"), answer("Hello you")],
    "turns": [user("Hi there"), answer("Hello you"), user("Bye now"), answer("See you")],
    "reasoning": [
        user("Hi there"),
        answer("Hello you", reasoning_content="A greeting"),
        user("Bye now"),
        answer("See you", reasoning_content="They leave"),
    ],
    "reasoning in content": [
        user("Hi there"),
        answer("<think>\nA greeting\n</think>\n\nHello you"),
        user("Bye now"),
        answer("<think>\nThey leave\n</think>\n\nSee you"),
    ],
    "blanks": [user(" Hi there\n"), answer("\n Hello you \n"), user("Bye now "), answer(" See you\n\n")],
    "tool": [user("Weather?"), answer("", tool_calls=[call(city="Paris")]), RESULT, answer("It is sunny")],
    "bare call": [user("Weather?"), answer("", tool_calls=[call()]), RESULT, answer("It is sunny")],
    "tools and text": [
        user("Weather?"),
        answer("Let me look", tool_calls=[call(city="Paris")]),
        RESULT,
        answer("It is sunny"),
        user("And there?"),
        answer("", reasoning_content="Again", tool_calls=[call(city="Rome", days=3)]),
        RESULT,
        answer("It is sunny there"),
    ],
    "answers in a row": [user("Hi there"), answer("Hello you"), answer("More"), user("Bye now"), answer("See you")],
    "greeting": [SYSTEM, answer("Welcome"), user("Hi there"), answer("Hello you")],
}


def row(case: str) -> dict[str, Any]:
    messages = CONVERSATIONS[case]
    return {"messages": messages, "tools": TOOLS if RESULT in messages else None}


WITH_CALLS = {"tool", "bare call", "tools and text"}
STRICT = {*WITH_CALLS, "answers in a row", "greeting"}
REFUSED: dict[tuple[str, ...], tuple[str, set[str]]] = {
    ("cohere", "cohere2", "gemma3"): ("template refuses", STRICT),
    ("gemma",): ("template refuses", {*STRICT, "system"}),
    ("llava_next",): ("template refuses", WITH_CALLS),
    # These write no tool calls, so training on the row would teach to answer without one.
    ("deepseek_r1_distill", "idefics3", "lfm2", "llama3", "phi3", "phi3_5", "qwen2_5_vl", "smolvlm"): (
        "does not appear",
        WITH_CALLS,
    ),
    # These write the result of a call before the text that came with the call.
    ("diffusion_gemma", "gemma4", "gemma4_v3", "gemma4_v4", "gemma4_v5"): ("in pieces", {"tools and text"}),
    # This leaves the assistant's header out of every call but the first.
    ("deepseekv3",): ("but its generation prompt ends with", {"tools and text"}),
    # These want a question before the first answer.
    ("qwen3_5_nothink", "qwen3_5_think", "qwen3_6", "qwen3_8"): ("has no generation prompt", {"greeting"}),
}
"""What is refused, and the words that say why: everything else has a proven mask."""


def why_refused(name: str, case: str) -> str:
    return next((why for names, (why, cases) in REFUSED.items() if name in names and case in cases), "")


def test_the_templates_are_those_that_were_looked_at() -> None:
    """A new release of TRL brings new templates: look at their masks, then raise the numbers."""
    assert (len(NAMES), len(MARKED)) == (41, 34)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", CONVERSATIONS)
def test_a_row_is_encoded_as_apply_chat_template_does_or_refused(name: str, case: str) -> None:
    (found,) = bound(name).encode_batch([row(case)])
    reason = why_refused(name, case)
    if reason:
        assert isinstance(found, Refused), f"{name} encodes {case}"
        assert reason in f"{found.reason}: {found.detail}"
        return
    assert isinstance(found, Encoded), f"{name} refuses {case}: {found}"
    messages = [bound(name).renderer.adapted(message) for message in read(case)]
    same = tokenizer().apply_chat_template(
        messages, chat_template=SOURCES[name], tools=row(case)["tools"], tokenize=True, return_dict=False
    )
    assert found.input_ids == same
    assert found.input_ids.count(tokenizer().bos_token_id) <= 1


def read(case: str) -> list[dict[str, Any]]:
    from martlet_text.conversation import read

    return read(row(case)).messages


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", CONVERSATIONS)
def test_answers_are_supervised_and_nothing_else_is(name: str, case: str) -> None:
    """What the template writes of an answer is in the supervised text, and nothing of the other messages is."""
    if why_refused(name, case):
        return
    (found,) = bound(name).encode_batch([row(case)])
    pairs = groupby(zip(found.input_ids, found.labels, strict=True), key=lambda pair: pair[1] != -100)
    written = " ".join(tokenizer().decode([token for token, _ in pairs_]) for kept, pairs_ in pairs if kept)
    for message in CONVERSATIONS[case]:
        words = message["content"].rpartition("</think>")[2].strip()
        if message["role"] == "assistant":
            assert words in written or words not in tokenizer().decode(found.input_ids)
        else:
            assert words not in written
    if CONVERSATIONS[case][-1].get("reasoning_content") and "They leave" in tokenizer().decode(found.input_ids):
        assert "They leave" in written
    for city in ("Paris", "Rome"):
        assert (city in written) == (city in str(CONVERSATIONS[case]))


NOT_STABLE = ["qwen3", "nemotron_3_nano", "nemotron_3_super", "nemotron_3_ultra", "phi3", "phi3_5", "gptoss", "glm4moe"]


@pytest.mark.parametrize("name", NOT_STABLE)
def test_turns_of_templates_that_rewrite_history_end_with_their_token(name: str) -> None:
    renderer = bound(name).renderer
    messages = read("reasoning")
    whole = renderer(messages, None, False)
    assert not all(whole.startswith(renderer(messages[:n], None, False)) for n in (2, 3))
    spans = [span for span in bound(name).spans(row("reasoning")) if span.generated]
    assert len(spans) == 2
    ends = {"glm4moe": "<|user|>", "gptoss": "<|end|>", "phi3": "<|end|>", "phi3_5": "<|end|>"}
    assert spans[0].text.endswith("Hello you" + ends.get(name, "<|im_end|>"))


OTHER_TEXT = {
    "deepseek_r1_distill": "keeps reasoning that the plain template drops",
    "deepseekv3": "writes the arguments of a call as a JSON string of JSON",
    "glm4moe": "writes the next header behind the last answer",
    "qwen3": "writes a think block in every turn",
    "qwen3_5_nothink": "writes a think block in every turn",
    "qwen3_5_think": "writes a think block in every turn",
    "qwen3_6": "writes a think block in every turn",
}
"""Training variants that render other text than the plain template, so that their marks are of other tokens."""


def marks_of(name: str, case: str) -> tuple[list[int], list[int]]:
    """Return ids and marks of the training variant."""
    messages = [bound(name).renderer.adapted(message) for message in read(case)]
    found = tokenizer().apply_chat_template(
        messages,
        chat_template=MARKED[name],
        tools=row(case)["tools"],
        tokenize=True,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    return found["input_ids"], found["assistant_masks"]


def explained(name: str, case: str, text: str, ours: bool, before: str) -> str:
    """Return the rule of the convention by which a run of tokens is marked by one side only; empty if there is none.

    ``before``: the rendering up to the run's end.
    """
    if not ours and not text.strip():
        return "white space behind the end of turn"
    prompts = [prompt(name, case, n) for n, message in enumerate(read(case)) if message["role"] == "assistant"]
    if not ours and any(end.rstrip().endswith(text.rstrip()) for end in prompts):
        return "supplied by the generation prompt"
    openers = [end[len(rest) :] for end, rest in zip(prompts, plain_prompts(name, case), strict=True)]
    if not ours and any(opener.lstrip().startswith(text.strip()) for opener in openers):
        return "header of the generation prompt"
    if ours and name == "diffusion_gemma" and text == "<|tool_response>":
        return "end of turn of a tool call"
    if ours and name == "diffusion_gemma" and text == "<|turn>model\n":
        return "header behind a tool result, where the generation prompt has none"
    return ""


def prompt(name: str, case: str, count: int) -> str:
    return bound(name).renderer(read(case)[:count], row(case)["tools"], True)


def plain_prompts(name: str, case: str) -> list[str]:
    """Return what stands before each generation prompt: the common beginning of the prompt and of no prompt."""
    found = []
    for n, message in enumerate(read(case)):
        if message["role"] == "assistant":
            one = prompt(name, case, n)
            other = bound(name).renderer(read(case)[:n], row(case)["tools"], False)
            length = next(
                (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
            )
            found.append(one[:length])
    return found


@pytest.mark.parametrize("name", MARKED)
def test_every_difference_from_the_marks_of_the_training_variant_is_explained(name: str) -> None:
    compared = 0
    for case in CONVERSATIONS:
        if why_refused(name, case):
            continue
        (found,) = bound(name).encode_batch([row(case)])
        ids, marks = marks_of(name, case)
        if ids != found.input_ids:
            assert name in OTHER_TEXT, f"{name} renders {case} otherwise"
            continue
        compared += 1
        sides = [(label != -100, bool(mark)) for label, mark in zip(found.labels, marks, strict=True)]
        place = 0
        for side, run in groupby(sides):
            length = len(list(run))
            text = tokenizer().decode(ids[place : place + length])
            place += length
            if side[0] != side[1]:
                before = tokenizer().decode(ids[:place])
                assert explained(name, case, text, side[0], before), f"{name}, {case}: {text!r} of {side}"
    assert compared or name == "glm4moe"


@pytest.mark.parametrize("name", OTHER_TEXT)
def test_training_variants_that_render_other_text_do_so(name: str) -> None:
    cases = [case for case in CONVERSATIONS if not why_refused(name, case)]
    assert any(marks_of(name, case)[0] != bound(name).encode_batch([row(case)])[0].input_ids for case in cases)


WORDS = st.sampled_from(
    ["Hi", "Hello you", "What is it?", " spaced ", "line\nline\n", "a <b> c", "é 天 🙂", "/no_think"]
)
WILD = st.lists(
    st.sampled_from([*"ab \n<>\"'{}", "<think>", "</think>", "<|im_end|>", "\U000f0002", "<tool_response>", "[INST]"]),
    min_size=1,
    max_size=5,
).map("".join)


@st.composite
def conversations(draw: Any) -> dict[str, Any]:
    text = draw(st.sampled_from([WORDS, WORDS, WILD]))
    messages = [{"role": "system", "content": draw(text)}] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 2))):
        more = {"reasoning_content": draw(text)} if draw(st.integers(0, 3)) == 0 else {}
        messages.append(user(draw(text)))
        if draw(st.integers(0, 3)) == 0:
            calls = [call(city=draw(text), days=draw(st.integers(0, 2)))]
            messages += [
                answer(draw(st.sampled_from(["", "Look"])), tool_calls=calls),
                {**RESULT, "content": draw(text)},
            ]
        messages.append(answer(draw(text), **more))
    return {"messages": messages, "tools": TOOLS if draw(st.integers(0, 3)) == 0 else None}


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=12, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(rows=st.lists(conversations(), min_size=1, max_size=5))
def test_the_fast_path_gives_what_a_full_derivation_gives(name: str, rows: list[dict[str, Any]]) -> None:
    fast, slow = bound(name).encode_batch(rows * 3), bound(name, frames=False).encode_batch(rows)
    assert fast == slow * 3
    for given_row, found in zip(rows, slow, strict=True):
        if isinstance(found, Encoded):
            assert tokenizer().decode(found.input_ids) == "".join(s.text for s in bound(name).spans(given_row))


@pytest.mark.parametrize(
    ("name", "published"), [("chatml", "qwen2_5"), ("chatml", "qwen3_instruct_2507"), ("llama3", "llama3")]
)
@pytest.mark.parametrize("case", ["system", "turns", "blanks"])
def test_declarative_templates_are_the_published_ones(name: str, published: str, case: str) -> None:
    """Given the same system message (Qwen 2.5 has one of its own), text, ids and labels are the same."""
    import martlet

    run = martlet.prepare(roles=("template",), template=name)
    declared = run.one("templates").bind(tokenizer(), run)
    messages = CONVERSATIONS[case] if case == "system" or name == "llama3" else [SYSTEM, *CONVERSATIONS[case]]
    given_row = {"messages": messages}
    assert declared.spans(given_row) == bound(published).spans(given_row)
    assert declared.encode_batch([given_row]) == bound(published).encode_batch([given_row])
