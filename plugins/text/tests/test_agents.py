"""Agent templates: what they write, that they read it back, and what they do with text that is no call."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import martlet
from martlet_sdk.contract.agent_templates import CALLS, TOOLS, written
from martlet_text.agents import FORMATS

AGENTS = {name: martlet.get("agent_templates", name) for name in FORMATS}
ONE = [{"name": "look_up", "arguments": {"query": "Moss", "limit": 3, "wild": True}}]
TWO = [*ONE, {"name": "stop", "arguments": {}}]
JSON = '{"query": "Moss", "limit": 3, "wild": true}'
EXPECTED = {
    "react_en": f"\nAction: look_up\nAction Input: {JSON}\nAction: stop\nAction Input: {{}}\nObservation:",
    "toolbench": f"\nAction: look_up\nAction Input: {JSON}\nAction: stop\nAction Input: {{}}",
    "qwen_en_parallel": f"\n✿FUNCTION✿: look_up\n✿ARGS✿: {JSON}\n✿FUNCTION✿: stop\n✿ARGS✿: {{}}\n✿RESULT✿:",
    "qwen3_coder": "\n\n<tool_call>\n<function=look_up>\n<parameter=query>\nMoss\n</parameter>\n<parameter=limit>\n3\n"
    "</parameter>\n<parameter=wild>\nTrue\n</parameter>\n</function>\n</tool_call>\n"
    "<tool_call>\n<function=stop>\n</function>\n</tool_call>",
    "hermes": f'\n<tool_call>\n{{"name": "look_up", "arguments": {JSON}}}\n</tool_call>\n'
    '<tool_call>\n{"name": "stop", "arguments": {}}\n</tool_call>',
    "glm4": f"<|assistant|>look_up\n{JSON}<|assistant|>stop\n{{}}",
    "glm4_5": "\n<tool_call>look_up\n<arg_key>query</arg_key>\n<arg_value>Moss</arg_value>\n<arg_key>limit</arg_key>\n"
    "<arg_value>3</arg_value>\n<arg_key>wild</arg_key>\n<arg_value>true</arg_value>\n</tool_call>\n"
    "<tool_call>stop\n</tool_call>",
    "llama3": f'{{"name": "look_up", "parameters": {JSON}}}{{"name": "stop", "parameters": {{}}}}',
    "deepseek_v3_1": f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>look_up<｜tool▁sep｜>{JSON}<｜tool▁call▁end｜>"
    "<｜tool▁call▁begin｜>stop<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    "mistral": f'[TOOL_CALLS][{{"name": "look_up", "arguments": {JSON}}}, {{"name": "stop", "arguments": {{}}}}]',
    "minimax_m2": '\n<minimax:tool_call>\n<invoke name="look_up">\n<parameter name="query">Moss</parameter>\n'
    '<parameter name="limit">3</parameter>\n<parameter name="wild">true</parameter>\n</invoke>\n'
    '<invoke name="stop">\n</invoke>\n</minimax:tool_call>',
    "seed_oss": "\n\n<seed:tool_call>\n<function=look_up>\n<parameter=query>Moss</parameter>\n<parameter=limit>3"
    "</parameter>\n<parameter=wild>True</parameter>\n</function>\n</seed:tool_call>\n"
    "<seed:tool_call>\n<function=stop>\n</function>\n</seed:tool_call>",
    "kimi": f"<|tool_calls_section_begin|><|tool_call_begin|>functions.look_up:0<|tool_call_argument_begin|>{JSON}"
    "<|tool_call_end|><|tool_call_begin|>functions.stop:1<|tool_call_argument_begin|>{}<|tool_call_end|>"
    "<|tool_calls_section_end|>",
    "gemma": '<|tool_call>call:look_up{limit:3,query:<|"|>Moss<|"|>,wild:true}<tool_call|>'
    "<|tool_call>call:stop{}<tool_call|>",
}
SAME = {"react_zh": "react_en", "llama4": "llama3", "chatglm4": "glm4"}
SAME |= dict.fromkeys(("qwen_en", "qwen_zh", "qwen_zh_parallel"), "qwen_en_parallel")
RESULTS = {
    "react_en": " Fern\nObservation: Done\n",
    "toolbench": "Fern\nDone",
    "qwen_en_parallel": " Fern\n✿RESULT✿: Done\n✿RETURN✿: ",
    "qwen3_coder": "<tool_response>\nFern\n</tool_response>\n<tool_response>\nDone\n</tool_response>\n",
    "hermes": "<tool_response>\nFern\n</tool_response>\n<tool_response>\nDone\n</tool_response>",
    "glm4": "Fern<|observation|>\nDone",
    "glm4_5": "<tool_response>\nFern\n</tool_response>\n<tool_response>\nDone\n</tool_response>",
    "llama3": '"Fern"\n"Done"',
    "deepseek_v3_1": "<｜tool▁output▁begin｜>Fern<｜tool▁output▁end｜><｜tool▁output▁begin｜>Done<｜tool▁output▁end｜>",
    "mistral": '[TOOL_RESULTS]{"content": "Fern"}[/TOOL_RESULTS][TOOL_RESULTS]{"content": "Done"}[/TOOL_RESULTS]',
    "minimax_m2": "<response>Fern</response>\n<response>Done</response>",
    "seed_oss": "Fern<seed:eos><seed:bos>tool\nDone",
    "kimi": "## Return of functions.look_up:0\nFern<|im_end|><|im_system|>tool<|im_middle|>"
    "## Return of functions.stop:1\nDone",
    "gemma": '<|tool_response>response:look_up{value:<|"|>Fern<|"|>}<tool_response|>'
    '<|tool_response>response:stop{value:<|"|>Done<|"|>}<tool_response|>',
}
OWN_NAMES = ("Action", "Observation", "✿", "_call", "TOOL_CALLS", "tool▁", "arg_", "parameter", "function", "invoke")

each = pytest.mark.parametrize("name", AGENTS)


def pieces(text: str, sizes: list[int]) -> list[str]:
    found, place = [], 0
    while place < len(text):
        size = sizes[len(found) % len(sizes)]
        found.append(text[place : place + size])
        place += size
    return found


def streamed(name: str, parts: list[str]) -> tuple[str, list[dict[str, Any]]]:
    stream = AGENTS[name].stream(TOOLS)
    found = [*map(stream.feed, parts), stream.end()]
    return "".join(content for content, _ in found), [call for _, calls in found for call in calls]


@each
def test_calls_are_written_in_the_published_form(name: str) -> None:
    assert AGENTS[name].calls(TWO, "Hm.") == EXPECTED[SAME.get(name, name)]


@each
def test_results_are_written_in_the_published_form(name: str) -> None:
    assert AGENTS[name].results([("look_up", "Fern"), ("stop", "Done")]) == RESULTS[SAME.get(name, name)]


BEGINNINGS = {
    "react_en": "S\n\nAnswer the following questions as best you can. You have access to the following tools:\n\n"
    "look_up: Call this tool to interact with the look_up API. What is the look_up API useful for? Find plants. "
    'Parameters: {"type": "object",',
    "react_zh": "S\n\n尽可能地回答以下问题。你可以使用以下工具:\n\nlook_up: 调用此工具与 look_up API 进行交互。",
    "toolbench": "S\n\nYou are AutoGPT, you can use many tools(functions) to do the following task.\n",
    "qwen_en": "S\n\n# Tools\n\n## You have access to the following tools:\n\n### look_up\n\n"
    "look_up: Find plants. Parameters: {",
    "qwen_zh": "S\n\n# 工具\n\n## 你拥有如下工具：\n\n### look_up\n\nlook_up: Find plants. 输入参数：{",
    "glm4": '# 可用工具\n\n## look_up\n\n{\n    "name": "look_up",\n',
    "chatglm4": "你是一个名为 ChatGLM 的人工智能助手。你是基于智谱AI训练的语言模型 GLM-4 模型开发的，",
    "deepseek_v3_1": "S\n\n## Tools\nYou have access to the following tools:\n\n### look_up\n"
    "Description: Find plants.\n\nParameters: {",
    "mistral": 'S[AVAILABLE_TOOLS][{"type": "function", "function": {"name": "look_up",',
    "minimax_m2": "S\n\n# Tools\nYou may call one or more tools to assist with the user query.\n"
    'Here are the tools available in JSONSchema format:\n\n<tools>\n<tool>{"name": "look_up",',
    "seed_oss": "S\n\nFunction:\ndef look_up(query: str,limit: int,share: int,wild: bool,kinds: list,place: Any):\n"
    '    """\n    Find plants.\n\n    Args:\n    - query (str) [必填]: What to find.\n'
    "    - limit (int) [选填]: How many.\n",
    "kimi": 'S<|im_end|><|im_system|>tool_declare<|im_middle|>[{"type": "function",',
}


