"""What the flags of group ``launch`` mean, and what is refused before any process starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import martlet
from martlet.cli import main

WALK = str(Path(__file__).with_name("walk.py"))
THERE = {"NNODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "first"}


@pytest.fixture(autouse=True)
def clean(monkeypatch, tmp_path):
    for name in ("NPROC_PER_NODE", "NNODES", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MARTLET_EXTERNAL_PLUGINS", WALK)
    monkeypatch.chdir(tmp_path)


def settings(monkeypatch, variables=(), **more):
    for name, value in dict(variables).items():
        monkeypatch.setenv(name, value)
    return martlet.prepare("walk", **more).config


def test_one_process_is_not_launched(monkeypatch):
    config = settings(monkeypatch)
    assert (
        config.value("nproc_per_node") == 1 and config.value("launcher") is None and not config.selections["launchers"]
    )


def test_several_are_launched_for_a_reason_that_is_told(monkeypatch):
    config = settings(monkeypatch, {"NPROC_PER_NODE": "2"})
    assert [one.spec.name for one in config.selections["launchers"]] == ["torchrun"]
    assert str(config.origin("launcher")) == "chosen (--nproc_per_node 2, --nnodes 1)"
    assert config.value("master_port") is None
    assert "NPROC_PER_NODE" in str(config.origin("nproc_per_node"))


def test_several_machines_meet_at_the_usual_port(monkeypatch):
    assert settings(monkeypatch, THERE).value("master_port") == 29500
    assert settings(monkeypatch, THERE, master_port=4000).value("master_port") == 4000


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"NPROC_PER_NODE": "0"}, "NPROC_PER_NODE"),
        ({"NPROC_PER_NODE": "two"}, "NPROC_PER_NODE"),
        ({"MASTER_PORT": "65536"}, "MASTER_PORT"),
        (THERE | {"NODE_RANK": "2"}, "--node_rank 2: with --nnodes 2 machines are numbered 0 to 1."),
        (THERE | {"NODE_RANK": ""}, "--nnodes 2 needs NODE_RANK on every machine"),
        (THERE | {"MASTER_ADDR": ""}, "--nnodes 2 needs MASTER_ADDR"),
        ({"NODE_RANK": "1"}, "--node_rank 1: with --nnodes 1 there is machine 0 alone."),
        ({"RANK": "0", "WORLD_SIZE": "2", "NPROC_PER_NODE": "4"}, "If they count machines, give them as NODE_RANK"),
    ],
)
def test_what_cannot_meet_is_refused(variables, said, monkeypatch, capsys):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert main(["walk", "--to", "out"]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("error: ") == 1
    assert not Path("out").exists()


def test_a_launcher_without_processes_is_refused(capsys):
    assert main(["walk", "--launcher", "torchrun"]) == 2
    assert "Set NPROC_PER_NODE or NNODES." in capsys.readouterr().err


def test_what_torchrun_sets_changes_nothing_in_a_rank(monkeypatch, tmp_path):
    started = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "4711"}
    for name, value in (started | {"NPROC_PER_NODE": "2"}).items():
        monkeypatch.setenv(name, value)
    assert main(["walk", "--to", "out"]) == 0
    facts = json.loads(Path("out", "0.json").read_text())
    assert (facts["kind"], facts["MASTER_PORT"], facts["MARTLET_RUN_FOLDER"]) == ("rank", "4711", None)


def test_code_starts_no_processes_and_says_so(monkeypatch):
    monkeypatch.setenv("NPROC_PER_NODE", "2")
    with pytest.raises(martlet.UsageError, match=r"^NPROC_PER_NODE=2: nothing starts processes from code"):
        martlet.run("walk", to="out")
    monkeypatch.delenv("NPROC_PER_NODE")
    with pytest.raises(martlet.UsageError, match=r"^nproc_per_node=2: nothing starts processes from code"):
        martlet.run("walk", to="out", nproc_per_node=2)
    assert not Path("out").exists()


def test_a_wrong_flag_is_refused_before_torch_is_imported():
    code = (
        "import sys; from martlet.cli import main; code = main(['walk', '--nots', '1']); "
        "print(code, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"NPROC_PER_NODE": "2"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.split() == ["2", "False"] and "--nots" in done.stderr
