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
        ({"optim_args": "momentum"}, "--optim_args momentum: 'momentum' is not one name=value"),
        ({"optim_args": "momentum=0.9,"}, "'' is not one name=value"),
        (
            {"optim_args": "amsgrad=true"},
            "--optim_args amsgrad=true: adamw_torch_fused has no such .* none",
        ),
        ({"optim": "sgd", "optim_args": "momentun=0.9"}, "sgd has no such setting. Did you mean momentum"),
        ({"optim": "sgd", "optim_args": "momentum=fast"}, "--optim_args momentum=fast: .*could not convert"),
        ({"optim": "sgd", "optim_args": "momentum=-1"}, "--optim_args momentum=-1: .*Invalid momentum value"),
        ({"optim": "sgd", "optim_args": "momentum=0.9,nesterov=on"}, "nesterov=on: write nesterov=true"),
        ({"optim": "sgd", "optim_args": "weight_decay=0.5"}, "use --weight_decay 0.5"),
        ({"optim": "galore_adamw"}, "--optim galore_adamw cannot be made .*galore"),
        ({"bf16": True, "fp16": True}, "--bf16 and --fp16"),
        ({"fp16": True}, "--fp16 true needs a GPU"),
        ({"eval_strategy": "steps"}, "give --val_dataset or --split_dataset_ratio"),
        ({"eval_on_start": True}, "give --val_dataset or --split_dataset_ratio"),
        ({"resume_from_checkpoint": "nowhere"}, "--resume_from_checkpoint nowhere: there is no such folder"),
        ({"packing": True, "packing_length": 99, "group_by_length": True}, "--group_by_length true has no effect"),
        ({"group_by_length": True, "train_dataloader_shuffle": False}, "--train_dataloader_shuffle false"),
        ({"push_to_hub": True}, "--hub_model_id"),
        ({"enable_dft_loss": True, "loss_type": "cross_entropy"}, "choose one"),
        ({"router_aux_loss_coef": 0.1}, "no experts"),
        ({"dataloader_drop_last": True, "per_device_train_batch_size": 50}, "too few rows"),
        ({"save_steps": 2.5}, "save_steps must be an integer"),
        ({"report_to": ["wandbb"]}, "--report_to wandbb.*Did you mean wandb"),
        ({"gradient_accumulation_steps": 0}, "at least 1"),
        ({"max_steps": 0}, "--max_steps 0 trains nothing: give at least 1, or -1"),
        ({"learning_rate": float("inf")}, "--learning_rate inf is no finite number"),
        ({"learning_rate": float("nan")}, "--learning_rate"),
        ({"weight_decay": float("inf")}, "--weight_decay inf is no finite number"),
    ],
)
def test_a_wrong_setting_is_named(train, settings, words):
    with pytest.raises(UsageError, match=words):
        train(**{"max_steps": 1, **settings})


def test_settings_of_the_optimizer_are_refused_before_the_model_is_read(train, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(UsageError, match="momentun"):
        train(optim="sgd", optim_args="momentun=0.9")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("optim", ["sgd", "rmsprop"])
def test_settings_of_the_optimizer_count(train, optim):
    settings = {"max_steps": 3, "optim": optim, "save_strategy": "no", "logging_steps": 1}
    with_momentum = train(**settings, optim_args="momentum=0.9")
    assert with_momentum.metrics["loss"] != train(**settings).metrics["loss"]


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
    with pytest.raises(UsageError, match="--loss_type pairs is a pair loss; sft takes token losses: "):
        train(loss_type="pairs", external_plugins=[standins, str(plugin)])


def test_a_loss_that_no_plugin_provides_is_told_with_those_that_the_trainer_takes(train, tmp_path):
    from pathlib import Path

    plugin, standins = tmp_path / "pairs.py", str(Path(__file__).parent / "standins.py")
    plugin.write_text(
        "from martlet import Loss, hookimpl\n\n\n@hookimpl\ndef provide_losses():\n"
        "    yield Loss('pairs', print, contract='pair')\n"
    )
    with pytest.raises(UsageError, match=r"--loss_type zzz: .* 'zzz'\. The token losses: cross_entropy, dft\.$"):
        train(loss_type="zzz", external_plugins=[standins, str(plugin)])
    with pytest.raises(UsageError, match=r"--loss_type cross_entopy: .* cross_entropy\? The token losses: cross_"):
        train(loss_type="cross_entopy")
