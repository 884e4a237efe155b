"""Batched answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from martlet import UsageError
from martlet.protocols import Request, Sampling

GREEDY = Sampling(max_new_tokens=8, temperature=0)


def ask(*questions: str, **facts: Any) -> list[Request]:
    return [Request([{"role": "user", "content": text}], **facts) for text in questions]


def test_answers_are_those_of_plain_transformers(load: Any, tiny_model: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    request = ask("What colour is the sky?")[0]
    prompt = tokenizer.apply_chat_template(
        request.messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    expected = model.generate(**prompt, do_sample=False, max_new_tokens=8)[0, prompt["input_ids"].shape[1] :]
    answer = load().infer([request], GREEDY)[0]
    assert answer.token_ids == expected.tolist()
    assert answer.prompt_tokens == prompt["input_ids"].shape[1]


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(max_size=40), min_size=1, max_size=7), st.integers(-1, 4).filter(bool))
def test_order_and_answers_do_not_depend_on_the_batch(shared: Any, texts: list[str], size: int) -> None:
    requests = ask(*texts)
    shared.max_batch_size = 1
    alone = [r.token_ids for r in shared.infer(requests, GREEDY)]
    shared.max_batch_size = size
    assert [r.token_ids for r in shared.infer(requests, GREEDY)] == alone


@pytest.fixture(scope="session")
def shared(load: Any) -> Any:
    return load()


def test_padding_does_not_count_for_the_repetition_penalty(load: Any) -> None:
    engine = load()
    requests = ask("hi", "a much longer question, so that the first row is padded")
    sampling = Sampling(max_new_tokens=12, temperature=0, repetition_penalty=1.8)
    alone = engine.infer(requests, sampling)
    prompt = engine._attached.template.prompt_ids(requests[0].messages)
    wanted = next(token for token in alone[0].token_ids if token not in prompt)
    engine._attached.tokenizer.pad_token_id = wanted  # as checkpoints do that pad with a token of their answers
    engine.max_batch_size = 2
    assert [r.token_ids for r in engine.infer(requests, sampling)] == [r.token_ids for r in alone]


def test_repetition_penalty_is_that_of_transformers(load: Any) -> None:
    engine = load()
    attached = engine._attached
    request = ask("Count to ten.")[0]
    ids = torch.tensor([attached.template.prompt_ids(request.messages)])
    expected = attached.model.generate(ids, do_sample=False, max_new_tokens=12, repetition_penalty=1.7)
    answer = engine.infer([request], Sampling(max_new_tokens=12, temperature=0, repetition_penalty=1.7))[0]
    assert answer.token_ids == expected[0, ids.shape[1] :].tolist()


def test_one_bad_request_does_not_stop_the_others(load: Any) -> None:
    requests = [*ask("hello"), Request([]), *ask("x " * 3000), *ask("bye"), *ask("who?", adapter="nobody")]
    answers = load().infer(requests, GREEDY)
    assert [r.finish for r in answers] == ["length", "error", "error", "length", "error"]
    assert "no messages" in answers[1].error
    assert "the model takes 2048" in answers[2].error
    assert "adapter 'nobody' is not loaded" in answers[4].error


def test_a_failing_row_is_found_inside_its_batch(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = load(max_batch_size=8)
    model = engine._attached.model
    plain, bad = model.forward, engine._attached.tokenizer.convert_tokens_to_ids("%")

    def forward(input_ids: Any = None, **kwargs: Any) -> Any:
        if (input_ids == bad).any():
            raise RuntimeError("out of memory")
        return plain(input_ids=input_ids, **kwargs)

    monkeypatch.setattr(model, "forward", forward)
    answers = engine.infer(ask("one", "two %", "three", "four"), GREEDY)
    assert [r.finish for r in answers] == ["length", "error", "length", "length"]
    assert answers[1].error == "RuntimeError: out of memory"


def test_a_prompt_longer_than_max_length_is_refused(load: Any) -> None:
    answer = load(max_length=20).infer(ask("word " * 30), GREEDY)[0]
    assert answer.finish == "error"
    assert "more than max_length=20" in answer.error


def test_without_a_limit_the_model_length_ends_the_answer(tmp_path: Path, load: Any) -> None:
    from transformers import GenerationConfig

    from martlet_sdk.tiny import save_tiny_model

    folder = save_tiny_model(tmp_path / "short", layers=1, hidden=32, max_position_embeddings=64)
    GenerationConfig(eos_token_id=2).save_pretrained(folder)
    engine = load(model=str(folder), max_batch_size=4)
    answers = engine.infer(ask("a", "a longer question than the other one"), Sampling(temperature=0))
    for answer in answers:
        assert answer.finish == "stop" or answer.prompt_tokens + len(answer.token_ids) == 64


def test_generation_config_decides_what_is_not_given(load: Any) -> None:
    engine = load()
    answer = engine.infer(ask("hello"))[0]
    assert len(answer.token_ids) == engine._attached.inner.generation_config.max_new_tokens


@pytest.mark.parametrize(
    ("sampling", "words"),
    [
        (Sampling(temperature=-1), "temperature"),
        (Sampling(top_p=0), "top_p"),
        (Sampling(max_new_tokens=0), "max_new_tokens"),
        (Sampling(num_beams=0), "num_beams"),
        (Sampling(num_beams=2, logprobs=True), "num_beams"),
    ],
)
def test_impossible_sampling_is_refused(load: Any, sampling: Sampling, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        load().infer(ask("hello"), sampling)


def test_a_seed_repeats_the_answers_and_moves_nobody_elses_randomness(load: Any) -> None:
    engine = load()
    sampling = Sampling(max_new_tokens=12, temperature=1.5, seed=7)
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    first = engine.infer(ask("a", "b"), sampling)
    assert torch.equal(torch.rand(3), expected)
    assert [r.token_ids for r in engine.infer(ask("a", "b"), sampling)] == [r.token_ids for r in first]
    sampling.seed = 8
    assert [r.token_ids for r in engine.infer(ask("a", "b"), sampling)] != [r.token_ids for r in first]


def test_top_k_of_one_is_greedy(load: Any) -> None:
    engine = load()
    best = engine.infer(ask("hello"), GREEDY)[0].token_ids
    assert engine.infer(ask("hello"), Sampling(max_new_tokens=8, temperature=2.0, top_k=1))[0].token_ids == best
    small = engine.infer(ask("hello"), Sampling(max_new_tokens=8, temperature=2.0, top_p=1e-6))[0]
    assert small.token_ids == best


def test_sampling_without_top_k_reaches_every_token(load: Any) -> None:
    """transformers keeps the 50 most probable tokens unless it is told otherwise."""
    engine = load(max_batch_size=64)
    sampling = Sampling(max_new_tokens=4, temperature=5.0, seed=0)
    made = {token for r in engine.infer(ask(*["x"] * 64), sampling) for token in r.token_ids[:1]}
    assert len(made) > 50


def test_beams_find_a_more_probable_answer(load: Any) -> None:
    engine = load()
    attached = engine._attached

    def score(answer: Any) -> float:
        prompt = attached.template.prompt_ids(ask("hello")[0].messages)
        ids = torch.tensor([prompt + answer.token_ids])
        with torch.no_grad():
            logits = attached.model(ids).logits.log_softmax(-1)
        return float(logits[0, len(prompt) - 1 : -1].gather(1, ids[0, len(prompt) :, None]).mean())

    greedy = engine.infer(ask("hello"), GREEDY)[0]
    beams = engine.infer(ask("hello"), Sampling(max_new_tokens=8, temperature=0, num_beams=4))[0]
    assert score(beams) >= score(greedy)


def test_logprobs_are_those_of_the_model(load: Any) -> None:
    engine = load()
    attached = engine._attached
    sampling = Sampling(6, temperature=1.3, repetition_penalty=1.2, seed=3, logprobs=True, top_logprobs=2)
    for request, answer in zip(ask("a", "a longer one"), engine.infer(ask("a", "a longer one"), sampling), strict=True):
        prompt = attached.template.prompt_ids(request.messages)
        with torch.no_grad():
            logits = attached.model(torch.tensor([prompt + answer.token_ids])).logits[0, len(prompt) - 1 : -1]
        expected = logits.log_softmax(-1)
        assert answer.logprobs == pytest.approx(
            [expected[i, t].item() for i, t in enumerate(answer.token_ids)], abs=1e-4
        )
        best = [[token for token, _ in step] for step in answer.top_logprobs or []]
        assert best == expected.topk(2).indices.tolist()
