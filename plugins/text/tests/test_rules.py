"""Loss scales that go by texts: the shipped ones, rule files, and where their weights land."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import martlet
from martlet import UsageError
from martlet.protocols import Encoded, Span
from martlet_sdk.tiny import CHATML, CHATML_THINKING, LLAMA3, tiny_tokenizer
from martlet_text import loss_scales
from martlet_text.bound import Limits
from martlet_text.jinja import JinjaBound
from martlet_text.loss_scales import default, everything, last_round
from martlet_text.rules import Rules, read_rules
from martlet_text.weights import Weights


def weighed(scale: Any, text: str, question: str = "Go on.") -> list[tuple[str, float]]:
    """Return the pieces of an answer and their weights, those of weight 1 too."""
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": text}]
    (entry,) = scale(messages, [Span(text, "assistant", True, 1, True)])
    pieces = entry if isinstance(entry, list) else [(text, entry)]
    assert "".join(piece for piece, _ in pieces) == text
    return [(piece, float(weight)) for piece, weight in pieces if piece]


STEPS = 'Thought: look\nAction: search\nAction Input: {"q": 1}\nObservation: rain\nFinal Answer: wet'


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        ("ignore_empty_think", "<think>\n\n</think>\n\nYes", [("<think>\n\n</think>\n\n", 0), ("Yes", 1)]),
        ("ignore_empty_think", "<think>\nwell\n</think>\n\nYes", [("<think>\nwell\n</think>\n\nYes", 1)]),
        (
            "hermes",
            'So:\n<tool_call>\n{"name": "f"}\n</tool_call>\n<tool_call>{}</tool_call>.',
            [
                ("So:\n", 1),
                ('<tool_call>\n{"name": "f"}\n</tool_call>', 2),
                ("\n", 1),
                ("<tool_call>{}</tool_call>", 2),
                (".", 1),
            ],
        ),
        ("hermes", "<tool_call> is never closed", [("<tool_call> is never closed", 1)]),
        (
            "qwen",
            "Hm ✿FUNCTION✿: f\n✿ARGS✿: {}\n✿RESULT✿: 3\n✿RETURN✿: three",
            [
                *(("Hm ", 1), ("✿FUNCTION✿:", 2), (" f\n", 2), ("✿ARGS✿:", 2), (" {}\n", 2)),
                *(("✿RESULT✿:", 2), (" 3\n", 0), ("✿RETURN✿:", 1), (" three", 1)),
            ],
        ),
        (
            "react",
            STEPS,
            [
                *(("Thought:", 1), (" look\n", 1), ("Action:", 2), (" search\n", 2)),
                *(("Action Input:", 2), (' {"q": 1}\n', 2), ("Observation:", 2), (" rain\n", 0)),
                *(("Final Answer:", 1), (" wet", 1)),
            ],
        ),
        ("alpha_umi", "Thought: x Next: caller.", [("Thought:", 1), (" x ", 1), ("Next:", 2), (" caller.", 2)]),
        (
            "agentflan",
            "Action: f\nAction Input: {}\nObservation: 3",
            [("Action:", 1), (" f\n", 3), ("Action Input:", 1), (" {}\n", 3), ("Observation:", 2), (" 3", 0)],
        ),
    ],
)
def test_what_each_shipped_scale_weighs(name: str, text: str, wanted: list[Any]) -> None:
    assert weighed(getattr(loss_scales, name), text) == wanted


def test_what_the_model_did_not_write_keeps_its_weight() -> None:
    assert loss_scales.react([], [Span(STEPS, "system", False, 0)]) == [1.0]


def test_a_chain_with_rules_trains_on_the_end_of_the_turn(bind: Any, tokenizer_for: Any) -> None:
    """What a tool returned weighs 0; the end-of-turn token behind it weighs what the base says."""
    tokenizer = tokenizer_for(CHATML)
    answer = STEPS.partition("Final")[0].strip()
    row = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": answer}]}
    (found,) = bind(tokenizer, loss_scale="react").encode_batch([row])
    texts = {1.0: "", 2.0: ""}
    for token, label, weight in zip(found.input_ids, found.labels, found.token_weights, strict=True):
        assert (label != -100) == (weight > 0)
        if weight:
            texts[weight] += tokenizer.decode([token])
    assert texts == {
        1.0: "Thought: look\n<|im_end|>",
        2.0: 'Action: search\nAction Input: {"q": 1}\nObservation:',
    }


def test_a_call_counts_double_and_the_end_of_its_turn_once(bind: Any, tokenizer_for: Any) -> None:
    tokenizer = tokenizer_for(CHATML)
    call = {"function": {"name": "look", "arguments": {"place": "sea"}}}
    answer = {"role": "assistant", "content": "", "tool_calls": [call]}
    (found,) = bind(tokenizer, loss_scale="hermes").encode_batch(
        [{"messages": [{"role": "user", "content": "Hi"}, answer]}]
    )
    heavy = [token for token, weight in zip(found.input_ids, found.token_weights, strict=True) if weight == 2]
    assert tokenizer.decode(heavy).startswith("<tool_call>")
    assert tokenizer.decode(heavy).endswith("</tool_call>")
    assert [weight for weight in found.token_weights if weight][-1] == 1


def test_an_empty_think_block_is_not_supervised(bind: Any, tokenizer_for: Any, supervised: Any) -> None:
    answers = ("<think>\n\n</think>\n\nYes", "<think>\nWell.\n</think>\n\nNo")
    turns = [
        turn
        for text in answers
        for turn in ({"role": "user", "content": "So?"}, {"role": "assistant", "content": text})
    ]
    bound = bind(tokenizer_for(CHATML), loss_scale="ignore_empty_think")
    assert supervised(bound, {"messages": turns}) == ["Yes<|im_end|>", f"{answers[1]}<|im_end|>"]


WORDS = st.sampled_from(["a", "b ", " c", "word", "\n", "  ", "\n\n", "天", "é", "🙂", "Action:", ". ", "x1", "<b>"])
TEXT = st.lists(WORDS, min_size=1, max_size=8).map("".join).filter(str.strip)
WEIGHTS = st.sampled_from([0.0, 0.5, 1.0, 2.0])


class Cuts:
    """A loss scale of which every span is cut at random places, the same ones for the same text."""

    def __init__(self, choices: Sequence[tuple[int, float]]) -> None:
        self.choices = choices

    def __call__(self, messages: Any, spans: Sequence[Span]) -> list[list[tuple[str, float]]]:
        return [list(self.pieces(span.text)) for span in spans]

    def pieces(self, text: str) -> Any:
        place, number = 0, len(text)
        while place < len(text):
            size, weight = self.choices[number % len(self.choices)]
            yield text[place : place + size], weight
            place, number = place + size, number + 1


CUTS = st.lists(st.tuples(st.integers(1, 5), WEIGHTS), min_size=1, max_size=5).map(Cuts)
BASES = st.sampled_from([default, last_round, everything])
TEMPLATES = {"chatml": CHATML, "thinking": CHATML_THINKING, "llama3": LLAMA3}


def alike(source: str) -> list[Any]:
    """Bind a chat template twice: with shapes remembered, and without."""
    tokenizer, weights = tiny_tokenizer(source), Weights((default,), ("default",))
    return [JinjaBound(tokenizer, source, weights, Limits(), frames=frames) for frames in (True, False)]


def declared(name: str) -> list[Any]:
    run = martlet.prepare(roles=("template", "preview"), template=name)
    return [run.one("templates").bind(tiny_tokenizer(CHATML), run)]


BOUND = {name: alike(source) for name, source in TEMPLATES.items()}
BOUND |= {f"declarative {name}": declared(name) for name in ("chatml", "default")}


@st.composite
def rows(draw: Any) -> dict[str, Any]:
    messages: list[dict[str, Any]] = []
    for _ in range(draw(st.integers(1, 3))):
        messages.append({"role": "user", "content": draw(TEXT)})
        messages.append({"role": "assistant", "content": draw(TEXT)})
        if draw(st.integers(0, 3)) == 0:
            messages[-1]["loss"] = draw(st.sampled_from([True, False, 0, 1]))
    return {"messages": messages}


def wanted(bound: Any, row: dict[str, Any], base: Any, chain: Sequence[Any]) -> tuple[list[int], list[float]]:
    """Weigh every character by itself; a token has the weight of its first character that is not white space."""
    spans = bound.spans(row)
    weights = [float(weight) for weight in base(row["messages"], spans)]
    for number, span in enumerate(spans):
        said = row["messages"][span.message].get("loss") if span.message >= 0 else None
        weights[number] = weights[number] if said is None else float(said)
    whole = "".join(span.text for span in spans)
    owner = [number for number, span in enumerate(spans) for _ in span.text]
    of_char = [weights[number] for number in owner]
    divided = list(Weights((), (), bound.tokenizer.all_special_tokens)._divided(spans))
    for scale in chain:
        each = [weight for entry in scale(row["messages"], divided) for text, weight in entry for _ in text]
        of_char = [one * other for one, other in zip(of_char, each, strict=True)]
    encoding = bound._tokens(bound.lay(row))
    found = []
    for token in range(len(encoding.ids)):
        begins, ends = encoding.token_to_chars(token)
        solid = next((place for place in range(begins, ends) if not whole[place].isspace()), ends - 1)
        written = weights[owner[begins]] > 0 and (
            solid == ends - 1 or owner[solid] == owner[begins] or weights[owner[solid]] > 0
        )
        found.append(of_char[solid] if written else 0.0)
    return encoding.ids, found


@pytest.mark.parametrize("name", BOUND)
@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(base=BASES, chain=st.lists(CUTS, max_size=2), batch=st.lists(rows(), min_size=1, max_size=4))
def test_every_token_weighs_what_its_text_weighs(name: str, base: Any, chain: Any, batch: Any) -> None:
    """Under chat templates and declarative ones, with shapes remembered and without."""
    tried, names = BOUND[name], [str(number) for number in range(1 + len(chain))]
    results = []
    for bound in tried:
        bound.weights = Weights((base, *chain), names, bound.tokenizer.all_special_tokens)
        if hasattr(bound, "frames"):
            bound.frames.clear()
        results.append(bound.encode_batch(batch * 2))
    assert all(result == results[0] for result in results)
    for row, one in zip(batch, results[0], strict=False):
        if not isinstance(one, Encoded):
            assert one.reason == "nothing supervised"
            continue
        ids, expected = wanted(tried[-1], row, base, chain)
        assert one.input_ids == ids
        assert (one.token_weights or [float(label != -100) for label in one.labels]) == expected
        assert [label != -100 for label in one.labels] == [weight > 0 for weight in expected]


@pytest.mark.parametrize(("base", "earlier"), [("default", 1), ("last_round", 0), ("all", 1)])
@pytest.mark.parametrize("loss", [True, False, 1, 0])
def test_a_message_decides_over_each_base(base: str, earlier: int, loss: Any, bind: Any, tokenizer_for: Any) -> None:
    turns = [("user", "One?"), ("assistant", "first"), ("user", "Two?"), ("assistant", "second")]
    row = {"messages": [{"role": role, "content": text} for role, text in turns]}
    tokenizer = tokenizer_for(CHATML)
    bound = bind(tokenizer, loss_scale=f"{base}+hermes")
    trained = [tokenizer.decode([n for n in one.labels if n != -100]) for one in bound.encode_batch([row])]
    assert ("first" in trained[0]) == bool(earlier)
    row["messages"][1]["loss"] = loss
    (found,) = bound.encode_batch([row])
    assert ("first" in tokenizer.decode([n for n in found.labels if n != -100])) == bool(loss)


FILE = {"query": {"NAME": [3], "quiet": 0}, "response": {"Action:": [2, 3], "Act": [1, 0.5], "<.*?>": [4], "[<d]": [9]}}


@pytest.fixture
def write(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that writes a rule file into the working folder and returns its name."""
    monkeypatch.chdir(tmp_path)

    def make(value: Any, name: str = "rules.json") -> str:
        text = value if isinstance(value, bytes) else json.dumps(value, ensure_ascii=False).encode()
        (tmp_path / name).write_bytes(text)
        return name

    return make


