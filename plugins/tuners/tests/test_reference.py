"""A model with an adapter as its own reference."""

from __future__ import annotations

import json

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from martlet_sdk.tiny import save_tiny_model
from martlet_tuners.full import FullTuner
from martlet_tuners.lora import LoraTuner

ADAPTERS = [
    {},
    {"use_dora": True},
    {"modules_to_save": ["embed_tokens", "lm_head"]},
    {"modules_to_save": ["embed_tokens"], "target_modules": ["q_proj"]},
    {"target_modules": ["q_proj", "embed_tokens"]},
    {"init_weights": False, "lora_dtype": "bfloat16"},
]
OF_ITS_OWN = [{"lora_bias": "all"}, {"init_weights": "pissa"}, {"init_weights": "olora"}]
"""Adapters whose training changes weights of the base, or has taken something out of them."""


@pytest.fixture(params=[False, True], ids=["untied", "tied"])
def folder(request, tmp_path):
    return save_tiny_model(tmp_path / "base", architecture="qwen2", hidden=32, tie_word_embeddings=request.param)


def state(model):
    """Return everything that a look at the reference must leave alone."""
    return (
        {name: parameter.requires_grad for name, parameter in model.named_parameters()},
        {name: module.training for name, module in model.named_modules()},
        model.active_adapter,
        {name: tensor.clone() for name, tensor in model.state_dict().items()},
    )


def same(one, other):
    weights, others = one[-1], other[-1]
    return one[:-1] == other[:-1] and all(torch.equal(weights[name], others[name]) for name in weights | others)


def compute(model, context):
    with context(), torch.no_grad():
        assert not any(module.training for module in model.modules())
        return model(input_ids=torch.arange(3, 23).view(2, 10)).logits


def step(model):
    """Take one step as training does, with dropout."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    ids = torch.arange(3, 23).view(2, 10)
    model.train()(input_ids=ids, labels=ids).loss.backward()
    torch.optim.AdamW(trained, lr=0.1).step()
    for parameter in trained:
        assert parameter.grad is not None, "a trained parameter has no gradient"
        parameter.grad = None


def saved(bench, folder, path, seed=3, **flags):
    """Write an adapter that has been trained a little."""
    LoraTuner().save(bench.move(bench.apply("lora", bench.model(folder), seed=seed, **flags)), path)
    return path


@pytest.mark.parametrize("flags", ADAPTERS, ids=str)
def test_the_base_is_untouched_before_during_and_after_steps(flags, folder, bench):
    wanted = bench.logits(bench.model(folder))
    model = bench.apply("lora", bench.model(folder), lora_dropout=0.5, **flags).train()
    reference = LoraTuner().reference(model)
    for _ in range(3):
        assert torch.equal(compute(model, reference), wanted)
        step(model)
    assert torch.equal(compute(model, reference), wanted)
    assert not torch.equal(bench.logits(model), wanted)


@pytest.mark.parametrize("flags", ADAPTERS, ids=str)
def test_a_look_at_the_reference_leaves_the_model_as_it_was(flags, folder, bench):
    model = bench.apply("lora", bench.model(folder), **flags).train()
    next(iter(model.modules())).eval()  # some other plugin may have its own wishes
    next(parameter for parameter in model.parameters() if parameter.requires_grad).requires_grad_(False)
    before = state(model)
    compute(model, LoraTuner().reference(model))
    assert same(state(model), before)


def test_an_error_inside_leaves_the_model_as_it_was(tiny_model, bench):
    model = bench.apply("lora", bench.model(tiny_model)).train()
    before = state(model)
    with pytest.raises(ZeroDivisionError), LoraTuner().reference(model)():
        _ = 1 / 0
    assert same(state(model), before)


def test_a_step_between_two_passes_has_the_same_gradient(tiny_model, bench):
    """The reference may be computed between the policy's forward and its backward pass."""
    ids, gradients = torch.arange(3, 23).view(2, 10), []
    for look in (False, True):
        model = bench.move(bench.apply("lora", bench.model(tiny_model), lora_dropout=0)).train()
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable()
        loss = model(input_ids=ids, labels=ids).loss
        if look:
            compute(model, LoraTuner().reference(model))
        loss.backward()
        gradients.append([p.grad for p in model.parameters() if p.requires_grad])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


def test_experts_are_switched_off_as_well(tmp_path, bench):
    folder = save_tiny_model(tmp_path / "moe", architecture="qwen3_moe")
    wanted = bench.logits(bench.model(folder))
    model = bench.apply(
        "lora", bench.model(folder), lora_dropout=0, target_modules=["q_proj"], target_parameters=["experts.down_proj"]
    )
    bench.move(model).train()
    before = state(model)
    assert torch.equal(compute(model, LoraTuner().reference(model)), wanted)
    assert same(state(model), before)


@pytest.mark.parametrize("flags", OF_ITS_OWN, ids=str)
def test_where_the_base_itself_is_changed_another_model_is_needed(flags, tmp_path, bench):
    folder = save_tiny_model(tmp_path / "base", architecture="qwen2")
    model = bench.apply("lora", bench.model(folder), **flags)
    assert LoraTuner().reference(model) is None
    assert LoraTuner().reference(model, saved(bench, folder, tmp_path / "plain")) is None


