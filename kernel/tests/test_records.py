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
