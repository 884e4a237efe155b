"""Pairs and labels in every way that rows reach a model: the same training, and the same place to go on from."""

from __future__ import annotations

import hashlib
import json

import pytest

from martlet_sdk.preferences import write

STEPS = {"max_steps": 4, "per_device_train_batch_size": 2, "save_steps": 2, "tuner_type": "lora", "beta": 0.1}
ORDER = {"dataset_shuffle": False, "train_dataloader_shuffle": False}


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    return write(tmp_path_factory.mktemp("task"), 20)


def weights(folder, step=4):
    file = folder / f"checkpoint-{step}" / "adapter_model.safetensors"
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.fixture
def aligned(trained, files):
    def run(name, kind="dpo", rows="pairs", **settings):
        data = {"dataset": files / f"{rows}.jsonl"} if "cached_dataset" not in settings else {"dataset": []}
        return trained(name, command="rlhf", rlhf_type=kind, **{**STEPS, **data, **settings})

    return run


def test_pairs_train_the_same_model_whenever_they_are_encoded(aligned, files, typed, tiny_model, tmp_path):
    words = ["export", "--model", tiny_model, "--to_cached_dataset", "true", "--template_mode", "rlhf"]
    words += ["--loss_scale", "last_round", "--dataset", files / "pairs.jsonl", "--output_dir", tmp_path / "cached"]
    assert typed(*words).code == 0
    expected = weights(aligned("early", **ORDER))
    cached = {"cached_dataset": tmp_path / "cached" / "train"}
    for name, way in (("late", {"lazy_tokenize": True}), ("stream", {"streaming": True}), ("cached", cached)):
        assert weights(aligned(name, **ORDER, **way)) == expected, name
    scored = aligned("scored", "rm", **ORDER, **cached)  # which reads no weights, and takes the same samples
    assert weights(scored) == weights(aligned("scored early", "rm", **ORDER))
    other = typed("rlhf", "--rlhf_type", "kto", "--model", tiny_model, "--cached_dataset", cached["cached_dataset"])
    assert other.error.endswith("--template_mode kto --loss_scale last_round")


@pytest.mark.parametrize(
    "way",
    [{"lazy_tokenize": True}, {"streaming": True, "shuffle_buffer_size": 7}, {"packing": True, "packing_length": 400}],
)
def test_a_run_on_pairs_goes_on_where_it_was_stopped(way, aligned, files):
    flags = {"val_dataset": files / "pairs-val.jsonl", **way}
    whole = aligned("whole", **flags)
    resumed = aligned("resumed", **flags, resume_from_checkpoint=whole / "checkpoint-2")
    assert weights(resumed) == weights(whole)
    ledgers = [json.loads((folder / "ledger.json").read_text())["totals"] for folder in (whole, resumed)]
    assert ledgers[0] == ledgers[1]
    assert 8 <= ledgers[0]["train"] <= 20 == ledgers[0]["eval"]  # a stream counts what it has read
