"""Adapters on models that put scores to conversations: the score head is trained and saved with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForSequenceClassification, PeftModel
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from martlet import UsageError


def classifier(folder: Path, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1)


@pytest.mark.parametrize(
    "flags", [{}, {"target_modules": ["all-linear", "embed_tokens"]}, {"target_regex": ".*q_proj"}]
)
def test_the_head_is_trained_whole_and_gets_no_adapter(flags, tiny_model, bench):
    tuned = bench.apply("lora", classifier(tiny_model), **flags)
    heads = {name for name in bench.trained(tuned) if ".score" in name}
    assert heads == {"base_model.model.score.modules_to_save.default.weight"}
    assert any(".lora_A." in name for name in bench.trained(tuned))


def test_the_head_is_in_place_on_the_meta_device(tiny_model, bench):
    with torch.device("meta"):
        config = AutoConfig.from_pretrained(tiny_model, num_labels=1)
        meta = AutoModelForSequenceClassification.from_config(config)
    tuned, real = bench.apply("lora", meta), bench.apply("lora", classifier(tiny_model))
    assert bench.trained(tuned) == bench.trained(real)


@pytest.mark.parametrize("init", [True, "pissa"])
def test_plain_peft_loads_what_was_written(init, tiny_model, tmp_path, bench):
    run = bench.run(init_weights=init)
    tuned = bench.move(bench.apply("lora", classifier(tiny_model), init_weights=init))
    run.get("tuners", "lora").save(tuned, tmp_path / "adapter")
    other = classifier(tiny_model, seed=1)  # another head, which the adapter replaces
    plain = PeftModel.from_pretrained(other, tmp_path / "adapter")
    assert torch.allclose(bench.logits(plain), bench.logits(tuned), atol=1e-5)
    auto = AutoPeftModelForSequenceClassification.from_pretrained(tmp_path / "adapter", num_labels=1)
    assert torch.allclose(bench.logits(auto), bench.logits(tuned), atol=1e-5)


def test_merging_keeps_the_trained_head(tiny_model, bench):
    run = bench.run()
    tuned = bench.move(bench.apply("lora", classifier(tiny_model)))
    before = bench.logits(tuned)
    assert torch.allclose(bench.logits(run.get("tuners", "lora").merge(tuned)), before, atol=1e-5)


def test_training_goes_on_with_the_trained_head_and_writes_it_again(tiny_model, tmp_path, bench):
    tuner = bench.run().get("tuners", "lora")
    tuned = bench.move(bench.apply("lora", classifier(tiny_model)))
    tuner.save(tuned, tmp_path / "one")
    again = tuner.load(classifier(tiny_model, seed=1), tmp_path / "one", trainable=True)
    assert bench.trained(again) == bench.trained(tuned)
    tuner.save(again, tmp_path / "two")
    weights = [(tmp_path / name / "adapter_model.safetensors").read_bytes() for name in ("one", "two")]
    assert weights[0] == weights[1]
    for name in ("one", "two"):
        config = json.loads((tmp_path / name / "adapter_config.json").read_text())
        assert (config["task_type"], sorted(config["modules_to_save"])) == ("SEQ_CLS", ["classifier", "score"])


def test_an_adapter_of_a_model_that_writes_is_refused_with_the_way_out(tiny_model, tmp_path, bench):
    run = bench.run()
    tuner = run.get("tuners", "lora")
    tuner.save(bench.apply("lora", AutoModelForCausalLM.from_pretrained(tiny_model)), tmp_path / "adapter")
    with pytest.raises(UsageError, match=r"belongs to a model that writes.*martlet merge-lora --adapters"):
        tuner.load(classifier(tiny_model), tmp_path / "adapter", trainable=True)
