"""Adapters, live models and the plugin itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from martlet import UsageError
from martlet.protocols import Request, Sampling
from martlet_engine_transformers.engine import ATTACHED_BATCH, TransformersEngine
from martlet_sdk.tiny import tiny_tokenizer

GREEDY = Sampling(max_new_tokens=8, temperature=0)


def ask(adapter: str | None = None, text: str = "hello") -> Request:
    return Request([{"role": "user", "content": text}], adapter=adapter)


def test_requests_choose_their_adapter(load: Any, adapters: list[Path]) -> None:
    engine = load(adapters=[str(path) for path in adapters], max_batch_size=8)
    alone = [load(adapters=[str(path)]).infer([ask()], GREEDY)[0].token_ids for path in adapters]
    base = load().infer([ask()], GREEDY)[0].token_ids
    mixed = engine.infer([ask("blue"), ask(), ask("red"), ask("blue"), ask("")], GREEDY)
    assert [r.token_ids for r in mixed] == [alone[1], base, alone[0], alone[1], base]
    assert len({tuple(ids) for ids in (*alone, base)}) == 3


def test_the_only_adapter_is_used_unless_the_base_model_is_asked_for(load: Any, adapters: list[Path]) -> None:
    engine = load(adapters=[str(adapters[0])])
    assert engine.infer([ask()], GREEDY)[0].token_ids == engine.infer([ask("red")], GREEDY)[0].token_ids
    assert engine.infer([ask("")], GREEDY)[0].token_ids == load().infer([ask()], GREEDY)[0].token_ids


def test_a_stream_uses_the_adapter(load: Any, adapters: list[Path]) -> None:
    engine = load(adapters=[str(path) for path in adapters])
    streamed = [token for piece in engine.stream(ask("red"), GREEDY) for token in piece.token_ids]
    assert streamed == engine.infer([ask("red")], GREEDY)[0].token_ids


@pytest.fixture
def live(tiny_model: Path, adapters: list[Path]) -> Any:
    """A LoRA model in the middle of training."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    base.config.use_cache = False
    base.gradient_checkpointing_enable()
    model = PeftModel.from_pretrained(base, adapters[0], adapter_name="red", is_trainable=True)
    model.load_adapter(adapters[1], adapter_name="blue")
    model.train()
    model.base_model.model.lm_head.eval()
    return model


def state(model: Any) -> dict[str, Any]:
    return {
        "modes": [module.training for module in model.modules()],
        "trained": [parameter.requires_grad for parameter in model.parameters()],
        "checkpointing": model.base_model.model.is_gradient_checkpointing,
        "use_cache": model.base_model.model.config.use_cache,
        "generation": model.base_model.model.generation_config.to_dict(),
        "active": model.active_adapter,
        "hooks": len(model.base_model.model._forward_hooks),
    }


def test_a_live_model_is_handed_back_as_it_was(live: Any, make_run: Any) -> None:
    engine = TransformersEngine().attach(live, tiny_tokenizer(), run=make_run())
    before = state(live)
    engine.infer([ask(), ask("blue"), ask("")], Sampling(8, temperature=1.0, logprobs=True))
    assert state(live) == before
    list(engine.stream(ask("blue"), GREEDY))
    assert state(live) == before
    stream = engine.stream(ask("blue"), GREEDY)
    next(stream)
    stream.close()
    assert state(live) == before


def test_a_live_model_can_still_be_trained_and_answers_with_its_new_weights(live: Any, make_run: Any) -> None:
    engine = TransformersEngine().attach(live, tiny_tokenizer(), run=make_run())
    before = engine.infer([ask("red")], GREEDY)[0].token_ids
    optimizer = torch.optim.SGD([p for p in live.parameters() if p.requires_grad], lr=0.5)
    ids = torch.arange(40)[None]
    for _ in range(3):
        live(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert engine.infer([ask("red")], GREEDY)[0].token_ids != before


def test_attaching_copies_nothing(live: Any, make_run: Any) -> None:
    engine = TransformersEngine().attach(live, tiny_tokenizer(), run=make_run())
    assert engine._attached.model is live
    assert engine.max_batch_size == 1
    assert ATTACHED_BATCH > 1


def test_an_engine_without_a_model_says_so() -> None:
    with pytest.raises(UsageError, match="call load or attach first"):
        TransformersEngine().infer([ask()])


def test_a_closed_engine_lets_go_of_the_model(load: Any) -> None:
    import gc
    import weakref

    engine = load()
    model = weakref.ref(engine._attached.model)
    engine.infer([ask()], GREEDY)
    engine.close()
    gc.collect()
    assert model() is None


def test_load_takes_a_run_or_settings_but_not_both(load: Any, make_run: Any) -> None:
    with pytest.raises(UsageError, match="either run, or path"):
        TransformersEngine().load("model", run=make_run())


@pytest.mark.parametrize("architecture", ["qwen2", "llama", "gpt2", "qwen3_moe"])
def test_other_architectures_answer_alike_in_any_batch(tmp_path: Path, load: Any, architecture: str) -> None:
    from martlet_sdk.tiny import save_tiny_model

    engine = load(model=str(save_tiny_model(tmp_path / "tiny", architecture=architecture, layers=1, hidden=32)))
    requests = [ask(text=text) for text in ("hi", "a longer question about the sea", "ok")]
    alone = [r.token_ids for r in engine.infer(requests, GREEDY)]
    engine.max_batch_size = -1
    assert [r.token_ids for r in engine.infer(requests, GREEDY)] == alone


def test_it_is_used_by_name_with_a_path_and_settings(tiny_model: Path, adapters: list[Path]) -> None:
    import martlet

    engine = martlet.get("engines", "transformers").load(
        str(tiny_model), adapters=[f"mine={adapters[0]}"], max_batch_size=3
    )
    assert engine.max_batch_size == 3
    assert engine.infer([ask("mine")], GREEDY)[0].finish == "length"


def test_a_live_model_needs_no_run(tiny_model: Path, load: Any) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    engine = TransformersEngine().attach(model, AutoTokenizer.from_pretrained(tiny_model))
    assert engine.infer([ask()], GREEDY) == load().infer([ask()], GREEDY)


def test_the_text_before_an_answer_is_the_text_that_was_trained_on(tiny_model: Path, make_run: Any) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    template = make_run().one("templates").bind(tokenizer, make_run())
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello <|im_end|> there"}]
    engine_ids = TransformersEngine().load(run=make_run())._attached.prompt(0, Request(messages), GREEDY).ids
    trained = template.encode_batch([{"messages": [*messages, {"role": "assistant", "content": "Hi."}]}])[0]
    assert trained.input_ids[: len(engine_ids)] == engine_ids
    assert all(label == -100 for label in trained.labels[: len(engine_ids)])
    assert trained.labels[len(engine_ids)] == trained.input_ids[len(engine_ids)]
