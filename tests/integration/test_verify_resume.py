"""``martlet verify-resume``: a command that resumes exactly passes, one that does not is found out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_jobs import QUICK, Done, words_of

MARTLET = str(Path(sys.executable).with_name("martlet"))
FORGETFUL = Path(__file__).parent / "strangers" / "forgetful.py"


def command(model: Path, rows: Path, folder: Path, **more: object) -> list[str]:
    settings = {name: value for name, value in QUICK.items() if name not in ("add_version", "report_to")}
    place = {"model": model, "dataset": rows, "output_dir": folder / "mine", "logging_dir": folder / "board"}
    return ["sft", *words_of({**place, **settings, "lora_dropout": 0.2, **more})]


def verified(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [MARTLET, "verify-resume", *words],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.mark.long
def test_an_exact_command_passes_and_the_users_folders_stay_untouched(
    tiny_model: Path, rows: Path, tmp_path: Path
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    words = command(tiny_model, rows, tmp_path, save_total_limit=1, save_only_model=True, report_to="tensorboard")
    words += words_of({"val_dataset": rows, "eval_strategy": "steps", "eval_steps": 1})
    done = verified("--steps", "4", *words, TMPDIR=str(temporary))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Resuming is exact: interrupted after step " in done.stdout and "checkpoint-4 and the log" in done.stdout
    assert not any((tmp_path / name).exists() for name in ("mine", "board"))
    assert not list(temporary.glob("martlet-verify-*"))


@pytest.mark.long
def test_a_callback_that_forgets_is_found_out_with_file_tensor_and_step(
    tiny_model: Path, rows: Path, tmp_path: Path
) -> None:
    words = command(tiny_model, rows, tmp_path, external_plugins=FORGETFUL, callbacks="forgetful")
    done = verified("--steps", "6", *words, TMPDIR=str(tmp_path))
    assert done.returncode == 1, done.stdout + done.stderr
    assert "logging.jsonl: loss first differs at step " in done.stdout
    assert "checkpoint-6/adapter_model.safetensors: base_model." in done.stdout and " values, by " in done.stdout
    kept = Path(done.stdout.split("Both are kept for you to look at: ")[1].strip())
    assert (kept / "uninterrupted" / "checkpoint-6").is_dir() and (kept / "interrupted" / "checkpoint-6").is_dir()


@pytest.mark.long
def test_it_works_with_several_processes(tiny_model: Path, rows: Path, tmp_path: Path) -> None:
    done = verified("--steps", "4", *command(tiny_model, rows, tmp_path), NPROC_PER_NODE="2", TMPDIR=str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Resuming is exact" in done.stdout


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "verify-resume takes a command line"),
        (["--steps", "1", "sft"], "--steps 1: give a whole number of at least 2"),
        (["--twice", "sft"], "--twice: verify-resume has no such flag"),
        (["plan", "sft"], "plan does not train"),
        (["infer", "--model", "here"], "infer does not train"),
        (["sft", "--modle", "here"], "Did you mean --model"),
    ],
)
def test_a_wrong_command_is_refused_before_anything_is_run(
    words: list[str], says: str, typed: Callable[..., Done]
) -> None:
    done = typed("verify-resume", *words)
    assert done.code == 2 and says in done.error


def test_a_command_that_fails_is_told_in_its_own_words(
    tiny_model: Path, tmp_path: Path, typed: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"nothing": 1}) + "\n")
    done = typed("verify-resume", *command(tiny_model, rows, tmp_path))
    assert done.code == 1 and "error: The command failed (exit status 1). Its last words:" in done.err
    assert "rows.jsonl" in done.err.splitlines()[-1]
    assert not list(tmp_path.glob("martlet-verify-*")) and not (tmp_path / "mine").exists()