@pytest.mark.parametrize("name", BEGINNINGS)
def test_tools_are_described_in_the_published_words(name: str) -> None:
    assert AGENTS[name].tools(TOOLS, "S").startswith(BEGINNINGS[name])


SAID = {
    "hermes": ['<tool_call>{"name": "stop"}</tool_call>', '<tool_call>\n{"name":"stop","arguments":"{}"}'],
    "llama3": [
        '<|python_tag|>{"type": "function", "name": "stop", "parameters": {}}',
        '{"name": "stop", "parameters": {}}; ',
    ],
    "mistral": ["[TOOL_CALLS] stop[ARGS]{}", '[TOOL_CALLS] [{"name": "stop", "arguments": {}, "id": "abcdefghi"}]'],
    "glm4": ["stop\n{}", "<|assistant|>\nstop\n{}\n"],
    "glm4_5": ["<tool_call>stop</tool_call>", "<tool_call>stop"],
    "react_en": ["Action: stop\nAction Input: {}", "Action:stop\nAction Input:\n{}\n\nObservation:"],
    "kimi": ["<|tool_calls_section_begin|><|tool_call_begin|>stop<|tool_call_argument_begin|>{}<|tool_call_end|>"],
}


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in SAID.items() for text in texts])
def test_what_models_write_beside_the_form_is_read(name: str, text: str) -> None:
    assert AGENTS[name].parse(text, TOOLS) == ("", [{"name": "stop", "arguments": {}}])


