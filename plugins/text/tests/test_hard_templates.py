"""Templates that do what makes masks hard, over generated conversations, against a hand-written account of each."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
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

Message = dict[str, Any]
END = "<|im_end|>"
PROMPT = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
TURN = "{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}"

DROPS_REASONING = (
    """\
{{- bos_token }}{%- set ns = namespace(last=-1) %}
{%- for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}
{%- for m in messages %}
{%- set said = m.content.split('</think>')[-1].lstrip('\\n') if '</think>' in m.content else m.content %}
{%- if m.role != 'assistant' %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}
{%- elif loop.index0 > ns.last %}
{{- '<|im_start|>assistant\\n<think>\\n' + (m.reasoning_content or '')|trim + '\\n</think>\\n\\n' }}
{{- said + '<|im_end|>\\n' }}
{%- else %}{{ '<|im_start|>assistant\\n' + said + '<|im_end|>\\n' }}{% endif %}
{%- endfor %}"""
    + PROMPT
)
"""Shows the reasoning behind the last question alone."""
REWRITES_REASONING = DROPS_REASONING.replace(
    "{{ '<|im_start|>assistant\\n' + said", "{{ '<|im_start|>assistant\\n<think></think>' + said"
).replace("<|im_start|>assistant\\n' }}{% endif %}", "<|im_start|>assistant\\n<think>\\n' }}{% endif %}")
"""Empties earlier reasoning; its prompt opens the reasoning."""
MERGES_SYSTEM = """\
{{- bos_token }}
{%- if messages[0].role == 'system' %}{% set first = messages[0].content + '\\n\\n' %}{% set turns = messages[1:] %}
{%- else %}{% set first = '' %}{% set turns = messages %}{% endif %}
{%- for m in turns %}
{%- if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must take turns') }}{% endif %}
{{- '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\\n' + (first if loop.first else '') }}
{{- m.content|trim + '<end_of_turn>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"""
"""Puts the system message into the first question, trims, and wants turns to be taken."""
REFUSES_SYSTEM = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m.role == 'system' %}{{ raise_exception('No system message, please') }}{% endif %}"
    + TURN
    + "{% endfor %}"
    + PROMPT
)
DATES = (
    "{{ bos_token }}{% if messages[0].role != 'system' %}{{ '<|im_start|>system\\nBe kind.<|im_end|>\\n' }}{% endif %}"
    "{{ '<|im_start|>system\\nIt is ' + strftime_now('%Y') + '.<|im_end|>\\n' }}"
    "{% for m in messages %}" + TURN + "{% endfor %}" + PROMPT
)
"""Writes a date, and a system message where there is none."""
CALLS = """\
{{- bos_token }}
{%- if tools %}{{ '<|im_start|>system\\n' + tools|tojson + '<|im_end|>\\n' }}{% endif %}
{%- for m in messages %}
{{- '<|im_start|>' + m.role + '\\n' + m.content }}
{%- for c in m.tool_calls or [] %}BODY{% endfor %}
{{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""
JSON_CALLS = CALLS.replace(
    "BODY", "{{ '<call>' + {'name': c.function.name, 'arguments': c.function.arguments}|tojson + '</call>' }}"
)
XML_CALLS = CALLS.replace(
    "BODY",
    "{{ '<call name=' + c.function.name + '>' }}{% for k, v in c.function.arguments.items() %}"
    "{{ '<' + k + '>' + (v if v is string else v|tojson) + '</' + k + '>' }}{% endfor %}{{ '</call>' }}",
)
PYTHON_CALLS = CALLS.replace(
    "BODY",
    "{{ '[' + c.function.name + '(' }}{% for k, v in c.function.arguments.items() %}"
    "{{ k + '=' + v|string }}{% if not loop.last %}, {% endif %}{% endfor %}{{ ')]' }}",
)


def said(message: Message, late: bool) -> str:
    return str(message["content"]) + END


def reasoned(message: Message, late: bool) -> str:
    thoughts = message.get("reasoning_content", "").strip()
    return f"<think>\n{thoughts}\n</think>\n\n{message['content']}{END}" if late else said(message, late)


def opened(message: Message, late: bool) -> str:
    """The prompt has ``<think>`` and a newline; earlier turns have the first of the two alone."""
    text = reasoned(message, late)
    return text.removeprefix("<think>\n") if late else "</think>" + text


def trimmed(message: Message, late: bool) -> str:
    return message["content"].strip() + "<end_of_turn>"


def calling(write: Callable[[Message], str]) -> Callable[[Message, bool], str]:
    def answer(message: Message, late: bool) -> str:
        calls = [call["function"] for call in message.get("tool_calls", ())]
        return message["content"] + "".join(map(write, calls)) + END

    return answer


def as_json(call: Message) -> str:
    return f"<call>{json.dumps({'name': call['name'], 'arguments': call['arguments']}, ensure_ascii=False)}</call>"


def as_xml(call: Message) -> str:
    shown = "".join(
        f"<{key}>{value if isinstance(value, str) else json.dumps(value)}</{key}>"
        for key, value in call["arguments"].items()
    )
    return f"<call name={call['name']}>{shown}</call>"


def as_python(call: Message) -> str:
    return f"[{call['name']}({', '.join(f'{key}={value}' for key, value in call['arguments'].items())})]"


@dataclass(frozen=True)
class Case:
    source: str
    answer: Callable[[Message, bool], str]
    """What the model writes of a message; ``late``: behind the last question."""
    system: bool = True
    calls: bool = False


CASES = {
    "drops earlier reasoning": Case(DROPS_REASONING, reasoned),
    "rewrites earlier reasoning": Case(REWRITES_REASONING, opened),
    "merges the system message, trims": Case(MERGES_SYSTEM, trimmed),
    "refuses a system message": Case(REFUSES_SYSTEM, said, system=False),
    "writes a date and a system message": Case(DATES, said),
    "calls as JSON": Case(JSON_CALLS, calling(as_json), calls=True),
    "calls as XML": Case(XML_CALLS, calling(as_xml), calls=True),
    "calls as Python": Case(PYTHON_CALLS, calling(as_python), calls=True),
}
TOOLS = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}]
WORDS = st.sampled_from(
    ["word", "two words", "a\nb", "天空 é", "🙂", "1. x\n2. y", "a < b", "{{ x }}", "'q' \"r\"", "assistant"]
)
TEXT = st.builds("{}{}{}".format, st.sampled_from(["", " ", "\n"]), WORDS, st.sampled_from(["", "\n", " "]))


@st.composite
def conversations(draw: Any, calls: bool) -> list[Message]:
    messages: list[Message] = [{"role": "system", "content": draw(WORDS)}] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        messages.append({"role": "user", "content": draw(TEXT)})
        for _ in range(draw(st.integers(0, 2)) if calls else 0):
            values = st.one_of(WORDS, st.integers(0, 9), st.booleans())
            names = draw(st.lists(st.sampled_from(["look_up", "count"]), min_size=1, max_size=2))
            made = [
                {"name": name, "arguments": draw(st.dictionaries(st.sampled_from("xyz"), values))} for name in names
            ]
            made = [{"type": "function", "function": call} for call in made]
            messages.append({"role": "assistant", "content": draw(st.just("") | WORDS), "tool_calls": made})
            messages += [{"role": "tool", "content": draw(WORDS)} for _ in made]
        answer = {"role": "assistant", "content": draw(TEXT)}
        if not calls and draw(st.booleans()):
            answer["reasoning_content"] = draw(TEXT | st.just(""))
        messages.append(answer)
    return messages


@cache
def bound(name: str) -> JinjaBound:
    tokenizer = tiny_tokenizer(CASES[name].source)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<start_of_turn>", "<end_of_turn>"]})
    tokenizer.bos_token = "<|begin_of_text|>"
    return JinjaBound(tokenizer, CASES[name].source, Weights((default,), ("default",)), Limits())


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=50, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_what_is_supervised_is_each_answer_and_its_end(name: str, data: Any) -> None:
    case, template = CASES[name], bound(name)
    messages = data.draw(conversations(case.calls))
    tools = TOOLS if case.calls and data.draw(st.booleans()) else None
    (found,) = template.encode_batch([{"messages": messages, "tools": tools}])
    if messages[0]["role"] == "system" and not case.system:
        assert isinstance(found, Refused) and "No system message, please" in found.detail
        return
    assert isinstance(found, Encoded), found
    tokenizer = template.tokenizer
    assert found.input_ids == tokenizer.apply_chat_template(messages, tools=tools, return_dict=False)
    assert found.input_ids.count(tokenizer.bos_token_id) == 1
    runs = [list(run) for kept, run in groupby(found.labels, key=lambda label: label != -100) if kept]
    asked = max(number for number, message in enumerate(messages) if message["role"] == "user")
    answers = [case.answer(m, n > asked) for n, m in enumerate(messages) if m["role"] == "assistant"]
    assert [tokenizer.decode(run) for run in runs] == answers
    assert all(run[-1] in template.stop_ids for run in runs)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.calls])
def test_a_call_that_the_template_leaves_out_is_refused(name: str) -> None:
    """Of two calls that differ in their arguments this shows one, as published templates of single calls do."""
    source = CASES[name].source.replace("for c in m.tool_calls or []", "for c in (m.tool_calls or [])[:1]")
    template = JinjaBound(bound(name).tokenizer, source, Weights((default,), ("default",)), Limits())
    calls = [{"function": {"name": "look_up", "arguments": {"x": word}}} for word in ("grass", "moss")]
    row = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "", "tool_calls": calls}]}
    (found,) = template.encode_batch([row])
    assert isinstance(found, Refused) and "calls look_up, which the template leaves out" in found.detail
    row["messages"][1]["tool_calls"] = calls[:1]
    assert isinstance(template.encode_batch([row])[0], Encoded)