def test_query_rules_come_before_keys_and_keys_before_expressions(write: Any) -> None:
    rules = read_rules(write(FILE))
    answer = "<x> d Action: f <y> Act 1"
    assert weighed(rules, answer, "Give me the NAME, quiet") == [(answer, 3)]
    assert weighed(rules, answer, "be quiet") == [(answer, 0)]
    assert weighed(rules, answer) == [
        *(("<x>", 4), (" ", 1), ("d", 9), (" ", 1)),
        *(("Action:", 2), (" f <y> ", 3), ("Act", 1), (" 1", 0.5)),
    ]
    parts = [{"type": "text", "text": "the NA"}, {"type": "text", "text": "ME"}]
    (entry,) = rules([{"role": "user", "content": parts}], [Span("ab", "assistant", True, 1)])
    assert entry == 3
    assert weighed(pickle.loads(pickle.dumps(rules)), answer) == weighed(rules, answer)


def test_the_question_is_the_last_one_before_the_answer(write: Any) -> None:
    rules = read_rules(write({"query": {"twice": [2]}}))
    messages = [{"role": "user", "content": "twice"}, {"role": "assistant"}, {"role": "user", "content": "once"}]
    spans = [Span("a", "assistant", True, 1), Span("b", "assistant", True, 3)]
    assert rules(messages, spans) == [2, [("b", 1.0)]]


