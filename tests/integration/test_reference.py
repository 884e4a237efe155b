"""The reference model with real tuners and loaders: what it computes, what it costs, what a checkpoint holds of it."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from tiny_jobs import QUICK
from transformers import AutoModelForCausalLM

import martlet
from martlet import UsageError
from martlet_sdk.tiny import save_tiny_model
from martlet_train import reference as service

PLUGIN = Path(__file__).parents[2] / "plugins/train/tests/comparing.py"


@pytest.fixture
def compare(tiny_model, rows, tmp_path, monkeypatch):
    """Return a function that trains with an algorithm that compares: ``(result, what was said of each batch)``."""
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "cache"))

    numbers = itertools.count()

    def run(**settings):
        folder = tmp_path / f"out-{next(numbers)}"
        base = {"model": str(tiny_model), "dataset": [str(rows)], "output_dir": str(folder), **QUICK}
        base |= {"per_device_train_batch_size": 13, "gradient_accumulation_steps": 1, "max_steps": 4}
        base |= {"train_dataloader_shuffle": False, "save_steps": 2, "learning_rate": 1e-2}
        base |= {"rlhf_type": "compare", "external_plugins": [str(PLUGIN)]}
        result = martlet.run("rlhf", **{**base, **settings})
        from martlet.external.comparing import Compare

        return result, list(Compare.said)

    return run


@pytest.fixture
def sft(tiny_model, rows, tmp_path):
    """Return the checkpoint of a supervised run with LoRA."""
    base = {"model": str(tiny_model), "dataset": [str(rows)], "output_dir": str(tmp_path / "sft"), **QUICK}
    return martlet.run("sft", **{**base, "max_steps": 2, "learning_rate": 1e-2, "lora_dropout": 0.0}).checkpoint


def constant(said):
    """Return what the reference said of each row, which has to be the same in every step."""
    for batch in said[1:]:
        assert batch.keys() == said[0].keys()
        assert all(torch.equal(batch[number][0], said[0][number][0]) for number in batch)
    return {number: its for number, (its, _) in said[0].items()}


def at_one(batch):
    return all(torch.equal(its, mine) for its, mine in batch.values())


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def noted(result):
    return json.loads((result.folder / "run.json").read_text())


@pytest.fixture
def one_model(monkeypatch):
    """Forbid a second model."""
    monkeypatch.setattr(service.Reference, "load", None)


@pytest.mark.parametrize(
    "flags",
    [
        {},
        {"lora_dropout": 0.0, "gradient_checkpointing": True},
        {"lora_dropout": 0.0, "bf16": True},
        {"lora_dropout": 0.0, "torch_dtype": "bfloat16"},
        {"lora_dropout": 0.0, "padding_free": True, "modules_to_save": ["lm_head"]},
        {"use_dora": True, "target_modules": ["q_proj", "embed_tokens"]},
    ],
    ids=str,
)
def test_an_adapter_is_switched_off(flags, compare, one_model):
    result, said = compare(tuner_type="lora", **flags)
    constant(said)
    assert not at_one(said[-1])
    if flags.get("lora_dropout") == 0.0:
        assert at_one(said[0]), "before the first step they are one model"
    assert noted(result)["notes"]["reference"]["is"] == "the model with its adapter switched off"


def test_every_way_to_the_base_says_the_same(compare, tiny_model):
    """Adapter switched off, second model, full training, computed in advance."""
    base = constant(compare(tuner_type="lora")[1])
    for flags in ({"lora_bias": "all"}, {"init_weights": "pissa"}, {"precompute_ref_log_probs": True}):
        assert same(constant(compare(tuner_type="lora", **flags)[1]), base), flags
    assert same(constant(compare(tuner_type="full")[1]), base)


def test_going_on_with_an_adapter_compares_with_the_base_and_warns(compare, sft, one_model):
    base = constant(compare(tuner_type="lora")[1])
    result, said = compare(adapters=[str(sft)])
    assert same(constant(said), base)
    warned = [text for text in noted(result)["warnings"] if "reference" in text]
    assert len(warned) == 1
    assert f"--ref_adapters {sft}" in warned[0]


def test_an_adapter_that_the_tuner_refuses_is_not_proposed_for_the_reference(compare, sft, caplog):
    with pytest.raises(UsageError, match="--tuner_type full loads whole models"):
        compare(tuner_type="full", adapters=[str(sft)])
    assert "--ref_adapters" not in caplog.text


@pytest.mark.parametrize("flags", [{}, {"precompute_ref_log_probs": True}], ids=str)
def test_a_named_adapter(flags, compare, sft, one_model):
    result, said = compare(adapters=[str(sft)], ref_adapters=[str(sft)], **flags)
    constant(said)
    assert at_one(said[0]) or flags, "training begins at the reference"
    assert not any("The reference is the base model" in text for text in noted(result)["warnings"])


def test_a_checkpoint_of_a_run_with_a_named_adapter_holds_one_adapter(compare, sft, tiny_model, one_model):
    result, _ = compare(adapters=[str(sft)], ref_adapters=[str(sft)])
    trained, before = (load_file(folder / "adapter_model.safetensors") for folder in (result.checkpoint, sft))
    assert trained.keys() == before.keys()
    assert not same(trained, before)
    assert not [path for path in result.checkpoint.iterdir() if path.is_dir()]
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), result.checkpoint)
    assert list(plain.peft_config) == ["default"]


def test_every_way_to_a_named_adapter_says_the_same(compare, sft):
    wanted = constant(compare(tuner_type="lora", ref_adapters=[str(sft)])[1])
    result, said = compare(tuner_type="lora", lora_bias="all", ref_adapters=[str(sft)])
    assert same(constant(said), wanted)
    assert "a second model" in noted(result)["notes"]["reference"]["is"]
    assert same(constant(compare(tuner_type="full", ref_adapters=[str(sft)])[1]), wanted)


@pytest.mark.parametrize(
    "way",
    ["off", "named", "second", "full", "advance", "named advance"],
)
def test_resuming_is_exact(way, compare, sft, tmp_path, tiny_model):
    flags = {"tuner_type": "full" if way == "full" else "lora", "precompute_ref_log_probs": "advance" in way}
    start = {}
    if "named" in way:
        flags |= {"ref_adapters": [str(sft)]}
        start = {"adapters": [str(sft)]}
    if way == "second":
        flags |= {"ref_model": str(save_tiny_model(tmp_path / "other", architecture="qwen3", seed=1))}
    whole, said = compare(**flags, **start)
    again, after = compare(**flags, resume_from_checkpoint=str(whole.folder / "checkpoint-2"))
    assert same(constant(said), constant(after))
    name = "model.safetensors" if way == "full" else "adapter_model.safetensors"
    assert same(load_file(whole.checkpoint / name), load_file(again.checkpoint / name))
    for folder in (whole.checkpoint, again.checkpoint):
        assert (folder / "optimizer.safetensors").is_file()
    states = [load_file(folder / "optimizer.safetensors") for folder in (whole.checkpoint, again.checkpoint)]
    assert same(*states)


def test_the_optimizer_has_the_same_parameters_with_a_reference_beside(compare, sft):
    alone, _ = compare(tuner_type="lora")
    beside, _ = compare(tuner_type="lora", ref_adapters=[str(sft)])
    files = [load_file(result.checkpoint / "optimizer.safetensors") for result in (alone, beside)]
    assert files[0].keys() == files[1].keys()
    counts = [noted(result)["notes"]["training"]["trainable_parameters"] for result in (alone, beside)]
    assert counts[0] == counts[1]


def test_a_named_model_of_its_own(compare, tmp_path):
    other = save_tiny_model(tmp_path / "other", architecture="llama", hidden=32, seed=1)
    result, said = compare(tuner_type="lora", ref_model=str(other), torch_dtype="bfloat16")
    constant(said)
    assert not at_one(said[0])
    assert noted(result)["notes"]["reference"]["is"] == f"a second model (--ref_model {other})"


@pytest.fixture
def holes(tiny_model, tmp_path):
    """Return the folder of a model that lacks a weight, and drops numbers out in training."""
    folder = tmp_path / "holes"
    shutil.copytree(tiny_model, folder)
    tensors = load_file(folder / "model.safetensors")
    tensors.pop("model.layers.1.mlp.up_proj.weight")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    facts = json.loads((folder / "config.json").read_text()) | {"attention_dropout": 0.5}
    (folder / "config.json").write_text(json.dumps(facts))
    return {"model": str(folder), "tuner_type": "full", "init_strategy": "normal"}


def test_weights_that_files_lack_are_filled_alike(compare, holes):
    _, said = compare(**holes, model_kwargs={"attention_dropout": 0.0})
    assert at_one(said[0])


def test_a_second_model_moves_no_random_number_of_training(compare, holes):
    """Filling its weights draws random numbers, and so does dropout."""
    one, _ = compare(rlhf_type="alone", **holes)
    other, _ = compare(rlhf_type="idle", **holes)
    assert "a second model" in noted(other)["notes"]["reference"]["is"]
    assert same(*(load_file(result.checkpoint / "model.safetensors") for result in (one, other)))


def test_naming_the_model_itself_loads_no_second_one(compare, tiny_model, one_model):
    constant(compare(tuner_type="lora", ref_model=str(tiny_model))[1])


def test_a_second_model_of_another_family_is_tried_out_in_the_layout_as_well(compare, tmp_path):
    """A state from token to token would let one row of a pack into the next."""
    other = save_tiny_model(tmp_path / "other", architecture="mamba")
    with pytest.raises(martlet.MartletError, match="--padding_free true: Mamba"):
        compare(tuner_type="lora", ref_model=str(other), padding_free=True)