@pytest.mark.parametrize("flags", [{"lora_bias": "all"}, {"target_modules": ["q_proj", "embed_tokens"]}], ids=str)
def test_an_adapter_that_replaces_weights_of_the_base_needs_another_model(flags, tmp_path, bench):
    folder = save_tiny_model(tmp_path / "base", architecture="qwen2")
    path = saved(bench, folder, tmp_path / "adapter", **flags)
    model = bench.apply("lora", bench.model(folder))
    before = state(model)
    assert LoraTuner().reference(model, path) is None
    assert same(state(model), before)


@pytest.mark.parametrize(
    "flags", [{}, {"use_dora": True}, {"modules_to_save": ["lm_head"]}, {"init_weights": "pissa"}], ids=str
)
@pytest.mark.parametrize("trained", [{}, {"modules_to_save": ["lm_head"]}], ids=str)
def test_a_named_adapter_computes_what_it_does_alone(flags, trained, tmp_path, bench):
    folder = save_tiny_model(tmp_path / "base", architecture="qwen2", hidden=32)
    path = saved(bench, folder, tmp_path / "sft", **flags)
    wanted = bench.logits(PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder), path))
    model = bench.apply("lora", bench.model(folder), **trained).train()
    active, names = model.active_adapter, bench.trained(model)
    reference = LoraTuner().reference(model, path)
    assert bench.trained(model) == names, "the reference is not trained"
    for _ in range(2):
        assert torch.equal(compute(model, reference), wanted)
        assert (model.active_adapter, bench.trained(model)) == (active, names)
        step(model)
    assert torch.equal(compute(model, reference), wanted)


def test_the_adapter_that_training_goes_on_with_may_be_its_own_reference(tiny_model, tmp_path, bench):
    path = saved(bench, tiny_model, tmp_path / "sft", lora_dtype="bfloat16")
    model = LoraTuner().load(bench.model(tiny_model), path, trainable=True)
    wanted = bench.logits(model)
    reference = LoraTuner().reference(model, path)
    step(model)
    assert torch.equal(compute(model, reference), wanted)
    assert not torch.equal(bench.logits(model), wanted)


@pytest.mark.parametrize("flags", [{}, {"modules_to_save": ["lm_head"]}, {"init_weights": "pissa"}], ids=str)
def test_a_checkpoint_holds_the_trained_adapter_alone(flags, tiny_model, tmp_path, bench):
    tuner = LoraTuner()
    model = bench.apply("lora", bench.model(tiny_model), **flags)
    tuner.reference(model, saved(bench, tiny_model, tmp_path / "sft"))
    bench.move(model)
    tuner.save(model, tmp_path / "checkpoint")
    alone = bench.move(bench.apply("lora", bench.model(tiny_model), **flags))
    tuner.save(alone, tmp_path / "alone")
    found, wanted = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("checkpoint", "alone"))
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert sorted(file.name for file in (tmp_path / "checkpoint").iterdir()) == sorted(
        file.name for file in (tmp_path / "alone").iterdir()
    )
    plain = PeftModel.from_pretrained(bench.model(tiny_model), tmp_path / "checkpoint")
    assert torch.allclose(bench.logits(plain), bench.logits(model), atol=2e-5)


def test_gathered_weights_of_two_adapters_are_saved_as_one(tiny_model, tmp_path, bench):
    tuner = LoraTuner()
    model = bench.move(bench.apply("lora", bench.model(tiny_model)))
    tuner.reference(model, saved(bench, tiny_model, tmp_path / "sft"))
    tuner.save(model, tmp_path / "checkpoint", model.state_dict())
    names = load_file(tmp_path / "checkpoint" / "adapter_model.safetensors")
    assert names and not any("reference" in name for name in names)


def test_an_adapter_in_a_torch_file_may_be_the_reference(tiny_model, tmp_path, bench):
    path = saved(bench, tiny_model, tmp_path / "sft")
    wanted = bench.logits(LoraTuner().load(bench.model(tiny_model), path))
    torch.save(load_file(path / "adapter_model.safetensors"), path / "adapter_model.bin")
    (path / "adapter_model.safetensors").unlink()
    model = bench.apply("lora", bench.model(tiny_model))
    assert torch.equal(compute(model, LoraTuner().reference(model, path)), wanted)


def test_a_reference_that_does_not_fit_is_refused(tiny_model, tmp_path, bench):
    path = saved(bench, tiny_model, tmp_path / "sft")
    tensors = load_file(path / "adapter_model.safetensors")
    save_file(
        {name: tensor[:, :1].contiguous() for name, tensor in tensors.items()}, path / "adapter_model.safetensors"
    )
    with pytest.raises(Exception, match=f"{path}: the adapter does not fit this model"):
        LoraTuner().reference(bench.apply("lora", bench.model(tiny_model)), path)


def test_full_training_always_needs_another_model(tiny_model):
    assert not hasattr(FullTuner(), "reference")


def test_a_reference_that_is_no_adapter_is_refused(tiny_model, tmp_path, bench):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "IA3"}))
    with pytest.raises(Exception, match="an adapter of the kind IA3"):
        LoraTuner().reference(bench.apply("lora", bench.model(tiny_model)), tmp_path)
