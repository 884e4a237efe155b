"""Packed rows attend document by document, with the numbers of the mask that it replaces."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from martlet.protocols import Encoded
from martlet_sdk.tiny import save_tiny_model
from martlet_train.batch import Collator
from martlet_train.documents import NAME, branches, by_document
from martlet_train.isolation import check_isolation
from martlet_train.probing import body_of
from martlet_train.scoring import Scorer


def load(tmp_path, architecture="qwen3", attention="sdpa", dtype=torch.float32, **config):
    folder = save_tiny_model(tmp_path / architecture, architecture=architecture, **config)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation=attention)


def rows(*lengths):
    return [Encoded(list(range(9, 9 + n)), [-100, *range(10, 9 + n)]) for n in lengths]


def gradients(model, batch):
    model.zero_grad()
    values = Scorer(model)(model, batch).logp
    (values * torch.linspace(-1, 1, len(values))).sum().backward()
    return values.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("architecture", ["qwen3", "llama", "mistral", "qwen3_moe"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_values_and_gradients_are_those_of_the_mask(tmp_path, architecture, checkpointing):
    model = load(tmp_path, architecture).train()
    if checkpointing:
        model.gradient_checkpointing_enable()
    batch = Collator(0, packed=True)(rows(7, 2, 19, 4))
    expected, wanted = gradients(model, batch)
    assert by_document(model, longest=19)
    assert model.config._attn_implementation == NAME
    found, mine = gradients(model, batch)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    for name, gradient in wanted.items():
        torch.testing.assert_close(mine[name], gradient, rtol=1e-4, atol=1e-5)


def test_padded_rows_are_masked_as_before(tmp_path):
    model = load(tmp_path).eval()
    batches = [Collator(0)(rows(7, 2, 19)), Collator(0, left=True)(rows(7, 2, 19))]
    with torch.no_grad():
        expected = [Scorer(model)(model, batch).logp for batch in batches]
        assert by_document(model, longest=19)
        for batch, wanted in zip(batches, expected, strict=True):
            torch.testing.assert_close(Scorer(model)(model, batch).logp, wanted)


def test_the_checkpoint_says_nothing_of_it(tmp_path):
    model = load(tmp_path)
    assert by_document(model, longest=9)
    model.save_pretrained(tmp_path / "saved")
    assert NAME not in (tmp_path / "saved" / "config.json").read_text()


def test_a_window_shorter_than_a_row_keeps_its_mask(tmp_path):
    window = {"sliding_window": 16, "use_sliding_window": True, "layer_types": ["sliding_attention"] * 2}
    model = load(tmp_path, **window)
    for longest in (17, None):
        assert not by_document(model, longest)
        assert model.config._attn_implementation == "sdpa"
    assert by_document(model, longest=16)


def test_other_attention_is_left_alone(tmp_path):
    model = load(tmp_path, attention="eager")
    assert not by_document(model, longest=9)
    assert model.config._attn_implementation == "eager"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    model = load(tmp_path_factory.mktemp("model"))
    assert by_document(model, longest=60)
    return model


def pair(prompt, chosen, rejected, apart):
    """Return two rows that share ``prompt`` tokens; ``apart``: the supervised part begins that much later."""
    shared = list(range(30, 30 + prompt))
    return [
        Encoded(ids, [-100] * (prompt + apart) + ids[prompt + apart :])
        for ids in ([*shared, 7, *range(100, 100 + chosen)], [*shared, 8, *range(100, 100 + rejected)])
    ]


SIZES = st.tuples(st.integers(0, 12), st.integers(1, 9), st.integers(1, 9), st.integers(0, 1))


@settings(max_examples=25)
@given(st.lists(SIZES, min_size=1, max_size=3))
def test_what_a_pair_shares_is_computed_once_and_nothing_else_changes(model, sizes):
    together = [row for size in sizes for row in pair(*size)]
    plain, branched = (Collator(0, packed=True, branches=shared)(together) for shared in (False, True))
    saved = sum(prompt for prompt, *_ in sizes)
    assert branched.tokens == plain.tokens - saved
    expected, wanted = gradients(model, plain)
    found, mine = gradients(model, branched)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    for name, gradient in wanted.items():
        torch.testing.assert_close(mine[name], gradient, rtol=1e-4, atol=2e-5)
    ends = branched.model_inputs["input_ids"].flatten()[branched.ends].tolist()
    assert ends == [row.input_ids[-1] for row in together]


def test_branches_are_for_models_that_attend_by_document(tmp_path, model):
    assert branches(model)
    assert not branches(load(tmp_path, attention="eager"))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("architecture", ["qwen3", "qwen3_moe"])
def test_models_of_many_layers_in_half_precision_attend_by_document(tmp_path, architecture, dtype):
    model = load(tmp_path, architecture, dtype=dtype, layers=24, hidden=128)
    together = [row for size in ((7, 3, 4, 0), (5, 6, 2, 1)) for row in pair(*size)]
    with torch.no_grad():
        expected = Scorer(model)(model, Collator(0, packed=True)(together)).logp
        assert by_document(model, longest=60) and branches(model)
        found = Scorer(model)(model, Collator(0, packed=True, branches=True)(together)).logp
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.1)


def test_a_model_that_attends_otherwise_than_it_is_told_keeps_its_mask(tmp_path, monkeypatch):
    model = load(tmp_path, dtype=torch.bfloat16)
    monkeypatch.setattr("martlet_train.documents._segments", lambda positions: [(0, positions.shape[1], 0, 0)])
    assert not by_document(model, longest=60)
    assert model.config._attn_implementation == "sdpa"


def test_the_body_is_found_whatever_the_model_calls_it(tmp_path):
    model = load(tmp_path, "llama4_text")
    assert not hasattr(model, model.base_model_prefix) and body_of(model) is model.model
    by_document(model, longest=19)  # it tries the body out, and decides
    check_isolation(model, "--packing true")
    other = load(tmp_path, "gpt2")
    assert body_of(other) is other.transformer and body_of(other.transformer) is other.transformer
