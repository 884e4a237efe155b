"""A model is tried out where it is going to be trained, and is afterwards as it was."""

from __future__ import annotations

import pytest
import torch
from transformers.utils.quantization_config import QuantizationMethod

from martlet_sdk.tiny import save_tiny_model
from martlet_train.probing import probe_ids
from martlet_train.sharded import fetching, place

ELSEWHERE = torch.device("meta")
"""A device that every machine has: what is computed there has shapes and no values."""


@pytest.fixture
def model(tmp_path):
    from transformers import AutoModelForCausalLM

    folder = save_tiny_model(tmp_path / "model", tie_word_embeddings=True)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def test_every_module_runs_on_the_device_and_its_weights_come_back(model):
    before = {name: (tensor, tensor.data_ptr()) for name, tensor in model.state_dict(keep_vars=True).items()}
    buffers = {name: one.data_ptr() for name, one in model.named_buffers()}
    expected = model(torch.arange(9)[None]).logits
    seen = set()
    for layer in model.model.layers:
        layer.mlp.up_proj.register_forward_hook(lambda module, inputs, output: seen.add(module.weight.device))
    with fetching(model, ELSEWHERE), torch.no_grad():
        ids = probe_ids(model, 9)
        assert ids.device == ELSEWHERE
        assert model(ids[None]).logits.device == ELSEWHERE
        assert model.model.layers[0].mlp.up_proj.weight.device.type == "cpu"  # only while it runs
    assert seen == {ELSEWHERE}
    after = model.state_dict(keep_vars=True)
    assert all(after[name] is tensor and tensor.data_ptr() == at for name, (tensor, at) in before.items())
    assert {name: one.data_ptr() for name, one in model.named_buffers()} == buffers
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert torch.equal(model(torch.arange(9)[None]).logits, expected)


def test_weights_come_back_after_an_error_too(model):
    with fetching(model, ELSEWHERE), pytest.raises(RuntimeError):
        model(torch.arange(9)[None], attention_mask=torch.ones(1, 1, 2, 3))
    assert {one.device.type for one in [*model.parameters(), *model.buffers()]} == {"cpu"}
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


def test_what_is_in_place_is_left_alone(model):
    with fetching(model, torch.device("cpu")):
        assert not any(module._forward_pre_hooks for module in model.modules())
    model.hf_device_map = {"": "cpu"}
    place(model, ELSEWHERE)
    with fetching(model, ELSEWHERE):
        model(torch.arange(9)[None])
    assert {one.device.type for one in model.parameters()} == {"cpu"}


def test_a_model_is_placed(model):
    model.quantization_method = QuantizationMethod.BITS_AND_BYTES
    place(model, ELSEWHERE)
    assert {one.device.type for one in model.parameters()} == {"cpu"}
    del model.quantization_method
    place(model, ELSEWHERE)
    assert {one.device for one in model.parameters()} == {ELSEWHERE}
