"""Training all weights, or a part of them."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from martlet import CheckpointError, UsageError
from martlet_sdk.tiny import save_tiny_model
from martlet_tuners.full import FullTuner


def test_everything_is_trained_without_flags(tiny_model, bench):
    model = bench.apply("full", bench.model(tiny_model))
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_the_model_stays_the_same_object(tiny_model, bench):
    model = bench.model(tiny_model)
    assert bench.apply("full", model) is model


def test_freeze_parameters_goes_by_beginnings(tiny_model, bench):
    model = bench.apply("full", bench.model(tiny_model), freeze_parameters=["model.embed_tokens", "model.layers.0."])
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {n for n, _ in model.named_parameters() if n.startswith(("model.embed_tokens", "model.layers.0."))}


def test_freeze_parameters_regex_is_searched_in_names(tiny_model, bench):
    model = bench.apply("full", bench.model(tiny_model), freeze_parameters_regex=r"layers\.\d+\.mlp")
    assert not any("mlp" in name for name in bench.trained(model))
    assert any("self_attn" in name for name in bench.trained(model))


def test_trainable_parameters_win(tiny_model, bench):
    flags = {"freeze_parameters_ratio": 1.0, "trainable_parameters": ["lm_head"]}
    model = bench.apply("full", bench.model(tiny_model), **flags, trainable_parameters_regex=r"1\..*norm")
    wanted = {"input_layernorm", "post_attention_layernorm", "self_attn.q_norm", "self_attn.k_norm"}
    assert bench.trained(model) == {"lm_head.weight", *(f"model.layers.1.{name}.weight" for name in wanted)}


def test_tied_weights_are_known_by_both_names(tmp_path, bench):
    folder = save_tiny_model(tmp_path / "tied", tie_word_embeddings=True)
    flags = {"freeze_parameters_ratio": 1.0, "trainable_parameters": ["lm_head"]}
    assert bench.trained(bench.apply("full", bench.model(folder), **flags)) == {"model.embed_tokens.weight"}


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ratio=st.floats(0, 0.999))
def test_the_frozen_share_comes_first_and_never_exceeds_the_ratio(ratio, tiny_model, bench):
    model = bench.apply("full", bench.meta(tiny_model), freeze_parameters_ratio=ratio)
    parameters = list(model.parameters())
    flags = [parameter.requires_grad for parameter in parameters]
    assert flags == sorted(flags)
    frozen = sum(p.numel() for p in parameters if not p.requires_grad)
    total = sum(p.numel() for p in parameters)
    nxt = next(p.numel() for p in parameters if p.requires_grad)
    assert frozen <= ratio * total < frozen + nxt


NAMES = ["model.embed_tokens", "model.layers.0", "model.layers.1.mlp", "lm_head", "model.norm"]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(freeze=st.lists(st.sampled_from(NAMES)), train=st.lists(st.sampled_from(NAMES), min_size=1))
def test_what_is_both_frozen_and_trainable_is_trained(freeze, train, tiny_model, bench):
    model = bench.apply("full", bench.meta(tiny_model), freeze_parameters=freeze, trainable_parameters=train)
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (name.startswith(tuple(train)) or not name.startswith((*freeze, "-")))


@pytest.mark.parametrize(
    "flags, match",
    [
        (
            {"freeze_parameters": ["model.layer.0"]},
            r"--freeze_parameters model\.layer\.0: no .* Did you mean model\.layers",
        ),
        ({"trainable_parameters": ["lmhead"]}, r"--trainable_parameters lmhead: .* Did you mean lm_head"),
        ({"freeze_parameters_regex": "["}, r"--freeze_parameters_regex \[: not a regular expression"),
        ({"trainable_parameters_regex": "visual"}, r"--trainable_parameters_regex visual: it is found in no parameter"),
        ({"freeze_parameters_ratio": 1.0}, "leaves nothing to train"),
    ],
)
def test_flags_that_fit_nothing_are_refused(flags, match, tiny_model, bench):
    with pytest.raises(UsageError, match=match):
        bench.apply("full", bench.meta(tiny_model), **flags)


def test_a_ratio_out_of_range_is_refused(bench):
    with pytest.raises(UsageError, match=r"--freeze_parameters_ratio: 1\.5 is out of range"):
        bench.run(freeze_parameters_ratio=1.5)


def test_adapter_flags_are_reported_as_without_effect(tiny_model, bench):
    run = bench.run(target_modules=["q_proj"])
    run.get("tuners", "full").apply(bench.meta(tiny_model), run)
    assert run.record.warnings == ["--target_modules has no effect here: it places adapters, and this tuner adds none."]


def test_saved_weights_load_with_plain_transformers(tiny_model, tmp_path, bench):
    model = bench.move(bench.apply("full", bench.model(tiny_model)))
    FullTuner().save(model, tmp_path)
    assert torch.equal(bench.logits(AutoModelForCausalLM.from_pretrained(tmp_path)), bench.logits(model))
    assert {f.name for f in tmp_path.iterdir()} == {"config.json", "generation_config.json", "model.safetensors"}


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "qwen3_moe"])
def test_load_restores_what_save_wrote(architecture, tmp_path, bench):
    folder = save_tiny_model(tmp_path / "base", architecture=architecture)
    model = bench.move(bench.apply("full", bench.model(folder)))
    FullTuner().save(model, tmp_path / "saved")
    loaded = FullTuner().load(bench.model(folder), tmp_path / "saved")
    assert torch.equal(bench.logits(loaded), bench.logits(model))
    assert bench.trained(loaded) == set()


def test_training_goes_on_with_what_was_frozen(tiny_model, tmp_path, bench):
    model = bench.move(bench.apply("full", bench.model(tiny_model), freeze_parameters_ratio=0.6))
    FullTuner().save(model, tmp_path)
    loaded = FullTuner().load(bench.model(tiny_model), tmp_path, trainable=True)
    assert bench.trained(loaded) == bench.trained(model)


def test_weights_of_another_model_are_refused(tiny_model, tmp_path, bench):
    FullTuner().save(bench.model(save_tiny_model(tmp_path / "deep", layers=3)), tmp_path / "saved")
    with pytest.raises(CheckpointError, match=r"it has model\.layers\.2\..*saved from another"):
        FullTuner().load(bench.model(tiny_model), tmp_path / "saved")


def test_weights_of_another_size_are_refused(tiny_model, tmp_path, bench):
    FullTuner().save(bench.model(save_tiny_model(tmp_path / "wide", hidden=32)), tmp_path / "saved")
    with pytest.raises(CheckpointError, match="cannot be loaded into this model"):
        FullTuner().load(bench.model(tiny_model), tmp_path / "saved")


def test_an_adapter_is_refused(tiny_model, tmp_path, bench):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(UsageError, match="there is an adapter in it, and --tuner_type full loads whole models"):
        FullTuner().load(bench.model(tiny_model), tmp_path)


def test_a_kernel_named_by_the_checkpoint_is_not_loaded(tiny_model, tmp_path, bench, monkeypatch):
    asked: list[str] = []
    monkeypatch.setattr("transformers.modeling_utils.lazy_import_flash_attention", lambda name, **_: asked.append(name))
    model = bench.move(bench.apply("full", bench.model(tiny_model)))
    FullTuner().save(model, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"_attn_implementation": "someone/kernel"}))
    loaded = FullTuner().load(bench.model(tiny_model), tmp_path)
    assert torch.equal(bench.logits(loaded), bench.logits(model))
    assert asked == []
