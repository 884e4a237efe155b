"""Where an answer ends, and streaming."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from martlet import UsageError
from martlet.protocols import Request, Sampling
from martlet_engine_transformers.endings import Endings, TextStream
from martlet_sdk.tiny import tiny_tokenizer

GREEDY = Sampling(max_new_tokens=12, temperature=0)


def ask(text: str = "Tell me something.", **facts: Any) -> Request:
    return Request([{"role": "user", "content": text}], **facts)


@settings(max_examples=100)
@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=60))
def test_streamed_text_is_whole_and_never_cuts_a_character(text: str) -> None:
    tokenizer = tiny_tokenizer()
    stream, pieces, ids = TextStream(tokenizer.decode), [], tokenizer.encode(text)
    for token in ids:
        pieces.append(stream.push(token))
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in pieces)
    pieces.append(stream.finish(tokenizer.decode(ids)))
    assert "".join(pieces) == text


def test_a_word_that_crosses_tokens_ends_the_answer_and_stays_in_it() -> None:
    tokenizer = tiny_tokenizer()
    endings = Endings(frozenset({2}), ["\n\nEND"], tokenizer.decode)
    ids = tokenizer.encode("one\n\nEN two\n\nENDING and more")
    kept, finish = endings.trim(ids, 100)
    assert finish == "stop"
    assert endings.text(kept) == "one\n\nEN two\n\nEND"


def test_the_stop_token_is_a_token_of_the_answer_but_not_of_its_text() -> None:
    tokenizer = tiny_tokenizer()
    eos = tokenizer.eos_token_id
    endings = Endings(frozenset({eos}), (), tokenizer.decode)
    ids = tokenizer.encode("yes")
    assert endings.trim([*ids, eos, *ids], 100) == ([*ids, eos], "stop")
    assert endings.text([*ids, eos]) == "yes"


def test_stop_words(load: Any) -> None:
    engine = load()
    whole = engine.infer([ask()], GREEDY)[0]
    word = whole.text[3:6]
    cut = engine.infer([ask()], Sampling(max_new_tokens=12, temperature=0, stop=[word]))[0]
    assert cut.finish == "stop"
    assert cut.text == whole.text[: whole.text.index(word) + len(word)]
    assert cut.token_ids == whole.token_ids[: len(cut.token_ids)]


def test_stop_words_in_one_row_leave_the_other_rows_running(load: Any) -> None:
    engine = load(max_batch_size=2)
    first, second = engine.infer([ask(), ask("And another thing?")], GREEDY)
    word = next(w for n in range(2, 6) if (w := first.text[n : n + 3]) not in second.text)
    stopped, other = engine.infer([ask(), ask("And another thing?")], Sampling(12, temperature=0, stop=[word]))
    assert stopped.finish == "stop"
    assert other.token_ids == second.token_ids


def test_an_end_token_of_the_generation_config_ends_the_answer(load: Any) -> None:
    engine = load()
    whole = engine.infer([ask()], GREEDY)[0]
    engine._attached.inner.generation_config.eos_token_id = whole.token_ids[4]
    at = whole.token_ids.index(whole.token_ids[4])
    cut = engine.infer([ask()], GREEDY)[0]
    assert (cut.finish, cut.token_ids) == ("stop", whole.token_ids[: at + 1])
    assert cut.text == engine._attached.template.decode(whole.token_ids[:at])


def test_a_special_token_can_be_a_stop_word(load: Any) -> None:
    engine = load()
    endings = engine._attached.endings(Sampling(stop=["<|im_start|>"]))
    assert engine._attached.tokenizer.convert_tokens_to_ids("<|im_start|>") in endings.stop_ids
    assert not endings.words


@pytest.mark.parametrize(
    "sampling",
    [
        GREEDY,
        Sampling(12, temperature=1.5, seed=5),
        Sampling(12, temperature=1.5, seed=6, logprobs=True, top_logprobs=2),
        Sampling(12, temperature=0, num_beams=2),
        Sampling(12, temperature=0, stop=["a", "e", "t"]),
    ],
)
def test_a_stream_is_the_answer_in_pieces(load: Any, sampling: Sampling) -> None:
    engine = load()
    whole = engine.infer([ask()], sampling)[0]
    pieces = list(engine.stream(ask(id="7"), sampling))
    assert "".join(piece.text for piece in pieces) == whole.text
    assert [token for piece in pieces for token in piece.token_ids] == whole.token_ids
    assert [piece.finish for piece in pieces] == [""] * (len(pieces) - 1) + [whole.finish]
    assert pieces[-1].prompt_tokens == whole.prompt_tokens
    assert pieces[-1].id == "7"
    if whole.logprobs:
        assert [x for piece in pieces for x in piece.logprobs or []] == pytest.approx(whole.logprobs, abs=1e-5)


def test_closing_a_stream_stops_the_generation(load: Any) -> None:
    engine = load()
    forwards = []
    engine._attached.model.register_forward_hook(lambda *_: forwards.append(1))
    stream = engine.stream(ask(), Sampling(max_new_tokens=1500, temperature=1.0, seed=1))
    next(stream)
    stream.close()
    seen = len(forwards)
    time.sleep(0.1)
    assert len(forwards) == seen < 1000
    assert not [t for t in threading.enumerate() if t.name == "martlet-generate"]
    assert engine.infer([ask()], GREEDY)[0].finish == "length"


def test_an_error_inside_the_generation_reaches_the_reader(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = load()

    def broken(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("device lost")

    monkeypatch.setattr(engine._attached.model, "forward", broken)
    with pytest.raises(RuntimeError, match="device lost"):
        list(engine.stream(ask(), GREEDY))


def test_a_stream_of_an_impossible_request_raises(load: Any) -> None:
    with pytest.raises(UsageError, match="no messages"):
        next(load().stream(Request([]), GREEDY))


def test_streams_and_batches_of_several_threads_take_turns(load: Any) -> None:
    engine = load()
    expected = engine.infer([ask()], GREEDY)[0].text
    answers: list[str] = []

    def work() -> None:
        answers.append("".join(piece.text for piece in engine.stream(ask(), GREEDY)))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    answers.append(engine.infer([ask()], GREEDY)[0].text)
    for thread in threads:
        thread.join()
    assert answers == [expected] * 4
