"""The checkpoint index, the links, and what is kept."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from martlet.errors import CheckpointError
from martlet_train.checkpoint import INDEX, find_last, follow, point, prune, sweep, verify, write_checkpoint


def save(root: Path, step: int, text: str = "weights") -> Path:
    def write(folder: Path) -> None:
        (folder / "model.safetensors").write_text(text)
        (folder / "optimizer.safetensors").write_text("moments")
        (folder / "parts").mkdir()
        (folder / "parts" / "rng.json").write_text("{}")

    return write_checkpoint(root / f"checkpoint-{step}", write, facts={"step": step})


def steps(root: Path) -> list[int]:
    return sorted(int(path.name.split("-")[1]) for path in root.glob("checkpoint-*"))


def refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        verify(folder)
    return str(caught.value)


# The index


def test_the_index_returns_the_facts_and_names_every_file(tmp_path):
    index = verify(save(tmp_path, 5))
    assert index["facts"] == {"step": 5}
    assert set(index["files"]) == {"model.safetensors", "optimizer.safetensors", "parts/rng.json"}
    assert index["files"]["model.safetensors"]["size"] == 7


def test_every_missing_short_and_altered_file_is_named(tmp_path):
    folder = save(tmp_path, 5)
    (folder / "parts" / "rng.json").unlink()
    (folder / "optimizer.safetensors").write_text("mom")
    (folder / "model.safetensors").write_text("Weights")
    message = refusal(folder)
    assert "missing: parts/rng.json" in message
    assert "shorter than written: optimizer.safetensors (3 of 7 bytes)" in message
    assert "altered: model.safetensors" in message


def test_the_refusal_of_a_checkpoint_offers_the_newest_complete_one(tmp_path):
    good, short, damaged = (save(tmp_path, step) for step in (1, 2, 3))
    (short / "model.safetensors").write_text("")
    (damaged / "model.safetensors").unlink()
    assert f"Use {good} instead" in refusal(damaged)
    (good / "model.safetensors").unlink()
    assert "start anew" in refusal(damaged)


def test_a_folder_without_index_is_refused_as_partial(tmp_path):
    folder = save(tmp_path, 5)
    (folder / INDEX).unlink()
    assert "it is a part of a checkpoint" in refusal(folder)
    assert "There is no checkpoint folder" in refusal(tmp_path / "checkpoint-6")


@pytest.mark.parametrize(
    "text",
    ["", '{"format": "mart', "[]", "{}", '{"format": "martlet-checkpoint", "version": 2, "sequence": 1, "facts": {}}'],
)
def test_a_damaged_index_is_refused(tmp_path, text):
    folder = save(tmp_path, 5)
    (folder / INDEX).write_text(text)
    assert str(folder / INDEX) in refusal(folder)
    assert find_last(tmp_path) is None


@pytest.mark.parametrize("version", [1, 3])
def test_an_index_of_another_version_says_what_to_install(tmp_path, version):
    folder = save(tmp_path, 5)
    index = json.loads((folder / INDEX).read_text())
    (folder / INDEX).write_text(json.dumps({**index, "version": version}))
    assert "made by another version. To continue, install the martlet-train that wrote it" in refusal(folder)


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "parts/../../secret"])
def test_an_index_cannot_name_files_outside_of_its_folder(tmp_path, name):
    folder = save(tmp_path, 5)
    index = json.loads((folder / INDEX).read_text())
    index["files"][name] = {"size": 1, "sha256": "0" * 64}
    (folder / INDEX).write_text(json.dumps(index))
    assert "was altered" in refusal(folder)


def test_files_that_somebody_added_do_no_harm(tmp_path):
    folder = save(tmp_path, 5)
    (folder / "README.md").write_text("notes")
    assert "README.md" not in verify(folder)["files"]


# The last one


def test_the_last_checkpoint_is_the_one_written_last_not_the_highest_step(tmp_path):
    save(tmp_path, 10)
    save(tmp_path, 15)
    resumed = save(tmp_path, 6)
    assert find_last(tmp_path) == resumed
    assert prune(tmp_path, 2) == [tmp_path / "checkpoint-10"]
    assert steps(tmp_path) == [6, 15]


def test_incomplete_checkpoints_are_passed_over(tmp_path):
    save(tmp_path, 1)
    (save(tmp_path, 2) / "optimizer.safetensors").unlink()
    (save(tmp_path, 3) / INDEX).unlink()
    (tmp_path / "checkpoint-4").mkdir()
    (tmp_path / "checkpoint-x").mkdir()
    (tmp_path / "checkpoint-5").write_text("not a folder")
    assert find_last(tmp_path) == tmp_path / "checkpoint-1"


def test_nothing_is_found_where_nothing_is(tmp_path):
    assert find_last(tmp_path) is None
    assert find_last(tmp_path / "absent") is None
    assert sweep(tmp_path / "absent") == []


# Links


def test_links_are_relative_so_that_the_output_folder_can_move(tmp_path):
    root = tmp_path / "output"
    save(root, 1)
    best = save(root, 2)
    point(root / "best", best)
    moved = root.rename(tmp_path / "moved")
    assert os.readlink(moved / "best") == "checkpoint-2"
    assert verify(moved / "last")["facts"] == {"step": 2}


def test_without_symbolic_links_a_text_file_leads_there(tmp_path, monkeypatch):
    def unsupported(*args: object, **kwargs: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "symlink", unsupported)
    save(tmp_path, 1)
    save(tmp_path, 2)
    assert (tmp_path / "last").read_text() == "checkpoint-2\n"
    assert follow(tmp_path / "last") == tmp_path / "checkpoint-2"
    assert verify(tmp_path / "last")["facts"] == {"step": 2}


def test_a_link_that_leads_nowhere_is_followed_nowhere(tmp_path):
    point(tmp_path / "best", tmp_path / "checkpoint-9")
    assert follow(tmp_path / "best") is None
    assert follow(tmp_path / "absent") is None


# How many are kept


def test_the_oldest_are_deleted_until_as_many_are_left_as_were_asked_for(tmp_path):
    for step in (2, 4, 6, 8):
        save(tmp_path, step)
    assert prune(tmp_path, 3) == [tmp_path / "checkpoint-2"]
    assert prune(tmp_path, 3) == []
    assert steps(tmp_path) == [4, 6, 8]


@pytest.mark.parametrize("keep", [1, 2])
def test_best_last_and_protected_checkpoints_are_never_deleted(tmp_path, keep):
    for step in (1, 2, 3, 4, 5):
        save(tmp_path, step)
    point(tmp_path / "best", tmp_path / "checkpoint-2")
    prune(tmp_path, keep, {tmp_path / "checkpoint-3"})
    assert steps(tmp_path) == [2, 3, 5]


def test_folders_that_are_no_checkpoints_of_ours_stay(tmp_path):
    (tmp_path / "checkpoint-1").mkdir()
    (tmp_path / "checkpoint-1" / "pytorch_model.bin").write_text("from elsewhere")
    for step in (2, 3):
        save(tmp_path, step)
    prune(tmp_path, 1)
    assert steps(tmp_path) == [1, 3]


def test_keeping_none_is_refused(tmp_path):
    save(tmp_path, 1)
    with pytest.raises(ValueError, match="at least one"):
        prune(tmp_path, 0)
    assert steps(tmp_path) == [1]


# What dead runs leave behind

WRITING = """
import sys, time
from pathlib import Path
from martlet_train.checkpoint import write_checkpoint

