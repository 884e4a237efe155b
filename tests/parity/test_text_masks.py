"""Masks for the chat templates that TRL ships, against the marks of its training variants.

TRL's wheel holds the chat templates of many families as published, and for most of them a variant with
``{% generation %}`` marks. The convention of ``docs/explanation/masks.md`` explains every token where those marks and
ours differ.
"""

from __future__ import annotations

from itertools import groupby
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from martlet.protocols import Encoded, Refused

from .conversations import (
    CONVERSATIONS,
    MARKED,
    NAMES,
    RESULT,
    SOURCES,
    SYSTEM,
    TOOLS,
    answer,
    bind,
    bound,
    call,
    read,
    row,
    tokenizer,
    user,
)

WITH_CALLS = {case for case, messages in CONVERSATIONS.items() if "tool_calls" in str(messages)}
STRICT = {*WITH_CALLS, "answers in a row", "greeting"}
REFUSED: tuple[tuple[set[str], str, set[str]], ...] = (
    # These show no reasoning at all, or none that stands alone.
    (
        {name for name in NAMES if "reasoning_content" not in SOURCES[name] and "thinking" not in SOURCES[name]}
        | {"deepseek_r1_distill", "gemma4", "gemma4_v2", "gemma4_v3", "gemma4_v4", "lfm2_v2", "qwen3_vl"},
        "does not appear",
        {"nothing but reasoning"},
    ),
    ({"cohere", "cohere2", "gemma3", "gemma", "llava_next"}, "calls no tool there", {"a call at the end"}),
    ({"gemma"}, "template refuses: System role", {"system", "thinking and calls", "greeting"}),
    ({"cohere", "cohere2", "gemma3", "gemma"}, "template refuses: Conversation roles", STRICT),
    ({"llava_next"}, "template refuses: Only user and assistant", WITH_CALLS),
    # These write no tool calls, so training on the row would teach to answer without one.
    (
        {"deepseek_r1_distill", "idefics3", "lfm2", "llama3", "phi3", "phi3_5", "qwen2_5_vl", "smolvlm"},
        "",
        WITH_CALLS,
    ),
    # These write the result of a call before the text that came with the call.
    (
        {"diffusion_gemma", "gemma4", "gemma4_v3", "gemma4_v4", "gemma4_v5"},
        "in pieces",
        {"tools and text", "calls and text", "thinking, text and calls"},
    ),
    # This leaves the assistant's header out of every call but the first.
    ({"deepseekv3"}, "but its generation prompt ends with", {"tools and text", "one call after another"}),
    (
        {"llama3_1", "llama3_2"},
        "template refuses: This model only supports single",
        {"several calls", "calls and text"},
    ),
    # This writes the first of several calls, and takes either text or reasoning with a call.
    ({"gptoss"}, "calls weather, which the template leaves out", {"several calls", "calls and text"}),
    ({"gptoss"}, "template refuses: Cannot pass both content and thinking", {"thinking, text and calls"}),
    # These want a question before the first answer.
    ({"qwen3_5_nothink", "qwen3_5_think", "qwen3_6", "qwen3_8"}, "has no generation prompt", {"greeting"}),
)
"""Which templates refuse what, and the words that say why, the first that fits: all else has a proven mask."""
NO_PLACE = ("does not appear in the rendering", "do not appear in the rendering", "which the template leaves out")


def why_refused(name: str, case: str) -> tuple[str, ...]:
    """Return the words of which the refusal holds one; empty where there is none."""
    why = next((why for names, why, cases in REFUSED if name in names and case in cases), None)
    return () if why is None else (why,) if why else NO_PLACE


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
        assert any(words in f"{found.reason}: {found.detail}" for words in reason), found
        return
    assert isinstance(found, Encoded), f"{name} refuses {case}: {found}"
    messages = [bound(name).renderer.adapted(message) for message in read(case)]
    same = tokenizer().apply_chat_template(
        messages, chat_template=SOURCES[name], tools=row(case)["tools"], tokenize=True, return_dict=False
    )
    assert found.input_ids == same
    assert found.input_ids.count(tokenizer().bos_token_id) <= 1


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
    shared = before.rstrip()[-len(text.rstrip()) - 15 :]
    if not ours and any(shared in end for end in prompts):
        return "stands in the generation prompt as well, which goes on otherwise"
    if ours and name == "diffusion_gemma" and text == "<|tool_response>":
        return "end of turn of a tool call"
    shared = before.rstrip()[-len(text.rstrip()) - 15 :]
    if not ours and any(shared in end for end in prompts):
        return "stands in the generation prompt as well, which goes on otherwise"
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
@settings(max_examples=12, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
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


# The training variants as a model's own templates, and answers that go back into a conversation


OURS = {("diffusion_gemma", "<|tool_response>"): "the end of turn of a tool call"}
"""What is supervised beside the marks of the template itself."""


@pytest.mark.parametrize("name", MARKED)
def test_a_templates_own_marks_decide_but_for_the_convention(name: str) -> None:
    """Trained on is what is marked, without what the prompt supplies, with the end of turn, without space behind it."""
    template, encoded = bind(MARKED[name]), 0
    for case in CONVERSATIONS:
        (found,) = template.encode_batch([row(case)])
        if isinstance(found, Refused):
            assert why_refused(name, case), found
            continue
        messages = [template.renderer.adapted(message) for message in read(case)]
        theirs = tokenizer().apply_chat_template(
            messages,
            chat_template=MARKED[name],
            tools=row(case)["tools"],
            return_dict=True,
            return_assistant_tokens_mask=True,
        )
        assert found.input_ids == theirs["input_ids"]
        encoded += 1
        place = 0
        for (ours, marked), run in groupby(
            (label != -100, bool(mark)) for label, mark in zip(found.labels, theirs["assistant_masks"], strict=True)
        ):
            length = len(list(run))
            text = tokenizer().decode(found.input_ids[place : place + length])
            place += length
            if ours and not marked:
                assert (name, text) in OURS, f"{name}, {case}: {text!r}"
            elif marked and not ours and text.strip():
                shared = tokenizer().decode(found.input_ids[:place]).rstrip()[-len(text.rstrip()) - 9 :]
                prompts = [
                    template.renderer(read(case)[:n], row(case)["tools"], True)
                    for n, message in enumerate(read(case))
                    if message["role"] == "assistant"
                ]
                assert any(shared in prompt for prompt in prompts), f"{name}, {case}: {text!r}"
    assert encoded


@pytest.mark.parametrize("case", ["single", "reasoning"])
@pytest.mark.parametrize("name", NAMES)
def test_an_answer_goes_back_into_the_conversation_as_the_template_wants_it(name: str, case: str) -> None:
    """A chat goes on with the text that the model wrote: its prompt is that of the same message in a dataset."""
    template = bound(name)
    asked, said = read(case)[0], read(case)[1]
    spans = [span.text for span in template.spans({"messages": [asked, said]}) if span.generated]
    ids = tokenizer()("".join(spans), add_special_tokens=False).input_ids
    stop = next((place for place, token in enumerate(ids) if token in template.stop_ids), len(ids))
    again = template.message(template.decode(ids[: stop + 1]))
    more = user("Bye now")
    assert template.prompt([asked, again, more]) == template.prompt([asked, said, more])