NOT_CALLS = {
    "hermes": ["<tool_call>", "<tool_call>{}</tool_call>", '<tool_call>{"name": 3, "arguments": {}}</tool_call>'],
    "llama3": [
        '{"name": "moss"}',
        '{"tools": [{"name": "stop", "parameters": {}}]}',
        '{"name": "x", "parameters": [NaN]}',
    ],
    "mistral": ["[TOOL_CALLS][]", '[TOOL_CALLS][{"name": "a", "arguments": {}}, 7]', "[TOOL_CALLS]stop[ARGS]{"],
    "glm4": ["Moss\n{}", "It is\n{}", 'stop {"a": 1}'],
    "react_en": ["Action: stop", "Action: stop\nAction Input: now", "Action: \nAction Input: {}"],
    "gemma": [
        "<|tool_call>call:stop{a}<tool_call|>",
        "<|tool_call>call:{}<tool_call|>",
        "<|tool_call>call:stop" + "{a:" * 999,
    ],
    "seed_oss": ["<seed:tool_call>\n<parameter=a>1</parameter>\n</seed:tool_call>"],
}


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in NOT_CALLS.items() for text in texts])
def test_what_is_no_call_stays_text(name: str, text: str) -> None:
    assert AGENTS[name].parse(f"Well. {text}" if name != "glm4" else text, TOOLS)[1] == []
    assert AGENTS[name].parse(text, TOOLS) == (text, [])


def test_text_behind_a_call_is_kept() -> None:
    text = 'One.\n<tool_call>\n{"name": "stop", "arguments": {}}\n</tool_call>\nTwo.'
    assert AGENTS["hermes"].parse(text) == ("One.\nTwo.", [{"name": "stop", "arguments": {}}])


def test_the_schema_decides_what_is_a_string() -> None:
    text = AGENTS["qwen3_coder"].calls([{"name": "look_up", "arguments": {"query": "12", "limit": 12}}])
    assert AGENTS["qwen3_coder"].parse(text, TOOLS)[1][0]["arguments"] == {"query": "12", "limit": 12}
    assert AGENTS["qwen3_coder"].parse(text)[1][0]["arguments"] == {"query": 12, "limit": 12}


def test_a_stream_gives_text_and_calls_as_soon_as_they_are_certain() -> None:
    stream = AGENTS["hermes"].stream()
    assert stream.feed("It is\n<too") == ("It is", [])
    assert stream.feed(" good.\n<tool_call>") == ("\n<too good.", [])
    assert stream.feed('\n{"name": "stop", "arguments": {}}') == ("", [])
    assert stream.feed("\n</tool_call>") == ("", [{"name": "stop", "arguments": {}}])
    assert stream.end() == ("", [])


