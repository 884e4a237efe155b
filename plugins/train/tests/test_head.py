"""What is wanted of the logits is computed in chunks, and is what the whole logits give."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

import martlet_train.head as head_module
from martlet.protocols import Encoded
from martlet_sdk.tiny import save_tiny_model
from martlet_train.batch import Collator
from martlet_train.head import in_chunks
from martlet_train.scoring import Scorer, log_probabilities


def wanted(logits, targets):
    entropy = torch.distributions.Categorical(logits=logits).entropy()
    return {**log_probabilities(logits, targets), "entropy": entropy}


@settings(max_examples=20)
@given(tokens=st.integers(1, 40), limit=st.integers(1, 300), seed=st.integers(0, 9))
def test_chunks_change_neither_values_nor_gradients(tokens, limit, seed):
    generator = torch.Generator().manual_seed(seed)
    layer = torch.nn.Linear(6, 17, bias=bool(seed % 2))
    hidden = torch.randn(tokens, 6, generator=generator)
    targets = torch.randint(0, 17, (tokens,), generator=generator)
    weights = torch.randn(2, tokens, generator=generator)

    def results(elements):
        states = hidden.clone().requires_grad_()
        layer.zero_grad()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(head_module, "ELEMENTS", elements)
            found = in_chunks(layer, states, targets, wanted)
        values = torch.stack([found["logp"], found["entropy"]])
        (values * weights).sum().backward()
        return [values.detach(), states.grad, *(p.grad.clone() for p in layer.parameters())]

    for mine, whole in zip(results(limit), results(10**9), strict=True):
        torch.testing.assert_close(mine, whole, rtol=1e-5, atol=1e-6)


class Largest(TorchDispatchMode):
    """Note the most elements that one tensor of an operation has."""

    seen = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        for one in found if isinstance(found, tuple | list) else (found,):
            if isinstance(one, torch.Tensor):
                self.seen = max(self.seen, one.numel())
        return found


def test_the_whole_logits_never_exist(monkeypatch):
    monkeypatch.setattr(head_module, "ELEMENTS", 64 * 500)
    layer, hidden = torch.nn.Linear(4, 500, bias=False), torch.randn(1000, 4, requires_grad=True)
    with Largest() as largest:
        in_chunks(layer, hidden, torch.zeros(1000, dtype=torch.int64), log_probabilities)["logp"].sum().backward()
    assert largest.seen == 64 * 500


FAMILIES = {
    "gemma2": {"final_logit_softcapping": 3.0},
    "cohere": {"logit_scale": 0.25},
    "granite": {"logits_scaling": 4.0},
    "llama": {},
    "gpt2": {},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_families_that_change_their_logits_are_measured_as_they_are(tmp_path, monkeypatch, family):
    from transformers import AutoConfig, AutoModelForCausalLM

    monkeypatch.setattr(head_module, "ELEMENTS", 1000)
    small = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 211, "head_dim": 8}
    small |= {"num_attention_heads": 4, "num_key_value_heads": 2, "n_embd": 32, "n_layer": 2, "n_head": 4}
    small |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, **FAMILIES[family]}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **small)).eval()
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(30)
    rows = [Encoded(list(range(3, 3 + n)), [-100, *range(4, 3 + n)]) for n in (9, 4, 12)]
    scorer = Scorer(model)
    assert scorer.way == "head"
    for packed in (False, True):
        batch = Collator(0, packed=packed)(rows)
        logits = model(**batch.model_inputs, use_cache=False).logits[batch.rows, batch.columns].float()
        expected = log_probabilities(logits, batch.targets)["logp"]
        torch.testing.assert_close(scorer(model, batch).logp, expected, rtol=1e-5, atol=1e-5)
    for name, amount in FAMILIES[family].items():
        assert getattr(model.config, name) == amount, "what was set aside during the call is back"


def test_an_adapter_on_the_output_layer_is_trained(tmp_path, monkeypatch):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    monkeypatch.setattr(head_module, "ELEMENTS", 2000)
    base = AutoModelForCausalLM.from_pretrained(save_tiny_model(tmp_path / "model"), dtype=torch.float32)
    model = get_peft_model(base, LoraConfig(target_modules=["lm_head", "q_proj"], init_lora_weights=False))
    batch = Collator(0)([Encoded(list(range(20, 40)), list(range(20, 40)))])
    scorer = Scorer(model)
    assert scorer.way == "head"
    gradients = []
    for way in ("head", "all"):
        scorer.way = way
        model.zero_grad()
        scorer(model, batch).logp.sum().backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert any("lm_head" in name for name in gradients[0])
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-4, atol=1e-6)


def test_an_error_in_the_measure_leaves_the_model_as_it_was(tmp_path):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(save_tiny_model(tmp_path / "model"), dtype=torch.float32)
    batch = Collator(0)([Encoded([20, 21, 22], [-100, 21, 22])])

    def broken(logits, targets):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        Scorer(model)(model, batch, broken)
    assert model(**batch.model_inputs).logits.shape == (1, 3, model.config.vocab_size)
