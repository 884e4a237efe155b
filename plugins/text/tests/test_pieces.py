"""Texts of which pieces become tokens by themselves: many in one call, as one after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import normalizers, pre_tokenizers

from martlet_sdk.tiny import CHATML, tiny_tokenizer
from martlet_text.vocabulary import Vocabulary

SIGNS = [*"ab \n\t.é天🙂", "word", " two words", "\n\n", "<|im_end|>", "<|im_start|>"]
Divided = tuple[str, list[tuple[int, int]]]


def prefixed(backend: Any) -> None:
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)


def dropping(backend: Any) -> None:
    backend.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("a", "")])


def usual(backend: Any) -> None:
    pass


@st.composite
def divided(draw: Any) -> Divided:
    text = "".join(draw(st.lists(st.sampled_from(SIGNS), max_size=12)))
    places = sorted(draw(st.lists(st.integers(0, len(text)), max_size=6)))
    return text, [(a, b) for a, b in zip(places[::2], places[1::2], strict=False)]


def one_by_one(vocabulary: Vocabulary, text: str, apart: list[tuple[int, int]]) -> tuple[list[int], list[Any]]:
    """Encode piece after piece, behind a newline where the text has begun."""
    ids: list[int] = []
    offsets: list[tuple[int, int]] = []
    plain = vocabulary._without_added()
    last = 0
    for start, end in [*apart, (len(text), len(text))]:
        for backend, first, behind in ((vocabulary.backend, last, start), (plain, start, end)):
            if first == behind:
                continue
            newline = backend.encode("\n").ids
            found, shift = backend.encode("\n" * bool(first) + text[first:behind]), int(first > 0)
            skip = len(newline) * shift
            if found.ids[:skip] != newline[:skip]:
                found, shift, skip = backend.encode(text[first:behind]), 0, 0
            ids += found.ids[skip:]
            offsets += [(a - shift + first, b - shift + first) for a, b in found.offsets[skip:]]
        last = end
    return ids, offsets


@pytest.mark.parametrize("change", [usual, prefixed, dropping])
def test_many_texts_in_one_call_are_encoded_as_one_after_the_other(change: Callable[[Any], None]) -> None:
    tokenizer = tiny_tokenizer(CHATML)
    change(tokenizer._tokenizer)
    vocabulary = Vocabulary(tokenizer)

    @settings(max_examples=150)
    @given(st.lists(divided(), max_size=4))
    def same(texts: list[Divided]) -> None:
        for (text, apart), found in zip(texts, vocabulary.encode_apart(texts), strict=True):
            ids, offsets = one_by_one(vocabulary, text, apart)
            assert found.ids == ids
            assert [found.token_to_chars(token) for token in range(len(ids))] == offsets
            for place in range(len(text)):
                covering = (token for token, (start, end) in enumerate(offsets) if start <= place < end)
                assert found.char_to_token(place) == next(covering, None)

    same()


def test_rows_of_a_declarative_template_share_a_few_calls(bind: Any, tokenizer_for: Any) -> None:
    bound = bind(tokenizer_for(CHATML), template="chatml")
    calls: list[int] = []

    class Counting:
        def __init__(self, backend: Any) -> None:
            self.backend = backend

        def encode(self, text: str, **more: Any) -> Any:
            calls.append(1)
            return self.backend.encode(text, **more)

        def encode_batch(self, texts: list[str], **more: Any) -> Any:
            calls.append(len(texts))
            return self.backend.encode_batch(texts, **more)

    bound.vocabulary.backend = Counting(bound.vocabulary.backend)
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    found = bound.encode_batch([{"messages": messages}] * 50)
    assert len({tuple(item.input_ids) for item in found}) == 1
    assert max(calls) == 100
    assert len(calls) < 10