def write(folder):
    (folder / "model.safetensors").write_text("half")
    print("writing", flush=True)
    sys.stdin.readline()

write_checkpoint(Path(sys.argv[1]), write, facts={"step": 2})
"""


def test_sweep_leaves_the_folder_of_a_living_run_and_removes_that_of_a_dead_one(tmp_path):
    save(tmp_path, 1)
    program = [sys.executable, "-c", WRITING, str(tmp_path / "checkpoint-2")]
    living, dead = (
        subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)
    )
    for process in (living, dead):
        assert process.stdout.readline() == "writing\n"
    dead.kill()
    dead.wait()
    removed = sweep(tmp_path)
    assert len(removed) == 1
    assert len([path for path in tmp_path.iterdir() if path.name.startswith(".")]) == 1
    living.communicate("go on\n", timeout=60)
    assert living.returncode == 0
    assert verify(tmp_path / "last")["facts"] == {"step": 2}


def test_the_next_checkpoint_takes_back_the_space_of_a_dead_one(tmp_path):
    (tmp_path / ".checkpoint-7.writing-0123abcd").mkdir()
    (tmp_path / ".last.writing-0123abcd").symlink_to("checkpoint-7")
    save(tmp_path, 8)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-8", "last"]


def test_sweep_touches_nothing_else(tmp_path):
    save(tmp_path, 1)
    for name in (".git", ".checkpoint-1.writing", "checkpoint-1.writing-0123abcd", ".env.writing-xyz"):
        (tmp_path / name).mkdir()
    before = sorted(tmp_path.rglob("*"))
    assert sweep(tmp_path) == []
    assert sorted(tmp_path.rglob("*")) == before
