"""Declarative templates and plain text."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from martlet import Template, UsageError
from martlet.protocols import Encoded
from martlet_sdk.tiny import CHATML, LLAMA3, tiny_tokenizer
from martlet_text.bound import Bound, Limits
from martlet_text.completion import CompletionBound
from martlet_text.declarative import DeclarativeBound
from martlet_text.loss_scales import default
from martlet_text.weights import Weights

TEXT = st.text(st.sampled_from("ab \n.é🙂<>"), min_size=1, max_size=12).filter(str.strip)
TURNS = st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=3)


def row(system: str | None, turns: list[tuple[str, str]]) -> dict[str, Any]:
    messages = [{"role": "system", "content": system}] if system is not None else []
    for question, answer in turns:
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": messages}


@pytest.mark.parametrize(("name", "jinja"), [("chatml", CHATML), ("llama3", LLAMA3)])
@settings(max_examples=50)
@given(system=st.none() | TEXT, turns=TURNS)
def test_a_declarative_template_is_its_jinja(
    name: str, jinja: str, bind: Any, system: str | None, turns: list[tuple[str, str]]
) -> None:
    """Text, ids, labels, prompt and stop tokens."""
    key = (name, "bound")
    if key not in _BOUND:
        tokenizer = tiny_tokenizer(jinja)
        _BOUND[key] = bind(tokenizer, template=name), bind(tokenizer, template="jinja")
    declared, derived = _BOUND[key]
    given = row(system, turns)
    assert declared.spans(given) == derived.spans(given)
    assert declared.encode_batch([given]) == derived.encode_batch([given])
    assert declared.prompt(given["messages"][:-1]) == derived.prompt(given["messages"][:-1])
    assert derived.stop_ids <= declared.stop_ids


_BOUND: dict[Any, Any] = {}


WEIGHTS = Weights((default,), ("default",))
SPACED = Template("spaced", prompt="Q: {content}\nA: ", suffix="{eos}", separator="\n")
SEAMS: dict[str, Bound] = {
    "declarative": DeclarativeBound(tiny_tokenizer(None), SPACED, WEIGHTS, Limits()),
    "completion": CompletionBound(tiny_tokenizer(None), WEIGHTS, Limits()),
}


@pytest.mark.parametrize("name", SEAMS)
@settings(max_examples=50)
@given(turns=TURNS)
def test_no_token_crosses_the_end_of_a_prompt(name: str, turns: list[tuple[str, str]]) -> None:
    """Byte-level BPE makes one token of a space and the word behind it. Inference feeds the space with the prompt."""
    bound = SEAMS[name]
    messages = row(None, [(f"{question} ", answer) for question, answer in turns])["messages"]
    (found,) = bound.encode_batch([{"messages": messages}])
    supervised = bound.tokenizer.decode([label for label in found.labels if label != -100])
    assert supervised == "".join(f"{answer}<|im_end|>" for _, answer in turns)
    for place in range(1, len(messages), 2):
        prompt = bound.prompt_ids(messages[:place])
        assert found.input_ids[: len(prompt)] == prompt
        assert found.labels[len(prompt)] != -100 == found.labels[len(prompt) - 1]


@pytest.mark.parametrize(
    "given",
    [
        {"messages": row(None, [("Hi", "Hello")])["messages"], "tools": [{"type": "function"}]},
        {"messages": [*row(None, [("Hi", "Hello")])["messages"], {"role": "tool", "content": "x"}]},
        {"messages": [{"role": "assistant", "content": "Hello"}]},
        {"messages": [*row(None, [("Hi", "Hello")])["messages"], {"role": "assistant", "content": "More"}]},
    ],
)
@pytest.mark.parametrize("settings", [{"template": "chatml"}, {"use_chat_template": False}])
def test_what_has_no_place_in_the_format_is_refused(
    given: dict[str, Any], settings: dict[str, Any], bind: Any, tokenizer_for: Any, refusal: Any
) -> None:
    bound = bind(tokenizer_for(CHATML), **settings)
    plain = settings == {"use_chat_template": False} and not given.get("tools")
    if plain and all(message["role"] != "tool" for message in given["messages"]):
        assert isinstance(bound.encode_batch([given])[0], Encoded)
    else:
        assert refusal(bound, given).reason in ("no tools", "roles out of order")


def test_a_template_of_a_plugin_needs_its_strings_only(
    bind: Any, tokenizer_for: Any, supervised: Any, tmp_path: Any
) -> None:
    plugin = tmp_path / "alpaca_like.py"
    plugin.write_text(
        "from martlet import Template, hookimpl\n\n\n@hookimpl\ndef provide_templates():\n"
        "    yield Template('alpaca_like', prompt='### Q:\\n{content}\\n\\n### A:\\n', suffix='{eos}',\n"
        "        separator='\\n\\n', system='{system}\\n\\n', default_system='Answer.')\n",
        encoding="utf-8",
    )
    bound = bind(tokenizer_for(None), template="alpaca_like", external_plugins=[str(plugin)])
    given = row(None, [("Hi", "Hello"), ("Bye", "Ciao")])
    assert "".join(span.text for span in bound.spans(given)) == (
        "Answer.\n\n### Q:\nHi\n\n### A:\nHello<|im_end|>\n\n### Q:\nBye\n\n### A:\nCiao<|im_end|>\n\n"
    )
    assert supervised(bound, given) == ["Hello<|im_end|>", "Ciao<|im_end|>"]


@pytest.mark.parametrize(
    ("slots", "shown"),
    [
        (("{system}", "{content}", "{content}"), " S | Q | A <|im_end|>"),
        (("{system|trim}", "{content}", "{content}"), "S| Q | A <|im_end|>"),
        (("{system}", "{content|trim}", "{content}"), " S |Q| A <|im_end|>"),
        (("{system}", "{content}", "{content|trim}"), " S | Q |A<|im_end|>"),
    ],
)
def test_each_slot_says_whether_it_drops_white_space(slots: tuple[str, str, str], shown: str) -> None:
    spec = Template("slots", system=f"{slots[0]}|", prompt=f"{slots[1]}|", answer=slots[2], suffix="{eos}")
    bound = DeclarativeBound(tiny_tokenizer(None), spec, WEIGHTS, Limits())
    assert "".join(span.text for span in bound.spans(row(" S ", [(" Q ", " A ")]))) == shown


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("prompt='Q: A:', suffix='x'", "needs {content} exactly once"),
        ("prompt='{content}'", "has no suffix"),
        ("prompt='{content}', suffix='{system}'", "has no place"),
        ("prompt='{system}{content}', suffix='x'", "but its system is empty"),
        ("prompt='{system|middle}{content}', system='{system}', suffix='x'", "write {system} or {system|last}"),
        ("prompt='{content}', answer='{thinking}', suffix='x'", "needs {content} exactly once"),
        ("prompt='{content}', thinking='<t>{thinking}', thinking_prefix='<u>', suffix='x'", "does not begin with its"),
    ],
)
def test_a_template_that_cannot_make_a_conversation_is_a_usage_error(
    fields: str, message: str, bind: Any, tokenizer_for: Any, tmp_path: Any
) -> None:
    name = f"broken_{abs(hash(fields))}"
    plugin = tmp_path / f"{name}.py"
    code = "from martlet import Template, hookimpl\n\n\n@hookimpl\ndef provide_templates():\n"
    plugin.write_text(f"{code}    yield Template('{name}', {fields})\n", encoding="utf-8")
    with pytest.raises(UsageError, match=message):
        bind(tokenizer_for(None), template=name, external_plugins=[str(plugin)])


def test_an_end_of_turn_that_the_tokenizer_does_not_know_is_warned_of(bind: Any, caplog: Any) -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    bare = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE({"a": 0}, [])), eos_token="<e>")
    bind(bare, template="chatml")
    assert "no special token" in caplog.text


def test_plain_text_is_one_answer(bind: Any, tokenizer_for: Any, supervised: Any) -> None:
    bound = bind(tokenizer_for(None), use_chat_template=False)
    assert supervised(bound, {"text": "Once upon a time"}) == ["Once upon a time<|im_end|>"]
    assert supervised(bound, {"text": "Once<|im_end|>"}) == ["Once<|im_end|>"]


def test_messages_become_plain_text(bind: Any, tokenizer_for: Any, supervised: Any) -> None:
    given = row("S. ", [("Once", " upon"), (" a", " time")])
    tokenizer = tokenizer_for(None)
    assert supervised(bind(tokenizer, use_chat_template=False), given) == [" upon<|im_end|>", " time<|im_end|>"]
    everything = bind(tokenizer, use_chat_template=False, loss_scale="all")
    assert supervised(everything, given) == ["S. Once upon<|im_end|> a time<|im_end|>"]
    assert everything.prompt(given["messages"][:-1]) == "S. Once upon<|im_end|> a"


def test_plain_text_begins_with_the_token_that_the_tokenizer_adds(bind: Any, tokenizer_for: Any) -> None:
    from tokenizers import processors

    tokenizer = tokenizer_for(LLAMA3)
    begin = tokenizer.bos_token
    for adds in (False, True):
        if adds:
            tokenizer._tokenizer.post_processor = processors.TemplateProcessing(
                single=f"{begin} $A", special_tokens=[(begin, tokenizer.bos_token_id)]
            )
        bound = bind(tokenizer, use_chat_template=False, loss_scale="all")
        for text in ("Once", f"{begin}Once" if adds else "Once"):
            (found,) = bound.encode_batch([{"text": text}])
            assert found.input_ids == [*tokenizer("Once").input_ids, tokenizer.eos_token_id]
            assert found.labels == found.input_ids


@pytest.mark.parametrize("given", [{"text": ""}, {"text": 3}, {"text": None}, {}])
def test_text_that_is_none_is_refused(given: dict[str, Any], bind: Any, tokenizer_for: Any, refusal: Any) -> None:
    assert refusal(bind(tokenizer_for(None), use_chat_template=False), given).reason
