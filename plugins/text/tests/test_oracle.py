"""Masks against an oracle that knows each template's headers and ends, and nothing of how masks are derived.

It holds for texts that look like no part of a template: an answer begins behind the header, and behind what both the
header's place and the generation prompt have there, and ends with the last end of turn before somebody else's header.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from martlet.protocols import Encoded
from martlet_sdk.tiny import CHATML, CHATML_THINKING, LLAMA3, tiny_tokenizer
from martlet_text.bound import Limits
from martlet_text.jinja import JinjaBound
from martlet_text.loss_scales import default, last_round
from martlet_text.weights import Weights

OPENING = CHATML_THINKING.partition("{%- if add_generation_prompt %}")[0]
OPENING += "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n<think>\\n' }}{% endif %}"
"""Its prompt opens the reasoning."""
CHATML_PARTS = ("<|im_start|>assistant\n", "<|im_end|>", ("<|im_start|>user", "<|im_start|>tool"))
LLAMA3_PARTS = (
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "<|eot_id|>",
    ("<|start_header_id|>user", "<|start_header_id|>ipython", "<|start_header_id|>tool"),
)
TEMPLATES = {
    "chatml": (CHATML, CHATML_PARTS),
    "thinking": (CHATML_THINKING, CHATML_PARTS),
    "opening": (OPENING, CHATML_PARTS),
    "llama3": (LLAMA3, LLAMA3_PARTS),
}
BOUND = {
    (name, scale): JinjaBound(tiny_tokenizer(source), source, Weights((scale,), (scale.__name__,)), Limits())
    for name, (source, _) in TEMPLATES.items()
    for scale in (default, last_round)
}
ATOM = re.compile(r"<[^<>\s]+>|.", re.DOTALL)
WORDS = st.sampled_from(
    ["word", "two words", "a\nb", "天空 é", "🙂", "1. x\n2. y", "{{ x }}", "a < b", "<b>c</b>", "User:"]
)
TEXT = st.builds(
    "{}{}{}".format, st.sampled_from(["", " ", "\n\n"]), WORDS, st.sampled_from(["", "\n", "\u00a0", "👩‍👧"])
)


@st.composite
def conversations(draw: Any, calls: bool) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    if draw(st.booleans()):
        messages.append({"role": "system", "content": draw(TEXT | st.just(""))})
    same = draw(st.none() | TEXT)
    for _ in range(draw(st.integers(1, 3))):
        messages.append({"role": "user", "content": same or draw(TEXT)})
        for called in [True] * draw(st.integers(0, 2) if calls else st.just(0)) + [False]:
            answer = {"role": "assistant", "content": same or draw(TEXT)}
            if draw(st.integers(0, 2)) == 0:
                answer["reasoning_content"] = draw(TEXT)
            if draw(st.integers(0, 4)) == 0:
                answer["loss"] = draw(st.booleans())
            messages.append(answer)
            if called:
                values = st.one_of(TEXT, st.integers(), st.none(), st.lists(TEXT, max_size=2))
                arguments = draw(st.dictionaries(st.sampled_from("xyz"), values, max_size=2))
                answer["content"] = draw(st.just("") | TEXT)
                answer["tool_calls"] = [{"type": "function", "function": {"name": "f", "arguments": arguments}}]
                messages.append({"role": "tool", "content": draw(TEXT | st.just(""))})
    return messages


def regions(bound: Any, parts: Any, messages: list[dict[str, Any]]) -> list[str]:
    """Return what each answer is in the rendering."""
    header, end, others = parts
    text = bound.renderer(messages, None, False)
    found, place = [], 0
    for number, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        opener = bound.renderer(messages[:number], None, True).rpartition(header)[2]
        place = text.index(header, place) + len(header)
        for one, other in zip(ATOM.findall(opener), ATOM.findall(text[place:]), strict=False):
            if one != other:
                break
            place += len(one)
        stops = [stop for stop in (text.find(other, place) for other in others) if stop >= 0]
        found.append(text[place : text.rindex(end, place, min(stops, default=len(text))) + len(end)])
    return found


@pytest.mark.parametrize("scale", [default, last_round])
@pytest.mark.parametrize("name", TEMPLATES)
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_what_is_supervised_is_what_headers_and_ends_say(name: str, scale: Any, data: Any) -> None:
    bound = BOUND[name, scale]
    messages = data.draw(conversations(calls=name == "chatml"))
    asked = max(number for number, message in enumerate(messages) if message["role"] == "user")
    answers = [(n, message) for n, message in enumerate(messages) if message["role"] == "assistant"]
    clean = [{key: value for key, value in message.items() if key != "loss"} for message in messages]
    wanted = [message.get("loss", scale is default or number > asked) for number, message in answers]
    texts = regions(bound, TEMPLATES[name][1], clean)
    (found,) = bound.encode_batch([{"messages": messages}])
    if not any(wanted):
        assert found.reason == "nothing supervised"
        return
    assert isinstance(found, Encoded), found
    assert found.input_ids == bound.tokenizer.apply_chat_template(clean, return_dict=False)
    supervised = bound.tokenizer.decode([label for label in found.labels if label != -100])
    assert supervised == "".join(text for text, want in zip(texts, wanted, strict=True) if want)