# Properties

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=8) | st.from_regex(r"[a-z]\w{0,3}", fullmatch=True), inner, max_size=3)
    ),
    max_leaves=6,
)
arguments = st.fixed_dictionaries(
    {},
    optional={
        "query": st.text(max_size=40),
        "limit": st.integers(),
        "share": st.floats(allow_nan=False, allow_infinity=False),
        "wild": st.booleans(),
        "kinds": st.lists(values, max_size=3),
        "place": st.dictionaries(st.from_regex(r"[a-zA-Z]\w{0,5}", fullmatch=True), values, max_size=3),
    },
)
calls = st.lists(
    st.one_of(
        st.builds(lambda given: {"name": "look_up", "arguments": given}, arguments),
        st.just({"name": "stop", "arguments": {}}),
    ),
    min_size=1,
    max_size=3,
)
RAW = ("qwen3_coder", "glm4_5", "minimax_m2", "seed_oss", "gemma")
"""Formats that write strings as they are: their own signs cannot stand in one."""


def keys(value: Any) -> list[str]:
    """Return the keys of all objects in a value."""
    inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return [*(value if isinstance(value, dict) else ()), *(key for item in inner for key in keys(item))]


def clean(name: str, text: str) -> bool:
    signs = [*AGENTS[name].openers, *(() if name not in RAW else ("<", ">", "|"))]
    return not any(sign in text for sign in signs)


@each
@settings(max_examples=40)
@given(content=st.text(max_size=30), calls=calls, sizes=st.lists(st.integers(1, 30), min_size=1, max_size=5))
def test_what_is_written_is_read_back(name: str, content: str, calls: list[Any], sizes: list[int]) -> None:
    assume(clean(name, content) and (name not in RAW or clean(name, str(calls))))
    if name == "gemma":
        assume(all(re.fullmatch(r"[a-z_A-Z]\w*", key) for key in keys(calls)))  # they are written without quotes
    text = content + AGENTS[name].calls(calls, content)
    assert AGENTS[name].parse(text, TOOLS) == (content, calls)
    assert streamed(name, pieces(text, sizes)) == (content, calls)


@each
@settings(max_examples=60)
@given(data=st.data())
def test_altered_answers_never_raise_and_lose_no_text(name: str, data: st.DataObject) -> None:
    text, _, _ = data.draw(st.sampled_from(list(written(AGENTS[name]))))
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 20)))
        text = text[:start] + data.draw(st.text(max_size=4) | st.sampled_from([text[:end], "}", '"', "<"])) + text[end:]
    content, calls = AGENTS[name].parse(text, TOOLS)
    assert calls or content == text
    assert streamed(name, pieces(text, data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=4)))) == (
        content,
        calls,
    )
    again = content + AGENTS[name].calls(calls, content) if calls else content
    again += " ".join(strings(calls))  # as they are: an escaped control character hides where a word begins
    assert sorted(set(words(text)) - set(words(again)) - set(words(AGENTS[name].calls(CALLS[3])))) == []


def strings(value: Any) -> Iterator[str]:
    """Yield every text in nested values."""
    if isinstance(value, str):
        yield value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from strings(part)


def words(text: str) -> list[str]:
    """Return runs of letters that no format writes by itself."""
    return [word for word in re.findall(r"[a-z]{5,}", text) if not any(word in own.lower() for own in OWN_NAMES)]


@each
def test_time_grows_with_the_length_alone(name: str) -> None:
    agent = AGENTS[name]
    call = agent.calls(CALLS[2])
    for part in (
        agent.openers[0],
        agent.openers[0] + '{"a":',
        call[: len(call) // 3],
        call[: len(call) // 2],
        call[:-3],
    ):
        text = call[: len(call) // 2] + part * (100_000 // len(part))
        start = time.process_time()
        agent.parse(text, TOOLS)
        assert time.process_time() - start < 4, f"{part!r} takes too long"


@each
def test_a_long_call_in_small_pieces_takes_no_time(name: str) -> None:
    calls = [{"name": "look_up", "arguments": {"query": "x }] " * 20_000}}]
    text = AGENTS[name].calls(calls)
    start = time.process_time()
    assert streamed(name, pieces(text, [4])) == ("", calls)
    assert time.process_time() - start < 4


def test_calls_of_minimax_begin_a_line_also_without_words_before_them() -> None:
    agent = martlet.get("agent_templates", "minimax_m2")
    assert agent.calls(TWO) == agent.calls(TWO, "Hm") == EXPECTED["minimax_m2"]
    assert agent.parse(agent.calls(TWO), TOOLS) == ("", TWO)
