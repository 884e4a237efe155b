"""Mistakes are named before anything is loaded or written."""

from __future__ import annotations

import pytest

from martlet import ConfigError, UsageError


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"optim": "adamw_torch_fuse"}, "Did you mean .*adamw_torch_fused"),
        ({"lr_scheduler_type": "cosin"}, "--lr_scheduler_type cosin.*Did you mean cosine"),
        ({"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"min_lrr": 1}}, "min_lrr"),
        ({"bf16": True, "fp16": True}, "--bf16 and --fp16"),
        ({"fp16": True}, "--fp16 true needs a GPU"),
        ({"eval_strategy": "steps"}, "give --val_dataset or --split_dataset_ratio"),
        ({"eval_on_start": True}, "give --val_dataset or --split_dataset_ratio"),
        ({"packing": True}, "--packing_length or --max_length"),
        ({"packing": True, "packing_length": 99, "group_by_length": True}, "--group_by_length true has no effect"),
        ({"group_by_length": True, "train_dataloader_shuffle": False}, "--train_dataloader_shuffle false"),
        ({"push_to_hub": True}, "--hub_model_id"),
        ({"enable_dft_loss": True, "loss_type": "cross_entropy"}, "choose one"),
        ({"router_aux_loss_coef": 0.1}, "no experts"),
        ({"dataloader_drop_last": True, "per_device_train_batch_size": 50}, "too few rows"),
        ({"save_steps": 2.5}, "save_steps must be an integer"),
        ({"report_to": ["wandbb"]}, "--report_to wandbb.*Did you mean wandb"),
        ({"gradient_accumulation_steps": 0}, "at least 1"),
    ],
)
def test_a_wrong_setting_is_named(train, settings, words):
    with pytest.raises(UsageError, match=words):
        train(max_steps=1, **settings)


def test_contradictions_are_found_before_anything_is_written(train, tmp_path):
    with pytest.raises(ConfigError):
        train(bf16=True, fp16=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("place", ["a file", "under a file"])
def test_an_output_folder_that_cannot_be_is_refused_before_the_model_is_read(train, tmp_path, place):
    file = tmp_path / "file"
    file.write_text("")
    folder = file if place == "a file" else file / "below"
    with pytest.raises(UsageError, match=r"--output_dir .* is not a folder"):
        train(output_dir=str(folder), model=str(tmp_path / "no model"))


def test_an_output_folder_without_permission_is_refused(train, tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(UsageError, match="cannot be written"):
        train(output_dir=str(tmp_path / "new"))


def test_a_loss_for_pairs_is_refused(train, tmp_path):
    plugin = tmp_path / "pairs.py"
    plugin.write_text(
        "from martlet import Loss, hookimpl\n\n"
        "@hookimpl\ndef provide_losses():\n    yield Loss('pairs', lambda *a: a, contract='pair')\n"
    )
    from pathlib import Path

    standins = str(Path(__file__).parent / "standins.py")
    with pytest.raises(UsageError, match="--loss_type pairs is a pair loss; sft takes: token"):
        train(loss_type="pairs", external_plugins=[standins, str(plugin)])
