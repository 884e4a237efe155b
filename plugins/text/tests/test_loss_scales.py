"""Weights: bases, chains, a message's own ``loss``."""

from __future__ import annotations

from typing import Any

import pytest

from martlet import UsageError
from martlet.protocols import Encoded
from martlet_sdk.tiny import CHATML

TURNS: list[dict[str, Any]] = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
    {"role": "user", "content": "Weather?"},
    {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "look", "arguments": {}}}]},
    {"role": "tool", "content": "sunny"},
    {"role": "assistant", "content": "It is sunny"},
]
CALL = '<tool_call>\n{"name": "look", "arguments": {}}\n</tool_call><|im_end|>'


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: Any) -> str:
    path = tmp_path_factory.mktemp("plugin") / "weighing.py"
    path.write_text(
        """
from martlet import LossScale, hookimpl


def sunny(messages, spans):
    found = []
    for span in spans:
        before, word, after = span.text.partition("sunny")
        found.append([(before, 1.0), (word, 3.0), (after, 1.0)] if span.generated and word else 1)
    return found


def half(messages, spans):
    return [0.5 for span in spans]


def short(messages, spans):
    return [1.0]


def wrong(messages, spans):
    return [[("nothing of it", 1.0)] for span in spans]


def negative(messages, spans):
    return [-1.0 for span in spans]


def words(messages, spans):
    return ["much" for span in spans]


def raising(messages, spans):
    raise KeyError("weight")


def questions(messages, spans):
    return [float(span.role == "user") for span in spans]


@hookimpl
def provide_loss_scales():
    for function in (sunny, half, short, wrong, negative, words, raising):
        yield LossScale(function.__name__, function)
    yield LossScale("questions", questions, base=True)
""",
        encoding="utf-8",
    )
    return str(path)


def test_bases(bind: Any, tokenizer_for: Any, supervised: Any) -> None:
    tokenizer, row = tokenizer_for(CHATML), {"messages": TURNS}
    answers = ["Hello<|im_end|>", CALL, "It is sunny<|im_end|>"]
    assert supervised(bind(tokenizer), row) == answers
    assert supervised(bind(tokenizer, loss_scale="last_round"), row) == answers[1:]
    (everything,) = bind(tokenizer, loss_scale="all").encode_batch([row])
    assert everything.labels == everything.input_ids
    assert everything.token_weights is None


def test_a_chain_multiplies_and_begins_with_default(bind: Any, tokenizer_for: Any, plugin: str) -> None:
    tokenizer = tokenizer_for(CHATML)

    def weights(loss_scale: str) -> dict[str, float]:
        bound = bind(tokenizer, loss_scale=loss_scale, external_plugins=[plugin])
        (found,) = bound.encode_batch([{"messages": TURNS}])
        assert isinstance(found, Encoded)
        assert len(found.token_weights) == found.length
        texts: dict[str, float] = {}
        for token, label, weight in zip(found.input_ids, found.labels, found.token_weights, strict=True):
            assert (weight > 0) == (label != -100)
            texts[tokenizer.decode([token])] = weight
        return texts

    plain = weights("half")
    assert plain["<|im_end|>"] == 0.5
    chained = weights("half+sunny")
    assert {chained[piece] for piece in (" sun", "sun", "ny", "un", "unny") if piece in chained} >= {1.5}
    assert weights("sunny+last_round") == weights("last_round+sunny")


def test_a_weight_lands_on_the_tokens_of_its_text(bind: Any, tokenizer_for: Any, plugin: str) -> None:
    tokenizer = tokenizer_for(CHATML)
    (found,) = bind(tokenizer, loss_scale="sunny", external_plugins=[plugin]).encode_batch([{"messages": TURNS}])
    heavy = [token for token, weight in zip(found.input_ids, found.token_weights, strict=True) if weight == 3.0]
    assert tokenizer.decode(heavy).strip() == "sunny"


def test_a_base_of_a_plugin(bind: Any, tokenizer_for: Any, supervised: Any, plugin: str) -> None:
    bound = bind(tokenizer_for(CHATML), loss_scale="questions", external_plugins=[plugin])
    assert supervised(bound, {"messages": TURNS}) == ["Hi", "Weather?"]


@pytest.mark.parametrize("name", ["short", "wrong", "negative", "words", "raising"])
def test_a_loss_scale_that_breaks_its_contract_refuses_the_row(
    name: str, bind: Any, tokenizer_for: Any, refusal: Any, plugin: str
) -> None:
    found = refusal(bind(tokenizer_for(CHATML), loss_scale=name, external_plugins=[plugin]), {"messages": TURNS})
    assert found.reason == "loss scale"
    assert name in found.detail


def test_two_bases_are_a_usage_error(bind: Any, tokenizer_for: Any) -> None:
    with pytest.raises(UsageError, match="are both a base"):
        bind(tokenizer_for(CHATML), loss_scale="default+all")


def test_a_message_says_itself_whether_it_is_trained_on(bind: Any, tokenizer_for: Any, supervised: Any) -> None:
    tokenizer = tokenizer_for(CHATML)

    def row(*loss: bool | None) -> dict[str, Any]:
        return {"messages": [{**m, "loss": want} for m, want in zip(TURNS, loss, strict=True)]}

    default, last = bind(tokenizer, system="Be brief"), bind(tokenizer, loss_scale="last_round")
    for _ in range(5):  # also when the shape is known
        assert supervised(default, row(None, False, None, None, None, True)) == [CALL, "It is sunny<|im_end|>"]
        assert supervised(last, row(None, True, None, False, None, None)) == [
            "Hello<|im_end|>",
            "It is sunny<|im_end|>",
        ]
        assert supervised(default, {"messages": TURNS})[0] == "Hello<|im_end|>"


COUNTED = "{% for m in messages %}{{ m.role }} {% if m.role == 'user' %}{{ m.content|length }} {% endif %}"
COUNTED += "{{ m.content + '<|im_end|>' }}{% endfor %}{% if add_generation_prompt %}assistant {% endif %}"
"""Counts the characters of questions, so that no marks can be set in them."""


def test_the_last_round_is_known_where_questions_cannot_be_marked(
    bind: Any, tokenizer_for: Any, supervised: Any, refusal: Any
) -> None:
    row = {"messages": [*TURNS[:3], {"role": "assistant", "content": "Sunny"}]}
    bound = bind(tokenizer_for(COUNTED), loss_scale="last_round")
    assert supervised(bound, row) == ["Sunny<|im_end|>"]
    assert [span.last_round for span in bound.spans(row)] == [False, False, True, True]
    row["messages"][2] = {**TURNS[2], "loss": True}
    assert "message 3 has loss true" in refusal(bound, row).detail


def test_a_loss_that_is_neither_true_nor_false_is_refused(bind: Any, tokenizer_for: Any, refusal: Any) -> None:
    row = {"messages": [TURNS[0], {**TURNS[1], "loss": "yes"}]}
    assert refusal(bind(tokenizer_for(CHATML)), row).reason == "bad loss"
