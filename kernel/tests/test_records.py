"""What a run leaves behind is whole, and what a checkpoint says is believed only where it may be."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import martlet
from martlet import MartletError, PluginError, UsageError

CAREFUL = '''
from dataclasses import dataclass, field

from martlet import Arguments, Command, hookimpl


@dataclass
class Careful:
    load_from: str | None = field(default=None, metadata={"checkpoint": True})
    """The checkpoint."""
    trusted: bool = field(default=False, metadata={"restore": False})
    """Run its code."""
    steps: int = 1
    """How often."""


@hookimpl
def provide_commands():
    yield Command("careful", print, roles=("careful",))


@hookimpl
def provide_arguments():
    yield Arguments("careful", Careful, roles=("careful",), restored_by="load_args")
'''


def test_a_checkpoint_cannot_switch_on_what_must_not_be_restored(plugin, tmp_path):
    (tmp_path / "args.json").write_text(json.dumps({"trusted": True, "steps": 7}))
    files = [plugin("careful", CAREFUL)]
    run = martlet.prepare("careful", external_plugins=files, load_from=str(tmp_path), load_args=True)
    assert (run.config.value("steps"), run.config.value("trusted")) == (7, False)


def test_a_path_that_exists_is_recorded_whole(demo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text("")
    martlet.run("demo", external_plugins=[demo], folder="out", place="rows.jsonl", places=["none.jsonl"])
    found = json.loads(Path("out", "args.json").read_text())
    assert found["place"] == str(tmp_path / "rows.jsonl")
    assert found["places"] == ["none.jsonl"]


def test_the_record_keeps_its_last_whole_state_when_it_cannot_be_written(demo, tmp_path, monkeypatch):
    run = martlet.prepare("demo", external_plugins=[demo], folder=str(tmp_path))
    run.open(tmp_path)
    before = (tmp_path / "run.json").read_bytes()

    def refuse(*paths):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises((OSError, MartletError), match="No space left"):
        run.note("rows", 5)
    assert (tmp_path / "run.json").read_bytes() == before


def test_a_secret_of_the_wrong_type_is_not_repeated(demo):
    with pytest.raises(UsageError, match="--key: text is needed") as caught:
        martlet.prepare("demo", external_plugins=[demo], key=271828)
    assert "271828" not in str(caught.value)


def test_a_plugin_that_did_not_load_is_not_handed_to_child_processes(demo, plugin):
    broken = plugin("broken", "raise RuntimeError('no')\n")
    with pytest.raises(PluginError, match="broken"):
        martlet.prepare("demo", external_plugins=[demo, broken])
    listed = os.environ["MARTLET_EXTERNAL_PLUGINS"].split(os.pathsep)
    assert demo in listed and str(broken) not in listed


def test_a_full_disk_is_one_sentence_and_leaves_no_draft(python, demo, tmp_path):
    program = """
        import os, resource, signal, sys
        from martlet.cli import main
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))  # no file may be longer, as on a full disk
        sys.exit(main(["demo", "--external_plugins", sys.argv[1], "--folder", "out"]))
    """
    done = python(program, demo)
    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ") and "cannot be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]


def test_a_name_that_is_no_unicode_is_recorded(demo, tmp_path):
    name = os.fsdecode(b"caf\xe9.jsonl")
    martlet.run("demo", external_plugins=[demo], folder=str(tmp_path), label=name)
    assert json.loads((tmp_path / "args.json").read_text())["label"] == "caf\udce9.jsonl"
    assert (tmp_path / "run.json").read_bytes().decode("utf-8")


def test_a_rank_without_a_world_is_the_only_process(demo, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "5")
    martlet.run("demo", external_plugins=[demo], folder=str(tmp_path))
    assert json.loads((tmp_path / "run.json").read_text())["world_size"] == 1


def test_of_two_checkpoints_the_later_flag_decides_and_of_one_flag_the_first_folder(plugin, tmp_path):
    more = 'load_from: str | None = field(default=None, metadata={"checkpoint": True})'
    several = 'adapters: list[str] = field(default_factory=list, metadata={"checkpoint": True})'
    files = [plugin("careful", CAREFUL.replace(more, f"{more}\n    {several}"))]
    for steps, name in enumerate(("model", "first", "second")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "args.json").write_text(json.dumps({"steps": steps}))
    places = {"load_from": str(tmp_path / "model"), "adapters": [str(tmp_path / "first"), str(tmp_path / "second")]}
    assert martlet.prepare("careful", external_plugins=files, load_args=True, **places).config.value("steps") == 1