def test_a_rule_file_alone_and_in_a_chain(write: Any, bind: Any, tokenizer_for: Any) -> None:
    tokenizer, name = tokenizer_for(CHATML), write({"Action:": [2, 2]})
    row = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Action: go"}]}
    for loss_scale in (name, f"default+{name}", f" {name} + default", f"last_round+{name}"):
        (found,) = bind(tokenizer, loss_scale=loss_scale).encode_batch([row])
        assert sorted(set(found.token_weights)) == [0, 1, 2]
    (found,) = bind(tokenizer, loss_scale=f"{name}+hermes+{name}").encode_batch([row])
    assert max(found.token_weights) == 4


def test_a_rule_file_is_recorded_with_its_whole_path(write: Any, tmp_path: Any) -> None:
    run = martlet.prepare(roles=("template", "preview"), loss_scale=f"default+{write({'a': [1, 2]})}")
    assert run.record.values()["loss_scale"] == f"default+{tmp_path / 'rules.json'}"


def test_a_rule_file_in_a_configuration_file_is_beside_it(write: Any, tmp_path: Any) -> None:
    (tmp_path / "configs").mkdir()
    write({"a": [1, 2]}, "configs/rules.json")
    write(b"loss_scale: last_round+rules.json\n", "configs/run.yaml")
    run = martlet.prepare(roles=("template", "preview"), config=["configs/run.yaml"])
    assert run.config.value("loss_scale") == f"last_round+{tmp_path / 'configs' / 'rules.json'}"
    assert [spec.name for spec in run.selected("loss_scales")] == ["last_round"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"a": [1,]}', "not JSON in UTF-8"),
        (b'\xff{"a": [1, 2]}', "not JSON in UTF-8"),
        (b'{"a": [1, 2], "a": [2, 1]}', "'a' stands twice"),
        (b"[" * 100_000, "nested too deeply"),
        ([["a", 1]], "a rule file is a JSON object"),
        ({}, "a rule file is a JSON object"),
        ({"Action:": [1, 2, 3]}, r"'Action:' has \[1, 2, 3\]"),
        ({"Action:": 2}, "'Action:' has 2; write"),
        ({"Action:": ["2", 1]}, "'Action:' has"),
        ({"Action:": [True, 1]}, "'Action:' has"),
        ({"Action:": [-1, 1]}, "'Action:' has the weight -1"),
        (b'{"Action:": [1e999, 1]}', "'Action:' has the weight inf"),
        (b'{"Action:": [NaN, 1]}', "'Action:' has the weight nan"),
        ({"": [1, 2]}, "a rule has an empty key"),
        ({"(a": [2]}, r"'\(a' is no regular expression"),
        ({"(a+)+$": [2]}, r"'\(a\+\)\+\$' can take for ever"),
        ({"query": {"a": [1, 2]}, "response": {}}, "'a' has"),
        ({"query": {"a": 1}, "response": [1, 2]}, "'response' is no object"),
        ({"query": {"a": 1}, "Action:": [1, 2]}, "beside the parts query and response it holds 'Action:'"),
    ],
)
def test_a_wrong_rule_file_is_one_sentence_before_anything_is_loaded(write: Any, content: Any, said: str) -> None:
    name = write(content)
    config = martlet.prepare(roles=("template", "preview"), loss_scale=f"default+{name}").config
    from martlet_text.plugin import on_config

    with pytest.raises(UsageError, match=rf"^--loss_scale {name}: .*{said}"):
        on_config(config)


def test_a_missing_rule_file_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match=r"--loss_scale gone\.json: the file cannot be read"):
        read_rules("gone.json")


def test_a_slow_expression_refuses_the_row_it_is_slow_for(refusal: Any, bind: Any, tokenizer_for: Any) -> None:
    bound = bind(tokenizer_for(CHATML))
    bound.weights = Weights((default, Rules(patterns={"(b|bb)+!": 2})), ("default", "slow"))
    found = refusal(
        bound, {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "b" * 60 + "?!"}]}
    )
    assert found.reason == "loss scale"
    assert "takes more than 1 s" in found.detail
