"""Ctrl-C and SIGTERM leave a checkpoint from which the run continues as if nothing had happened."""

from __future__ import annotations

import json
import multiprocessing
import signal
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from martlet_train.checkpoint import find_last, verify
from martlet_train.interruption import Interrupted

SETTINGS = {"max_steps": 4, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}


def at(step, number=signal.SIGINT, event="on_step_begin", **more):
    options = {"step": step, "number": int(number), "event": event, **more}
    sets = [f"callback.send_signal.{key}={value}" for key, value in options.items()]
    return {"callbacks": ["send_signal"], "set": sets}


@pytest.mark.parametrize(
    ("number", "event", "code"),
    [(signal.SIGINT, "on_step_begin", 130), (signal.SIGTERM, "on_substep_end", 143)],
)
def test_the_step_is_finished_and_saved_and_the_run_continues_from_it(train, tmp_path, number, event, code):
    before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(Interrupted, match="--resume_from_checkpoint") as caught:
        train(**SETTINGS, **at(2, number, event))
    assert caught.value.exit_code == code
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == before
    folder = next((tmp_path / "out").iterdir())
    checkpoint = find_last(folder)
    assert verify(checkpoint)["facts"]["step"] == 2
    assert str(checkpoint) in str(caught.value)
    resumed, whole = train(**SETTINGS, resume_from_checkpoint=str(checkpoint)), train(**SETTINGS)
    expected = load_file(whole.checkpoint / "model.safetensors")
    for name, tensor in load_file(resumed.checkpoint / "model.safetensors").items():
        assert torch.equal(tensor, expected[name])


def test_an_evaluation_is_given_up_and_its_step_is_saved(train, rows, tmp_path):
    with pytest.raises(Interrupted):
        train(**SETTINGS, val_dataset=[str(rows)], eval_steps=1, **at(2, event="on_prediction_step"))
    folder = next((tmp_path / "out").iterdir())
    assert verify(find_last(folder))["facts"]["step"] == 2
    assert (folder / "logging.jsonl").is_file()


def history(folder):
    """Return what was logged, times and speeds aside."""
    lines = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [{k: value for k, value in line.items() if not k.endswith(("runtime", "per_second"))} for line in lines]


STEPS = {**SETTINGS, "eval_steps": 1, "save_steps": 2, "logging_steps": 3}
EPOCHS = {"num_train_epochs": 2, "per_device_train_batch_size": 7, "gradient_accumulation_steps": 1}
PLATEAU = {"lr_scheduler_type": "reduce_lr_on_plateau", "lr_scheduler_kwargs": {"patience": 0, "threshold": 1.0}}


@pytest.mark.parametrize(
    ("settings", "signalled"),
    [
        (STEPS, at(2)),
        (STEPS, at(2, event="on_prediction_step")),
        ({**STEPS, **PLATEAU}, at(2)),
        ({**EPOCHS, "eval_strategy": "epoch"}, at(3)),
        ({**EPOCHS, "eval_strategy": "epoch", "save_steps": 3}, at(3, event="on_prediction_step")),
        ({**EPOCHS, "eval_strategy": "epoch"}, at(2)),
    ],
    ids=["a step", "in the evaluation", "the schedule waits for it", "an epoch", "saved before", "inside an epoch"],
)
def test_an_evaluation_that_was_put_off_is_made_up_for(train, rows, tmp_path, settings, signalled):
    settings = {**settings, "val_dataset": [str(rows)], "metric_for_best_model": "loss"}
    with pytest.raises(Interrupted):
        train(**settings, **signalled)
    stopped = find_last(next((tmp_path / "out").iterdir()))
    torch.manual_seed(1234)  # what a new process would start from
    resumed, whole = train(**settings, resume_from_checkpoint=str(stopped)), train(**settings)
    assert history(resumed.checkpoint) == history(whole.checkpoint)
    assert resumed.metrics.keys() == whole.metrics.keys()
    assert resumed.metrics["train_loss"] == whole.metrics["train_loss"]
    for name in ("model.safetensors", "optimizer.safetensors", "scheduler.safetensors"):
        assert (resumed.checkpoint / name).read_bytes() == (whole.checkpoint / name).read_bytes()
    best = [json.loads((one.checkpoint / "trainer_state.json").read_text()) for one in (resumed, whole)]
    assert [best[0][key] for key in ("best_metric", "best_global_step")] == [
        best[1][key] for key in ("best_metric", "best_global_step")
    ]


def test_nothing_is_owed_to_a_run_that_evaluates_no_more(train, rows, tmp_path):
    with pytest.raises(Interrupted):
        train(**STEPS, val_dataset=[str(rows)], **at(2))
    stopped = find_last(next((tmp_path / "out").iterdir()))
    assert verify(stopped)["facts"]["owes_evaluation"]
    resumed = train(**SETTINGS, resume_from_checkpoint=str(stopped))
    assert [line["step"] for line in history(resumed.checkpoint) if "eval_loss" in line] == [1]


def test_a_second_signal_ends_at_once(train, tmp_path, caplog):
    settings = {**SETTINGS, "gradient_accumulation_steps": 3}
    with pytest.raises(KeyboardInterrupt):
        train(**settings, **at(2, event="on_substep_end", times=2))
    assert "Ended at once, at step 1 of 4. It has no checkpoint yet." in caplog.text
    assert not list(next((tmp_path / "out").iterdir()).glob("*checkpoint-*"))


def test_a_second_signal_names_the_checkpoint_there_is(train, tmp_path, caplog):
    settings = {**SETTINGS, "gradient_accumulation_steps": 3, "save_steps": 1}
    with pytest.raises(KeyboardInterrupt):
        train(**settings, **at(3, event="on_substep_end", times=2))
    saved = find_last(next((tmp_path / "out").iterdir()))
    assert verify(saved)["facts"]["step"] == 2
    assert f"Ended at once, at step 2 of 4. To continue, add --resume_from_checkpoint {saved}" in caplog.text


def test_without_checkpoints_none_is_written(train, tmp_path):
    with pytest.raises(Interrupted, match="No checkpoint was written"):
        train(**SETTINGS, save_strategy="no", **at(1))
    folder = next((tmp_path / "out").iterdir())
    assert not list(folder.glob("checkpoint-*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_data_workers_do_not_die_of_a_signal_that_all_processes_get(train, tmp_path, number):
    """As from a terminal, ``timeout`` or a batch system; here a second process sends it, as theirs does."""
    with pytest.raises(Interrupted):
        train(**SETTINGS, dataloader_num_workers=1, **at(2, number, children=True))
    assert not multiprocessing.active_children()
    assert verify(find_last(next((tmp_path / "out").iterdir())))["facts"]["step"] == 2


def test_ctrl_c_in_a_terminal_is_told_once_and_leaves_a_checkpoint(prepare, tmp_path):
    """The terminal signals the whole group of processes: what the data workers do with it must not be seen."""
    run = prepare(**SETTINGS, dataloader_num_workers=2, **at(2, group=True))
    given = {flag.name: value for flag, value, origin in run.config if origin.given}
    code = f"import martlet; martlet.run('sft', **{given!r})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, start_new_session=True
    )
    assert done.returncode == 1
    assert done.stderr.count("SIGINT: finishing this step") == 1
    assert done.stderr.count("Traceback") == 1
    assert "Interrupted: Stopped by SIGINT at step 2 of 4" in done.stderr
    assert verify(find_last(next((tmp_path / "out").iterdir())))["facts"]["step"] == 2
