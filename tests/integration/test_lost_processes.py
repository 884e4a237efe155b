"""A process that dies, hangs, fails or is cut off ends the run: in time, in one sentence, with a whole checkpoint."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_jobs import QUICK, words_of

from martlet_train.checkpoint import find_last, verify

HERE = Path(__file__).parent
TIMEOUT = 6
JOB: dict[str, Any] = {
    **QUICK,
    "max_steps": 8,
    "save_steps": 2,
    "logging_steps": 1,
    "ddp_timeout": TIMEOUT,
    "external_plugins": HERE / "strangers" / "trouble.py",
    "callbacks": "trouble",
}
MINE = ("apart", "at_fault", "killed", "stopped", "interrupted")
PLUGIN = "from martlet import hookimpl\n\n\n@hookimpl\ndef on_config(config):\n"
RARER = ("asleep", "cut_off")


def played(model: Path, rows: Path, folder: Path, kinds: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    jobs: list[dict[str, Any]] = []
    for kind in kinds:
        place = {"model": model, "dataset": rows, "output_dir": folder / kind}
        jobs.append({"words": ["sft", *words_of({**place, **JOB, "set": f"callback.trouble.what={kind}"})]})
        if kind == "nothing":
            jobs[-1]["words"] += words_of(
                {"model_patches": "spare", "tuner_type": "full", "gradient_checkpointing": True}
            )
        if kind == "apart":
            jobs[-1]["words"] += ["--external_plugins", "mine.py"]
            jobs[-1]["folders"] = [str(machine(folder / "a", "1")), str(machine(folder / "b", "2", LOG_LEVEL="debug"))]
    program = [sys.executable, str(HERE / "lost_ranks.py")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        program, input=json.dumps(jobs), capture_output=True, text=True, timeout=300, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(kinds, json.loads(done.stdout), strict=True))


def machine(folder: Path, version: str, **environment: str) -> Path:
    """Make a folder as a machine might have it: a plugin, a package of a version, and an environment of its own."""
    package = folder / "peft-9.9.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text(f"Metadata-Version: 2.1\nName: peft\nVersion: 9.9.{version}\n")
    (folder / "mine.py").write_text(PLUGIN + f"    return None  # {version}\n")
    (folder / "environment.json").write_text(json.dumps(environment))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lost")


@pytest.fixture(scope="module")
def ended(tiny_model: Path, rows: Path, folder: Path) -> dict[str, dict[str, Any]]:
    """Return what became of two processes, by what happened to the second after step 3."""
    return played(tiny_model, rows, folder, MINE)


def sentence_of(said: str) -> str:
    """Return the one error of a process."""
    found = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(found) == 1 and "Traceback" not in said, said
    return found[0].removeprefix("error: ")


def check(folder: Path, ended: dict[str, Any], what: str) -> None:
    assert ended["status"][0] == 1
    said = sentence_of(ended["said"][0])
    host = os.uname().nodename
    assert said.startswith(f"Rank 1 on {host} (process ") and what in said and "after step 3" in said
    last = find_last(folder)
    assert last is not None and verify(last)["facts"]["step"] == 2
    assert said.endswith(
        f"To continue from the last checkpoint, add --resume_from_checkpoint {last} to the same command."
    )


def test_processes_that_are_not_alike_do_not_start(folder: Path, ended: dict[str, Any]) -> None:
    """A plugin of other contents, a setting from another environment, another version of a library."""
    assert ended["apart"]["status"] == [1, 1] and not (folder / "apart").exists()
    host = os.uname().nodename
    for said in ended["apart"]["said"]:
        first, *lines = said[said.index("error: ") :].splitlines()
        assert first.startswith("error: The processes of this run differ, so it was not started.")
        assert [line.split(": ", 1)[0] for line in lines] == [f"  rank 0 on {host}", f"  rank 1 on {host}"] * 3
        what = [line.split(": ", 1)[1] for line in lines]
        assert what[0].startswith('--log_level "info" (default') and what[1].startswith(
            '--log_level "debug" (environment'
        )
        assert what[2:4] == ["library peft 9.9.1", "library peft 9.9.2"]
        assert what[4].startswith("plugin mine SHA-256 ") and what[4] != what[5]


def test_an_error_ends_all_processes_at_once_and_each_says_it(folder: Path, ended: dict[str, Any]) -> None:
    check(folder / "at_fault", ended["at_fault"], "failed after step 3: Callback Trouble failed in on_step_end")
    assert ended["at_fault"]["seconds"] < TIMEOUT - 1
    assert sentence_of(ended["at_fault"]["said"][1]).startswith("Callback Trouble failed in on_step_end: ValueError")


def test_a_killed_process_is_missed_at_once(folder: Path, ended: dict[str, Any]) -> None:
    check(folder / "killed", ended["killed"], "is gone or stopped")
    assert ended["killed"]["status"][1] == -9 and ended["killed"]["seconds"] < TIMEOUT - 1


def test_a_stopped_process_is_missed_within_the_timeout(folder: Path, ended: dict[str, Any]) -> None:
    check(folder / "stopped", ended["stopped"], "is gone or stopped")
    assert ended["stopped"]["seconds"] < TIMEOUT + 2 + 5  # and 5 in which rank 1, which cannot, might have ended


def test_a_signal_to_one_process_stops_all_after_the_same_step(folder: Path, ended: dict[str, Any]) -> None:
    assert ended["interrupted"]["status"] == [130, 130]
    sentences = {sentence_of(said) for said in ended["interrupted"]["said"]}
    last = find_last(folder / "interrupted")
    assert last is not None and verify(last)["facts"]["step"] == 4
    assert sentences == {
        f"Stopped by SIGINT at step 4 of 8. To continue, add --resume_from_checkpoint {last} to the same command."
    }
    notices = [said.count("SIGINT: finishing this step") for said in ended["interrupted"]["said"]]
    assert notices == [1, 0]


@pytest.mark.long
def test_a_process_that_hangs_or_is_cut_off_is_named(tiny_model: Path, rows: Path, folder: Path) -> None:
    ended = played(tiny_model, rows, folder, RARER)
    check(folder / "asleep", ended["asleep"], "hangs, or is busy with something else, after step 3")
    assert f"(--ddp_timeout {TIMEOUT})" in ended["asleep"]["said"][0]
    check(folder / "cut_off", ended["cut_off"], "is gone or stopped after step 3, or its network is")
    said = sentence_of(ended["cut_off"]["said"][1])
    assert said.startswith(f"Rank 1 on {os.uname().nodename} lost its connection to the others after step 3.")


@pytest.mark.long
def test_a_parameter_without_a_gradient_is_told_with_the_way_out(tiny_model: Path, rows: Path, folder: Path) -> None:
    ended = played(tiny_model, rows, folder, ("nothing",))
    for said in ended["nothing"]["said"]:
        assert sentence_of(said).endswith("Freeze them, or add --ddp_find_unused_parameters true.")
