"""SIGKILL, a full disk and lost power leave the previous checkpoint or the new one, never a torn one."""

import errno
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import safetensors.torch
import torch

from martlet.errors import CheckpointError
from martlet_train import checkpoint
from martlet_train.checkpoint import find_last, follow, save_state, sweep, verify, write_checkpoint

PROGRAM = Path(__file__).with_name("killed_writer.py")
sys.path.insert(0, str(PROGRAM.parent))
from killed_writer import files_of, save  # noqa: E402


def contents(folder: Path) -> dict[str, bytes]:
    index = verify(folder)
    return {name: (folder / name).read_bytes() for name in index["files"]}


# The scenarios of killed_writer.py, and the versions that may be the last one after each kill.
@pytest.mark.parametrize(
    ("scenario", "allowed", "fewest"),
    [("first", {None, 1}, 15), ("next", {1, 2}, 15), ("same", {1, 2}, 20), ("prune", {3}, 10)],
)
def test_killed_at_any_change_the_last_checkpoint_is_the_old_or_the_new_one(tmp_path, scenario, allowed, fewest):
    program = [sys.executable, str(PROGRAM), "boundaries", scenario, str(tmp_path)]
    ended = subprocess.run(program, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    killed = int(ended.stdout)
    assert killed >= fewest
    seen = set()
    for number in range(killed + 1):
        root = tmp_path / str(number)
        sweep(root)
        assert not [path for path in root.iterdir() if path.name.startswith(".")], "sweep left something behind"
        last = find_last(root)
        version = verify(last)["facts"]["version"] if last else None
        assert version in allowed
        if last:
            assert contents(last) == files_of(version, 3000)
        # Whatever carries the name of a checkpoint is one, and so is what the link leads to.
        for path in root.iterdir():
            assert verify(path)
        seen.add(version)
    assert seen == allowed


def test_killed_at_random_moments_training_goes_on_from_a_whole_checkpoint(tmp_path):
    moments = random.Random(0)
    newest = 0
    for _ in range(6):
        process = subprocess.Popen([sys.executable, str(PROGRAM), "forever", str(tmp_path)], stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(moments.uniform(0, 0.1))
        process.kill()
        finished = [int(line) for line in process.stdout]
        process.wait()
        newest = max([newest, *finished])
        sweep(tmp_path)
        last = find_last(tmp_path)
        assert contents(last) == files_of(verify(last)["facts"]["version"], 300_000)
        assert len(list(tmp_path.glob("checkpoint-*"))) <= 3
    assert newest > 1


def test_everything_is_flushed_before_the_checkpoint_gets_its_name(tmp_path, monkeypatch):
    """What lost power would need: SIGKILL cannot show a missing fsync."""
    flushed: set[int] = set()
    events: list[str] = []
    fsync, rename, symlink = os.fsync, os.rename, os.replace

    def recording_fsync(descriptor: int) -> None:
        flushed.add(os.fstat(descriptor).st_ino)
        events.append(f"fsync {os.fstat(descriptor).st_ino}")
        fsync(descriptor)

    def recording_rename(source: Path, target: Path) -> None:
        unflushed = [path for path in (source, *Path(source).rglob("*")) if path.stat().st_ino not in flushed]
        assert unflushed == []
        events.append("rename")
        rename(source, target)

    def recording_replace(source: Path, target: Path) -> None:
        events.append("link")
        symlink(source, target)

    monkeypatch.setattr(os, "fsync", recording_fsync)
    monkeypatch.setattr(os, "rename", recording_rename)
    monkeypatch.setattr(os, "replace", recording_replace)
    save(tmp_path, 1, 1)
    parent = f"fsync {tmp_path.stat().st_ino}"
    assert events[events.index("rename") :] == ["rename", parent, "link", parent]
    index = f"fsync {(tmp_path / 'checkpoint-1' / 'checkpoint.json').stat().st_ino}"
    others = {f"fsync {(tmp_path / 'checkpoint-1' / name).stat().st_ino}" for name in files_of(1)}
    assert others <= set(events[: events.index(index)]), "the index comes last"


# A disk that refuses


@pytest.fixture
def saved(tmp_path) -> Path:
    save(tmp_path, 10, 1)
    return tmp_path


def refused(root: Path, write) -> str:
    """Fail to write checkpoint-20; return the message after checking that nothing else happened."""
    before = sorted(path.name for path in root.iterdir())
    with pytest.raises(CheckpointError) as caught:
        write_checkpoint(root / "checkpoint-20", write, facts={"step": 20})
    assert sorted(path.name for path in root.iterdir()) == before
    assert contents(find_last(root)) == files_of(1, 3000)
    assert follow(root / "last") == root / "checkpoint-10"
    return str(caught.value)


@pytest.fixture
def small_files() -> Iterator[None]:
    """Let no file of this process grow beyond 64 KiB: a write that the operating system really refuses."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


BIG = {"exp_avg": torch.zeros(2**18)}


def write_with_martlet(folder: Path) -> None:
    save_state(folder / "optimizer.safetensors", BIG)


def write_with_safetensors(folder: Path) -> None:
    safetensors.torch.save_file(BIG, folder / "model.safetensors")


@pytest.mark.parametrize("write", [write_with_martlet, write_with_safetensors])
def test_a_file_size_limit_is_told(saved, small_files, write):
    message = refused(saved, write)
    assert "largest size allowed" in message
    assert f"--resume_from_checkpoint {saved / 'checkpoint-10'}" in message


def write_to_full_device(folder: Path) -> None:
    with open("/dev/full", "wb") as file:
        file.write(b"x" * 10)


def test_a_full_disk_is_told_with_the_space_that_a_checkpoint_takes(saved):
    message = refused(saved, write_to_full_device)
    size = sum(len(data) for data in files_of(1, 3000).values())
    assert "no space is left on the disk" in message
    assert f"takes about {size / 1024:.1f} KiB" in message
    assert "are free there now" in message


@pytest.mark.parametrize("call", ["fsync", "rename", "mkdir"])
@pytest.mark.parametrize(("code", "words"), [(errno.ENOSPC, "no space is left"), (errno.EDQUOT, "quota")])
def test_a_disk_that_is_full_only_when_flushing_is_told(saved, monkeypatch, call, code, words):
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, call, full)
    assert words in refused(saved, lambda folder: (folder / "model.safetensors").write_bytes(b"x"))


@pytest.fixture
def tiny_disk(tmp_path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("this process may not mount a file system")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("write", [write_with_martlet, write_with_safetensors])
def test_a_disk_that_is_really_full(tiny_disk, write):
    save(tiny_disk, 10, 1)
    assert "no space is left on the disk" in refused(tiny_disk, write)
    save(tiny_disk, 20, 2)
    assert find_last(tiny_disk) == tiny_disk / "checkpoint-20"


def test_a_folder_without_permission_is_told():
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        save(root, 10, 1)
        root.chmod(0o555)
        user = os.geteuid()
        try:
            if user == 0:
                os.seteuid(65534)
            message = refused(root, write_with_martlet)
        finally:
            os.seteuid(user)
            root.chmod(0o755)
    assert "writing there is not permitted" in message


def test_an_output_folder_that_is_a_file_is_told(tmp_path):
    (tmp_path / "output").write_text("mine")
    with pytest.raises(CheckpointError, match="There is no earlier one"):
        save(tmp_path / "output", 1, 1)
    assert (tmp_path / "output").read_text() == "mine"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("a bug")])
def test_other_errors_pass_through_and_leave_nothing(saved, error):
    def interrupted(folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"half")
        raise error

    with pytest.raises(type(error)):
        write_checkpoint(saved / "checkpoint-20", interrupted, facts={"step": 20})
    assert sorted(path.name for path in saved.iterdir()) == ["checkpoint-10", "last"]


def test_a_checkpoint_replaced_in_vain_is_kept(saved, monkeypatch):
    rename = os.rename

    def refuse_new(source: Path, target: Path) -> None:
        if "writing" in Path(source).name:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        rename(source, target)

    monkeypatch.setattr(os, "rename", refuse_new)
    with pytest.raises(CheckpointError, match="the disk reported an error"):
        save(saved, 10, 2)
    assert contents(saved / "checkpoint-10") == files_of(1, 3000)


def test_a_link_that_cannot_move_does_not_end_the_run(saved, caplog):
    (saved / "last").unlink()
    (saved / "last").mkdir()
    save(saved, 20, 2)
    assert find_last(saved) == saved / "checkpoint-20"
    assert "could not be moved" in caplog.text
    assert checkpoint.follow(saved / "last") is None
