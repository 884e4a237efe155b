"""Rows laid one behind another cannot see one another, or packing is refused."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from martlet import UsageError
from martlet.protocols import Encoded
from martlet_sdk.tiny import save_tiny_model
from martlet_train.batch import Collator
from martlet_train.isolation import check_isolation, check_left_padding
from martlet_train.scoring import Scorer

ROWS = [Encoded(ids, ids) for ids in ([5, 6, 7, 8, 9], [11, 12], [21, 22, 23, 24, 25, 26, 27])]


def load(folder, attention, dtype=torch.float32):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation=attention, dtype=dtype)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("architecture", ["qwen3", "llama", "gpt2", "llama4_text"])
def test_packed_logits_are_those_of_each_row_alone(tmp_path, architecture, attention):
    model = load(save_tiny_model(tmp_path / "model", architecture=architecture), attention).eval()
    check_isolation(model, "--packing true")
    scorer = Scorer(model)
    with torch.no_grad():
        together = scorer(model, Collator(0, packed=True)(ROWS)).logp
        alone = torch.cat([scorer(model, Collator(0)([row])).logp for row in ROWS])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("architecture", ["qwen3", "llama", "gpt2"])
def test_rows_behind_padding_are_scored_as_alone(tmp_path, architecture, attention):
    model = load(save_tiny_model(tmp_path / "model", architecture=architecture), attention).eval()
    check_left_padding(model)
    scorer = Scorer(model)
    with torch.no_grad():
        together = scorer(model, Collator(0, left=True)(ROWS)).logp
        alone = torch.cat([scorer(model, Collator(0)([row])).logp for row in ROWS])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_a_sliding_window_is_isolated_as_well(tmp_path):
    folder = save_tiny_model(tmp_path / "model", architecture="mistral", sliding_window=4)
    check_isolation(load(folder, "sdpa"), "--packing true")


def mamba():
    from transformers import MambaConfig, MambaForCausalLM

    return MambaForCausalLM(MambaConfig(vocab_size=99, hidden_size=32, num_hidden_layers=1, state_size=4))


def bloom():
    from transformers import BloomConfig, BloomForCausalLM

    return BloomForCausalLM(BloomConfig(vocab_size=99, hidden_size=32, n_layer=1, n_head=2))


def convolution():
    from transformers import Lfm2Config, Lfm2ForCausalLM

    config = Lfm2Config(
        vocab_size=99, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, full_attn_idxs=[1], max_position_embeddings=64,
    )  # fmt: skip
    return Lfm2ForCausalLM(config)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("make", [mamba, bloom, convolution])
def test_models_that_carry_a_state_from_row_to_row_are_refused(make, dtype):
    torch.manual_seed(0)
    with pytest.raises(UsageError, match=r"--packing true: .* cannot keep rows of one sequence apart: rows would see"):
        check_isolation(make().to(dtype), "--packing true")


def test_a_model_that_ignores_positions_is_refused(tmp_path, monkeypatch):
    model = load(save_tiny_model(tmp_path / "model", architecture="gpt2"), "sdpa", torch.bfloat16)
    forward, counted = model.transformer.wpe.forward, torch.arange(99)
    monkeypatch.setattr(model.transformer.wpe, "forward", lambda ids: forward(counted[: ids.shape[-1]].expand_as(ids)))
    with pytest.raises(UsageError, match="it does not begin to count positions anew"):
        check_isolation(model, "--packing true")


@pytest.mark.parametrize("architecture", ["qwen3", "gpt2", "qwen3_moe"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rounding_of_many_layers_is_no_leak(tmp_path, architecture, dtype):
    folder = save_tiny_model(tmp_path / "model", architecture=architecture, layers=24, hidden=128)
    model = load(folder, "sdpa", dtype).eval()
    check_isolation(model, "--packing true")
    check_left_padding(model)
    scorer = Scorer(model)
    assert scorer.way == "head"
    with torch.no_grad():
        together = scorer(model, Collator(0, packed=True)(ROWS)).logp
        alone = torch.cat([scorer(model, Collator(0)([row])).logp for row in ROWS])
    torch.testing.assert_close(together, alone, rtol=0.02, atol=0.1)


def test_what_is_rounded_by_the_number_of_tokens_is_no_leak_but_what_is_looked_up_is(tmp_path, monkeypatch):
    model = load(save_tiny_model(tmp_path / "model"), "sdpa", torch.bfloat16).eval()
    forward = model.lm_head.forward

    def disturbed(detach):
        def shifted(hidden):
            first = hidden[:, :1].detach() if detach else hidden[:, :1]
            return forward(hidden + 0.02 * first.roll(1, -1))

        return shifted

    monkeypatch.setattr(model.lm_head, "forward", disturbed(detach=True))
    check_isolation(model, "--packing true")
    monkeypatch.setattr(model.lm_head, "forward", disturbed(detach=False))
    with pytest.raises(UsageError, match="rows would see one another"):
        check_isolation(model, "--packing true")


def test_a_model_that_sees_the_padding_is_refused(tmp_path, monkeypatch):
    model = load(save_tiny_model(tmp_path / "model"), "sdpa").eval()
    forward = model.model.forward
    deaf = partial(forward, attention_mask=None, position_ids=None)
    monkeypatch.setattr(model.model, "forward", lambda *, input_ids, **kwargs: deaf(input_ids=input_ids))
    with pytest.raises(UsageError, match=r"--padding_side left: .*Use --padding_side right"):
        check_left_padding(model)


def test_the_probe_leaves_random_state_and_mode_alone(tmp_path):
    model = load(save_tiny_model(tmp_path / "model"), "sdpa").train()
    before = torch.get_rng_state()
    check_isolation(model, "--packing true")
    assert model.training and torch.equal(torch.get_rng_state(), before)


def test_the_flag_that_was_given_is_named(tmp_path, train):
    bloom().save_pretrained(tmp_path / "bloom")
    from martlet_sdk.tiny import tiny_tokenizer

    tiny_tokenizer(vocab_size=263).save_pretrained(tmp_path / "bloom")
    with pytest.raises(UsageError, match="--padding_free true"):
        train(model=str(tmp_path / "bloom"), padding_free=True, max_length=64)
