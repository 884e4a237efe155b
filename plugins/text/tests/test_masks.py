"""What is trained on, for templates that do what published ones do."""

from __future__ import annotations

from typing import Any

import pytest

from martlet_sdk.tiny import CHATML, CHATML_THINKING, LLAMA3


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def answer(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


def call(name: str = "weather", /, **arguments: Any) -> dict[str, Any]:
    return {"id": "call_1", "type": "function", "function": {"name": name, "arguments": arguments}}


RESULT = {"role": "tool", "content": "sunny", "tool_call_id": "call_1"}
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]
TWICE = [user("Hi there"), answer("Hello"), user("Bye"), answer("See you")]
THOUGHT = [user("Hi"), answer("Hello", reasoning_content="A greeting"), user("Bye"), answer("Ciao", thinking="Leaving")]

TURNS = "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endfor %}"
CLOSED = TURNS + "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
"""Writes the end-of-text token behind a conversation, not behind a turn."""
OPEN = (
    "{% for m in messages %}<|{{ m.role }}|>{{ '\n' + m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""Ends a turn with the header of the next."""
CHANNELS = """\
{%- for m in messages %}
{%- if m.role == 'user' %}{{ '<|start|>user<|message|>' + m.content + '<|end|>' }}
{%- elif loop.last %}
{%- if m.thinking %}{{ '<|start|>assistant<|channel|>analysis<|message|>' + m.thinking + '<|end|>' }}{% endif %}
{{- '<|start|>assistant<|channel|>final<|message|>' + m.content + '<|return|>' }}
{%- else %}{{ '<|start|>assistant<|channel|>final<|message|>' + m.content + '<|end|>' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}"""
"""Names its channel behind the prompt, and ends the last turn with another token."""
OPENER = """\
{%- set ns = namespace(last=-1) %}
{%- for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}
{%- for m in messages %}
{{- '<|im_start|>' + m.role + '\\n' }}
{%- if m.role == 'assistant' and loop.index0 > ns.last %}
{{- '<think>\\n' + (m.reasoning_content or '') + '\\n</think>\\n\\n' }}{% endif %}
{{- m.content|trim }}
{%- for c in m.tool_calls or [] %}{{ '<tool_call>' + c.function.name + '</tool_call>' }}{% endfor %}
{{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n<think>\\n' }}{% endif %}"""
"""Its prompt opens the reasoning; history has none."""
INSTRUCTED = """\
{%- set ns = namespace(last=-1, system='') %}
{%- for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}
{%- if messages[0].role == 'system' %}{% set ns.system = messages[0].content + '\\n\\n' %}{% endif %}
{{- bos_token }}
{%- for m in messages %}
{%- if m.role == 'user' %}
{{- '[INST] ' + (ns.system if loop.index0 == ns.last else '') + m.content + ' [/INST]' }}
{%- elif m.role == 'assistant' %}{{ ' ' + m.content|trim + eos_token }}{% endif %}
{%- endfor %}"""
"""Has no generation prompt, and moves the system message into the last question."""
COLONS = """\
{%- for m in messages %}
{%- if m.role == 'user' %}{{ 'USER: ' + m.content + ' ASSISTANT:' }}{% else %}{{ ' ' + m.content + '</s>' }}{% endif %}
{%- endfor %}"""
JOINED = """\
{%- for m in messages %}
{%- if not (m.role == 'assistant' and loop.previtem and loop.previtem.role == 'assistant') %}
{{- '<|im_start|>' + m.role + '\\n' }}{% endif %}
{{- m.content }}
{%- if not (m.role == 'assistant' and loop.nextitem and loop.nextitem.role == 'assistant') %}
{{- '<|im_end|>\\n' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""
"""Makes one turn of answers that follow one another."""
PARTS = """\
{%- for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}
{%- for p in m.content %}{% if p.type == 'text' %}{{ p.text }}{% endif %}{% endfor %}{{ '<|im_end|>\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""
"""Reads content as a list of parts only."""
TEXT_ARGUMENTS = """\
{%- for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content }}
{%- for c in m.tool_calls or [] %}{{ '<call>' + c.function.name + ' ' + c.function.arguments + '</call>' }}{% endfor %}
{{- '<|im_end|>\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""
"""Wants the arguments of a call as JSON text."""

PHI = ["<|user|>", "<|assistant|>", "<|end|>", "<|system|>"]
HARMONY = ["<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>"]
END = "<|im_end|>"

REPRESENTED = """\
{%- set ns = namespace(last=-1) %}
{%- for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}
{%- for m in messages %}
{{- '<|im_start|>' + m.role + '\\n' }}
{%- if m.thinking and loop.index0 > ns.last %}{{ '<think>' + m.thinking + '</think>' }}{% endif %}
{{- m.content }}
{%- for c in m.tool_calls or [] %}{{ '<call>' + c.function.name + c.function.arguments|string + '</call>' }}{% endfor %}
{{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""
"""Writes arguments as Python does, marks as escapes then; history has no reasoning."""

CASES: dict[str, tuple[str, list[str], list[dict[str, Any]], list[str]]] = {
    "every turn, end of turn included": (CHATML, [], TWICE, [f"Hello{END}", f"See you{END}"]),
    "system and developer text are not": (
        CHATML,
        [],
        [{"role": "system", "content": "Be brief"}, *TWICE],
        [f"Hello{END}", f"See you{END}"],
    ),
    "white space that the model writes": (CHATML, [], [user("Hi"), answer("\n Hello \n")], [f"\n Hello \n{END}"]),
    "white space that the template drops": (LLAMA3, [], [user(" Hi "), answer(" Hello\n")], ["Hello<|eot_id|>"]),
    "reasoning and what stands behind it": (
        CHATML,
        [],
        [user("Hi"), answer("Hello", reasoning_content="A greeting")],
        [f"<think>\nA greeting\n</think>\n\nHello{END}"],
    ),
    "reasoning that history loses": (
        CHATML_THINKING,
        [],
        THOUGHT,
        [f"Hello{END}", f"<think>\nLeaving\n</think>\n\nCiao{END}"],
    ),
    "an empty think block that no prompt supplies": (
        CHATML_THINKING,
        [],
        TWICE,
        [f"Hello{END}", f"<think>\n\n</think>\n\nSee you{END}"],
    ),
    "a think opener that the prompt supplies is not": (
        OPENER,
        [],
        THOUGHT,
        [f"Hello{END}", f"Leaving\n</think>\n\nCiao{END}"],
    ),
    "a call where the prompt opens reasoning and history has none": (
        OPENER,
        [],
        [
            user("Weather?"),
            answer("", tool_calls=[call(city="Rome")]),
            RESULT,
            answer("Sunny"),
            user("Ok"),
            answer("Bye"),
        ],
        [f"<tool_call>weather</tool_call>{END}", f"Sunny{END}", f"\n</think>\n\nBye{END}"],
    ),
    "calls without any text between them, of which history loses the reasoning": (
        OPENER,
        [],
        [
            user("Weather?"),
            answer("", tool_calls=[call()], reasoning_content="Look"),
            {**RESULT, "content": ""},
            answer("", tool_calls=[call()], reasoning_content="Look again"),
            {**RESULT, "content": ""},
            answer("Sunny"),
            user("Ok"),
            answer("Bye"),
        ],
        [f"<tool_call>weather</tool_call>{END}"] * 2 + [f"Sunny{END}", f"\n</think>\n\nBye{END}"],
    ),
    "tool calls with their wrappers, not results": (
        CHATML,
        [],
        [user("Weather?"), answer("", tool_calls=[call(city="Rome")]), RESULT, answer("It is sunny")],
        [
            f'<tool_call>\n{{"name": "weather", "arguments": {{"city": "Rome"}}}}\n</tool_call>{END}',
            f"It is sunny{END}",
        ],
    ),
    "a call without any text of its own": (
        CHATML,
        [],
        [user("Weather?"), answer("", tool_calls=[call(days=3)]), RESULT, answer("It is sunny")],
        [f'<tool_call>\n{{"name": "weather", "arguments": {{"days": 3}}}}\n</tool_call>{END}', f"It is sunny{END}"],
    ),
    "a call of which history shows nothing but the name": (
        REPRESENTED,
        [],
        [
            user("Weather?"),
            answer("", tool_calls=[call(days=3)], reasoning_content="Look"),
            RESULT,
            answer("Sunny"),
            user("And there?"),
            answer("", tool_calls=[call(city="Rome")], reasoning_content="Again"),
            RESULT,
            answer("Sunny too"),
        ],
        [
            f"<call>weather{{'days': 3}}</call>{END}",
            f"Sunny{END}",
            f"<think>Again</think><call>weather{{'city': 'Rome'}}</call>{END}",
            f"Sunny too{END}",
        ],
    ),
    "arguments that a template wants as text": (
        TEXT_ARGUMENTS,
        [],
        [user("Weather?"), answer("Look", tool_calls=[call(city="Rome")]), RESULT, answer("It is sunny")],
        [f'Look<call>weather {{"city": "Rome"}}</call>{END}', f"It is sunny{END}"],
    ),
    "end of text where a conversation ends with it": (CLOSED, PHI, TWICE, ["Hello<|end|>", f"See you<|end|>\n{END}"]),
    "the next header where it ends the turn": (OPEN, PHI, TWICE, ["\nHello<|user|>", "\nSee you"]),
    "channels that the prompt does not name": (
        CHANNELS,
        HARMONY,
        [user("Hi"), answer("Hello"), user("Bye"), answer("Ciao", thinking="Leaving")],
        [
            "<|channel|>final<|message|>Hello<|end|>",
            "<|channel|>analysis<|message|>Leaving<|end|><|start|>assistant<|channel|>final<|message|>Ciao<|return|>",
        ],
    ),
    "no generation prompt, system text moved": (
        INSTRUCTED,
        ["[INST]", "[/INST]"],
        [{"role": "system", "content": "Be brief"}, *TWICE],
        [f" Hello{END}", f" See you{END}"],
    ),
    "end of turn that is no token": (COLONS, [], TWICE, [" Hello</s>", " See you</s>"]),
    "answers in a row, each with its header": (
        CHATML,
        [],
        [user("Hi"), answer("Hello"), answer("Welcome")],
        [f"Hello{END}", f"Welcome{END}"],
    ),
    "answers in a row, joined": (JOINED, [], [user("Hi"), answer("Hello "), answer("again")], [f"Hello again{END}"]),
    "content as parts": (PARTS, [], TWICE, [f"Hello{END}", f"See you{END}"]),
    "text that looks like the template's own": (
        OPENER,
        [],
        [user("<think>"), answer("<b>bold</b>")],
        [f"\n</think>\n\n<b>bold</b>{END}"],
    ),
    "a greeting before any question": (
        CHATML,
        [],
        [{"role": "system", "content": "Be brief"}, answer("Welcome"), user("Hi"), answer("Hello")],
        [f"Welcome{END}", f"Hello{END}"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_supervises(case: str, bind: Any, tokenizer_for: Any, supervised: Any) -> None:
    template, special, messages, expected = CASES[case]
    bound = bind(tokenizer_for(template, special))
    assert supervised(bound, {"messages": messages, "tools": TOOLS if RESULT in messages else None}) == expected


@pytest.mark.parametrize("case", CASES)
def test_ids_are_those_of_apply_chat_template(case: str, bind: Any, tokenizer_for: Any) -> None:
    template, special, messages, _ = CASES[case]
    tokenizer = tokenizer_for(template, special)
    bound = bind(tokenizer)
    tools = TOOLS if RESULT in messages else None
    (encoded,) = bound.encode_batch([{"messages": messages, "tools": tools}])
    given = [bound.renderer.adapted(message) for message in messages]
    assert encoded.input_ids == tokenizer.apply_chat_template(given, tools=tools, tokenize=True, return_dict=False)


@pytest.mark.parametrize("case", CASES)
def test_spans_join_to_the_text_and_mark_the_supervised(
    case: str, bind: Any, tokenizer_for: Any, supervised: Any
) -> None:
    template, special, messages, _ = CASES[case]
    bound = bind(tokenizer_for(template, special))
    row = {"messages": messages, "tools": TOOLS if RESULT in messages else None}
    spans = bound.spans(row)
    (encoded,) = bound.encode_batch([row])
    assert "".join(span.text for span in spans) == bound.tokenizer.decode(encoded.input_ids)
    assert "".join(span.text for span in spans if span.generated) == "".join(supervised(bound, row))
    for span in spans:
        if span.message >= 0:
            assert span.role == messages[span.message]["role"]


@pytest.mark.parametrize("case", CASES)
def test_prompt_and_the_answer_make_the_training_text(case: str, bind: Any, tokenizer_for: Any) -> None:
    """Where the template only appends, what is trained on is what follows the prompt of inference, token for token."""
    template, special, messages, _ = CASES[case]
    bound = bind(tokenizer_for(template, special))
    tools = TOOLS if RESULT in messages else None
    (encoded,) = bound.encode_batch([{"messages": messages, "tools": tools}])
    prompt = bound.prompt_ids(messages[:-1], tools) if messages[-2]["role"] != "assistant" else []
    if encoded.input_ids[: len(prompt)] == prompt and prompt:
        assert encoded.labels[len(prompt)] == encoded.input_ids[len(prompt)]
        assert encoded.labels[len(prompt) - 1] == -100


RESPONSES = """\
{%- for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content }}
{%- for r in m.tool_responses or [] %}{{ '<result>' + r.output + '</result>' + m.reasoning_content }}{% endfor %}
{{- '<|im_end|>\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""
"""Writes results of tools out of a field of the answer."""


@pytest.mark.parametrize(
    ("template", "messages", "detail"),
    [
        (
            RESPONSES,
            [user("Hi"), answer("Look", reasoning_content="Fine", tool_responses=[{"output": "sunny"}])],
            "in pieces",
        ),
        (
            "{% for m in messages %}{{ m.role + m.content|length|string + m.content + '<|im_end|>' }}{% endfor %}",
            TWICE,
            "marks in the messages change",
        ),
        (
            "{% for m in messages if m.role == 'user' %}{{ m.content + '<|im_end|>' }}{% endfor %}"
            "{% for m in messages if m.role == 'assistant' %}{{ m.content + '<|im_end|>' }}{% endfor %}",
            TWICE,
            "follows another text",
        ),
        (
            "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
            "{% if add_generation_prompt %}{{ '<|im_start|>bot\n' }}{% endif %}",
            TWICE,
            "generation prompt ends with",
        ),
        (
            LLAMA3,
            [user("Weather?"), answer("", tool_calls=[call(city="Rome")]), RESULT, answer("Fine")],
            "calls no tool",
        ),
        (LLAMA3, [user("Weather?"), answer("Look", tool_calls=[call()]), RESULT, answer("Fine")], "leaves out"),
    ],
)
def test_refuses_what_it_cannot_prove(
    template: str, messages: list[dict[str, Any]], detail: str, bind: Any, tokenizer_for: Any, refusal: Any
) -> None:
    found = refusal(bind(tokenizer_for(template)), {"messages": messages})
    assert found.reason == "unproven mask"
    assert detail in found.detail


def test_what_a_template_refuses_is_refused_in_its_words(bind: Any, tokenizer_for: Any, refusal: Any) -> None:
    strict = "{% if messages[0].role == 'system' %}{{ raise_exception('No system role') }}{% endif %}" + CHATML
    row = {"messages": [{"role": "system", "content": "Be brief"}, *TWICE]}
    found = refusal(bind(tokenizer_for(strict)), row)
    assert (found.reason, found.detail) == ("template refuses", "No system role")


NO_SYSTEM = "{% for m in messages if m.role != 'system' %}{{ m.role + m.content + '<|im_end|>' }}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "row", "detail"),
    [
        (NO_SYSTEM, {"messages": [{"role": "system", "content": "Be brief"}, *TWICE]}, "message 1 (system)"),
        (LLAMA3, {"messages": TWICE, "tools": TOOLS}, "the tools do not appear"),
    ],
)
def test_what_a_template_has_no_place_for_is_refused(
    template: str, row: dict[str, Any], detail: str, bind: Any, tokenizer_for: Any, refusal: Any
) -> None:
    found = refusal(bind(tokenizer_for(template)), row)
    assert found.reason == "left out"
    assert detail in found.detail


def test_a_template_that_writes_nothing_behind_the_last_answer_is_warned_of(
    bind: Any, tokenizer_for: Any, caplog: Any
) -> None:
    bind(tokenizer_for(OPEN, PHI))
    assert "without an end-of-turn token" in caplog.text


@pytest.mark.parametrize(
    ("template", "special", "stops"),
    [
        (CHATML, [], {"<|im_end|>"}),
        (CLOSED, PHI, {"<|im_end|>", "<|end|>"}),
        (CHANNELS, HARMONY, {"<|im_end|>", "<|return|>"}),
        (OPEN, PHI, {"<|im_end|>", "<|user|>"}),
    ],
)
def test_generation_stops_at_the_end_of_a_turn(
    template: str, special: list[str], stops: set[str], bind: Any, tokenizer_for: Any
) -> None:
    tokenizer = tokenizer_for(template, special)
    bound = bind(tokenizer)
    assert set(tokenizer.convert_ids_to_tokens(sorted(bound.stop_ids))) == stops
