"""``--task_type seq_cls``: models that put scores to conversations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from martlet import CheckpointError, MartletError, UsageError
from martlet_sdk.tiny import save_tiny_model

IDS = torch.arange(3, 23).view(2, 10)


def load(prepare: Any, *, for_training: bool = False, **flags: Any) -> Any:
    run = prepare(**{"task_type": "seq_cls", **flags})
    return run.one("models").load(run, for_training=for_training)


def scores(model: Any, ids: torch.Tensor = IDS) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=ids).logits


def save_classifier(folder: Path, base: Path, labels: int = 1, **config: Any) -> Path:
    torch.manual_seed(3)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=labels, **config)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("architecture", ["qwen3", "gpt2"])
@pytest.mark.parametrize("tied", [False, True])
def test_a_new_head_depends_on_the_seed_alone(architecture, tied, tmp_path, prepare):
    folder = save_tiny_model(tmp_path / "model", architecture=architecture, tie_word_embeddings=tied)
    torch.manual_seed(1)
    one = load(prepare, for_training=True, model=str(folder), num_labels=1).model
    torch.manual_seed(2)
    same = load(prepare, for_training=True, model=str(folder), num_labels=1).model
    other = load(prepare, for_training=True, model=str(folder), num_labels=1, seed=7).model
    assert torch.equal(scores(one), scores(same))
    assert not torch.equal(scores(one), scores(other))
    assert 0.01 < one.score.weight.std().item() < 0.04
    assert one.config.problem_type == "regression"
    assert one.config.pad_token_id == AutoTokenizer.from_pretrained(folder).pad_token_id


@pytest.mark.parametrize("labels", [1, 3])
def test_a_saved_head_is_read_as_transformers_reads_it(labels, tiny_model, tmp_path, prepare):
    folder = save_classifier(tmp_path / "scores", tiny_model, labels)
    model = load(prepare, model=str(folder)).model
    assert torch.equal(scores(model), scores(AutoModelForSequenceClassification.from_pretrained(folder)))
    assert scores(model).shape == (2, labels)


def test_a_saved_head_keeps_the_padding_that_it_was_made_with(tiny_model, tmp_path, prepare):
    folder = save_classifier(tmp_path / "scores", tiny_model, pad_token_id=17)
    model = load(prepare, model=str(folder)).model
    assert model.config.pad_token_id == 17


def test_a_new_head_knows_the_padding_where_config_json_does_not(tmp_path, prepare):
    folder = save_tiny_model(tmp_path / "model", pad_token_id=None)
    model = load(prepare, for_training=True, model=str(folder), num_labels=1).model
    padded = torch.cat([IDS, torch.full((2, 4), AutoTokenizer.from_pretrained(folder).pad_token_id)], dim=1)
    assert torch.allclose(scores(model, padded), scores(model), atol=1e-6)


@pytest.mark.parametrize("tied", [False, True])
def test_the_skeleton_has_the_same_shapes(tied, tmp_path, prepare):
    folder = save_tiny_model(tmp_path / "model", tie_word_embeddings=tied)
    run = prepare(model=str(folder), task_type="seq_cls", num_labels=2)
    skeleton, model = run.one("models").skeleton(run), run.one("models").load(run, for_training=True).model
    assert {n: p.shape for n, p in skeleton.named_parameters()} == {n: p.shape for n, p in model.named_parameters()}
    assert {p.device.type for p in skeleton.parameters()} == {"meta"}
    assert skeleton.score.weight.shape == (2, 64)


def test_the_numbers_of_several_labels_are_classes(tiny_model, prepare):
    run = prepare(model=str(tiny_model), task_type="seq_cls", num_labels=3)
    assert run.config.value("problem_type") == "single_label_classification"
    chosen = load(prepare, for_training=True, model=str(tiny_model), num_labels=3, problem_type="regression")
    assert chosen.model.config.problem_type == "regression"


def test_a_new_token_gets_an_embedding(tiny_model, prepare):
    loaded = load(prepare, for_training=True, model=str(tiny_model), num_labels=1, new_special_tokens=["<nest>"])
    assert len(loaded.processor) == loaded.model.get_input_embeddings().weight.shape[0] == 513


def test_a_new_head_is_told_in_one_line(tiny_model, prepare, caplog):
    with caplog.at_level("INFO"):
        load(prepare, for_training=True, model=str(tiny_model), num_labels=1)
    assert [record.getMessage() for record in caplog.records] == [
        "The model gets a new score head; it starts from --seed 42."
    ]


def test_a_head_that_is_nowhere_is_not_made_up_for_inference(tiny_model, prepare):
    with pytest.raises(CheckpointError, match="has no score head, so it gives no scores; train one first"):
        load(prepare, model=str(tiny_model), num_labels=1)


@pytest.mark.parametrize("brings", [True, False])
def test_an_adapter_may_bring_the_head(brings, tiny_model, tmp_path, prepare):
    peft = pytest.importorskip("peft")  # of the tuners, which this distribution does without
    base = AutoModelForSequenceClassification.from_pretrained(tiny_model, num_labels=1)
    lora = peft.LoraConfig(target_modules="all-linear", task_type="SEQ_CLS" if brings else None)
    peft.get_peft_model(base, lora).save_pretrained(tmp_path / "adapter")
    flags = {"model": str(tiny_model), "num_labels": 1, "adapters": [str(tmp_path / "adapter")]}
    if brings:
        assert load(prepare, **flags).model.score.weight.shape == (1, 64)
        return
    with pytest.raises(CheckpointError, match="name with --adapters an adapter that brings one"):
        load(prepare, **flags)


def test_lost_weights_of_a_classifier_are_still_refused(tiny_model, tmp_path, prepare):
    folder = save_classifier(tmp_path / "scores", tiny_model)
    weights = load_file(folder / "model.safetensors")
    del weights["score.weight"], weights["model.norm.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"1 weights .* not in its files, among them model\.norm"):
        load(prepare, for_training=True, model=str(folder))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"task_type": "seq_cls"}, "has no classification head, so --num_labels has to say"),
        ({"num_labels": 1}, "--num_labels belongs to --task_type seq_cls"),
        ({"problem_type": "regression"}, "--problem_type belongs to --task_type seq_cls"),
    ],
)
def test_flags_that_do_not_fit_a_language_model_are_refused_at_once(flags, message, tiny_model, prepare):
    run = prepare(model=str(tiny_model), **flags)
    with pytest.raises(UsageError, match=message):
        run.emit("on_config", config=run.config)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({}, r"writes no text \(Qwen3ForSequenceClassification, --task_type seq_cls\); name a language model\.$"),
        ({"task_type": "seq_cls", "num_labels": 2}, "--num_labels 2: the head of .* gives 1; leave the flag out"),
    ],
)
def test_flags_that_do_not_fit_a_classifier_are_refused_at_once(flags, message, tiny_model, tmp_path, prepare):
    run = prepare(model=str(save_classifier(tmp_path / "scores", tiny_model)), **flags)
    with pytest.raises(UsageError, match=message):
        run.emit("on_config", config=run.config)


def test_an_encoder_is_refused(tmp_path, prepare):
    from transformers import BertConfig, BertForSequenceClassification

    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertForSequenceClassification(BertConfig(vocab_size=512, **shape)).save_pretrained(tmp_path / "bert")
    run = prepare(model=str(tmp_path / "bert"), task_type="seq_cls")
    with pytest.raises(MartletError, match="BertForSequenceClassification has no head over the last token"):
        run.one("models").skeleton(run)


def test_a_classifier_belongs_to_the_family_of_its_language_model(tiny_model, tmp_path, prepare):
    folder = save_classifier(tmp_path / "scores", tiny_model)
    run = prepare("families", model=str(folder), task_type="seq_cls")
    assert run.one("models").facts(run).name == "qwen"
    assert run.one("models").checkpoint(run)[1] == ("Qwen3ForSequenceClassification", "Qwen3ForCausalLM")
