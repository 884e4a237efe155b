"""What a run tells on screen and in its folder, with a real trainer on a tiny model."""

import io
import json
import logging
import os
import pty
import resource
import subprocess
import sys
import termios
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from martlet.errors import UsageError
from martlet_train.event_log import EventLog
from martlet_train.log_lines import describe, duration, number
from martlet_train.reporting import Reporter, other_reports


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 4)

    def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        logits = self.linear(x)
        return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}


ROWS = [{"x": torch.randn(4, generator=torch.Generator().manual_seed(i)), "labels": i % 4} for i in range(40)]


def run_in(folder: Path | None, rank: int = 0) -> Any:
    return SimpleNamespace(folder=folder, logger=logging.getLogger("martlet"), process=SimpleNamespace(rank=rank))


def train(
    run: Any, steps: int = 10, *, resume: Path | None = None, callbacks: tuple[Any, ...] = (), **settings: Any
) -> str:
    """Train, return what was printed."""
    stream = io.StringIO()
    reporter = Reporter(run, stream=stream, progress=False, **settings)
    arguments = TrainingArguments(
        output_dir=str((run.folder or Path(".")) / "checkpoints"), max_steps=steps, per_device_train_batch_size=4,
        logging_steps=2, logging_first_step=True, eval_strategy="steps", eval_steps=5, save_strategy="steps",
        save_steps=5, report_to=other_reports("tensorboard"), disable_tqdm=True, use_cpu=True, seed=0,
    )  # fmt: skip
    torch.manual_seed(0)
    trainer = Trainer(Model(), arguments, train_dataset=ROWS, eval_dataset=ROWS[:8], callbacks=[reporter, *callbacks])
    trainer.remove_callback(PrinterCallback)
    with reporter:
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    return stream.getvalue()


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "logging.jsonl").read_text().splitlines()]


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(folder / "runs"))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("finished")
    return folder, train(run_in(folder))


class Stop(TrainerCallback):
    """Break the training off at a step."""

    def __init__(self, at: int) -> None:
        self.at = at

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.at:
            raise KeyboardInterrupt


# Lines


def test_a_line_for_each_log_event_says_where_training_is(finished):
    _, printed = finished
    lines = printed.splitlines()
    line = next(line for line in lines if line.startswith("step  4/10 "))
    words = ["loss ", "grad_norm ", "learning_rate ", "epoch ", "elapsed ", "remaining ", "memory ", " GiB", "speed "]
    places = [line.index(word) for word in words]
    assert places == sorted(places)
    assert [line[:10] for line in lines[:3]] == ["step  1/10", "step  2/10", "step  4/10"]
    assert any(line.startswith("step  5/10  eval_loss ") for line in lines)
    assert any("train_loss" in line and line.startswith("step 10/10") for line in lines)
    assert "\r" not in printed


def test_token_accuracy_and_token_speed_are_shown_when_the_trainer_logs_them():
    logs = {"loss": 2.34567, "token_acc": 0.51234, "learning_rate": 1e-4, "tokens_per_second": 12345.6, "epoch": 0.5}
    line = describe(logs, step=10, total=200, elapsed_seconds=12.0, remaining_seconds=228.0, memory_gib=1.234,
                    steps_per_second=0.5)  # fmt: skip
    assert line == (
        "step  10/200  loss 2.3457  learning_rate 1.0e-04  token_acc 0.5123  epoch 0.50  elapsed 12s  remaining 3m48s"
        "  memory 1.23 GiB  speed 2.00 s/step  12,346 tokens/s"
    )


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("loss", 2.0, "2.0000"), ("loss", 12.34567, "12.346"), ("loss", 0.0, "0.0000"), ("loss", float("nan"), "nan"),
        ("loss", 0.000123, "1.2e-04"), ("learning_rate", 5e-5, "5.0e-05"), ("learning_rate", 0.0, "0.0e+00"),
        ("grad_norm", float("inf"), "inf"), ("grad_norm", 1234.56, "1234.6"), ("count", 12345, "12,345"),
        ("note", "text", "text"),
    ],
)  # fmt: skip
def test_numbers_have_the_digits_that_a_reader_compares(key, value, shown):
    assert number(key, value) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.04, "0.0s"), (4.2, "4.2s"), (38.4, "38s"), (59.6, "1m00s"), (228, "3m48s"), (3725, "1h02m"), (183600, "2d03h")],
)
def test_durations_are_short(seconds, shown):
    assert duration(seconds) == shown


# Files


def test_logging_jsonl_has_one_object_for_each_event(finished):
    folder, _ = finished
    rows = records(folder)
    training = [row for row in rows if "loss" in row]
    assert [row["step"] for row in training] == [1, 2, 4, 6, 8, 10]
    assert {"grad_norm", "learning_rate", "epoch", "elapsed_seconds", "memory_gib"} <= set(training[2])
    assert training[2]["global_step/max_steps"] == "4/10"
    assert [row["step"] for row in rows if "eval_loss" in row] == [5, 10]
    assert "train_runtime" in rows[-1]


def test_tensorboard_has_the_same_values(finished):
    folder, _ = finished
    logged = [(row["step"], row["loss"]) for row in records(folder) if "loss" in row]
    assert scalars(folder)["train/loss"] == [(step, pytest.approx(loss)) for step, loss in logged]
    assert [step for step, _ in scalars(folder)["eval/loss"]] == [5, 10]


def test_loss_curves_are_pictures(finished):
    folder, _ = finished
    names = {path.name for path in (folder / "images").iterdir()}
    assert names == {"loss.png", "learning_rate.png", "grad_norm.png", "overview.png"}
    for name in names:
        assert (folder / "images" / name).read_bytes().startswith(b"\x89PNG")


def test_what_a_resumed_run_writes_again_is_not_there_twice(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    train(run_in(whole))
    with pytest.raises(KeyboardInterrupt):
        train(run_in(broken), callbacks=(Stop(9),))
    assert [row["step"] for row in records(broken) if "loss" in row] == [1, 2, 4, 6, 8]
    with open(broken / "logging.jsonl", "a") as file:
        file.write('{"step": 9, "lo')  # what a killed process may leave
    train(run_in(broken), resume=broken / "checkpoints" / "checkpoint-5")

    assert [(row["step"], "eval_loss" in row) for row in records(broken)] == [
        (row["step"], "eval_loss" in row) for row in records(whole)
    ]
    steps = {tag: [step for step, _ in values] for tag, values in scalars(broken).items()}
    assert steps == {tag: [step for step, _ in values] for tag, values in scalars(whole).items()}


def test_an_interrupted_run_leaves_closed_files_and_curves(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(run_in(tmp_path), callbacks=(Stop(3),))
    assert [step for step, _ in scalars(tmp_path)["train/loss"]] == [1, 2]
    assert (tmp_path / "images" / "loss.png").exists()


def test_a_new_run_in_a_used_folder_keeps_the_old_log(tmp_path):
    for steps in (2, 4, 6):
        train(run_in(tmp_path), steps, report_to="none", images=False)
    assert [row["step"] for row in records(tmp_path) if "loss" in row] == [1, 2, 4, 6]
    kept = [(tmp_path / name).read_text() for name in ("logging-1.jsonl", "logging-2.jsonl")]
    assert ["2/2" in kept[0], "4/4" in kept[1]] == [True, True]


def test_an_evaluation_repeated_when_resuming_is_logged_once(tmp_path):
    log = EventLog(tmp_path / "logging.jsonl")
    log.append(5, 10, {"loss": 1.0, "epoch": 0.5}, {})
    log.append(5, 10, {"eval_loss": 2.0, "epoch": 0.5}, {})
    log.append(6, 10, {"loss": 0.9, "epoch": 0.6}, {})
    log.close()
    log = EventLog(tmp_path / "logging.jsonl")
    log.rewind(5)
    log.append(5, 10, {"eval_loss": 2.0, "epoch": 0.5}, {})
    log.append(5, 10, {"test_loss": 3.0}, {})
    log.close()
    assert [sorted(row.keys() & {"loss", "eval_loss", "test_loss"}) for row in records(tmp_path)] == [
        ["loss"], ["eval_loss"], ["test_loss"]
    ]  # fmt: skip


def test_values_that_json_does_not_have_become_null(tmp_path):
    log = EventLog(tmp_path / "logging.jsonl")
    log.append(1, 2, {"loss": float("nan"), "grad_norm": float("inf"), "text": "ü"}, {})
    log.close()
    row = json.loads((tmp_path / "logging.jsonl").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert (row["loss"], row["grad_norm"], row["text"]) == (None, None, "ü")


# What is not written


def test_other_processes_write_nothing(tmp_path):
    assert train(run_in(tmp_path, rank=1)) == ""
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoints"]


def test_without_a_folder_there_are_lines_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "loss" in train(SimpleNamespace(folder=None))
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoints"]


def test_report_to_none_writes_no_tensorboard(tmp_path):
    train(run_in(tmp_path), 2, report_to=["none"], images=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints", "logging.jsonl"]


def test_tensorboard_goes_where_logging_dir_says(tmp_path):
    train(run_in(tmp_path), 2, logging_dir=tmp_path / "elsewhere", images=False)
    assert not (tmp_path / "runs").exists()
    assert list((tmp_path / "elsewhere").glob("events.out.tfevents.*"))


@pytest.mark.parametrize(
    ("names", "others"),
    [(None, []), ("none", []), (["tensorboard"], []), (["tensorboard", "wandb"], ["wandb"]), ("swanlab", ["swanlab"])],
)
def test_what_is_not_tensorboard_is_left_to_transformers(names, others):
    assert other_reports(names) == others
    assert Reporter(run_in(None), report_to=names).tensorboard == ("tensorboard" in (names or ()))


def test_report_to_all_writes_tensorboard_once():
    assert Reporter(run_in(None), report_to="all").tensorboard
    assert not {"all", "tensorboard"} & set(other_reports("all"))


def test_none_among_others_is_refused():
    with pytest.raises(UsageError, match="cannot be combined"):
        Reporter(run_in(None), report_to=["none", "wandb"])


# What goes wrong


@pytest.mark.parametrize("broken", ["logging.jsonl", "runs", "images"])
def test_a_file_that_cannot_be_written_is_told_once_and_training_goes_on(tmp_path, caplog, broken):
    if broken == "logging.jsonl":
        (tmp_path / broken).mkdir()
    else:
        (tmp_path / broken).write_text("in the way")
    printed = train(run_in(tmp_path))
    assert "step 10/10" in printed
    assert len([message for message in caplog.messages if "could not be written" in message]) == 1


def test_a_line_that_did_not_fit_on_the_disk_does_not_spoil_the_next(tmp_path):
    log = EventLog(tmp_path / "logging.jsonl")
    log.append(1, 9, {"loss": 1.0}, {})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60, hard))
    try:
        for step in (2, 3):
            with pytest.raises(OSError, match=r"part of the line|too large"):
                log.append(step, 9, {"loss": 1.0}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    log.append(4, 9, {"loss": 1.0}, {})
    log.close()
    assert [row["step"] for row in records(tmp_path)] == [1, 4]


def test_a_closed_output_does_not_end_the_training(tmp_path, caplog):
    stream = io.StringIO()
    stream.close()
    reporter = Reporter(run_in(tmp_path), stream=stream, progress=False, report_to="none", images=False)
    state = SimpleNamespace(global_step=1, max_steps=2, is_world_process_zero=True, log_history=[])
    reporter.on_log(None, state, None, {"loss": 1.0})
    reporter.close()
    assert records(tmp_path)[0]["loss"] == 1.0
    assert "the log line could not be written" in caplog.text


# The bar, and what an import costs

BAR = """
import sys, types, time
sys.argv = ["x"]
from martlet_train.reporting import Reporter
state = types.SimpleNamespace(global_step=2, max_steps=5, is_world_process_zero=True, log_history=[])
with Reporter(types.SimpleNamespace(folder=None)) as reporter:
    reporter.on_train_begin(None, state, None)
    for step in (3, 4, 5):
        state.global_step = step
        reporter.on_step_end(types.SimpleNamespace(logging_strategy="steps"), state, types.SimpleNamespace())
        reporter.on_log(None, state, None, {"loss": 1.0 / step})
    for _ in range(2):
        reporter.on_prediction_step(None, state, None, eval_dataloader=[1, 2])
    reporter.on_evaluate(None, state, None)
print("heavy:", [name for name in ("matplotlib", "tensorboard") if name in sys.modules])
"""


def test_on_a_terminal_a_bar_is_shown_beside_the_lines():
    """Also: importing the reporter and reporting without a folder load neither matplotlib nor tensorboard."""
    command = [sys.executable, "-c", BAR]
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, text=True)
    os.close(theirs)
    lines, _ = process.communicate(timeout=60)
    shown = b""
    try:
        while piece := os.read(ours, 65536):
            shown += piece
    except OSError:  # the other end is closed
        os.close(ours)
    assert process.returncode == 0
    assert b"train:  40%" in shown
    assert b"5/5" in shown
    assert b"eval:" in shown
    assert [line.split("  ")[0] for line in lines.splitlines()] == ["step 3/5", "step 4/5", "step 5/5", "heavy: []"]
    assert "\r" not in lines


def test_where_standard_error_is_no_terminal_there_are_lines_alone(tmp_path, capsys):
    state = SimpleNamespace(global_step=0, max_steps=2, is_world_process_zero=True, log_history=[])
    with Reporter(run_in(None)) as reporter:
        reporter.on_train_begin(None, state, None)
        state.global_step = 1
        reporter.on_step_end(None, state, None)
        reporter.on_prediction_step(None, state, None, eval_dataloader=[1, 2])
        reporter.on_log(None, state, None, {"loss": 1.0})
    printed = capsys.readouterr()
    assert printed.err == ""
    assert printed.out.startswith("step 1/2  loss 1.0000  ")
    assert printed.out.count("\n") == 1
