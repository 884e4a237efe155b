"""The tour that the README begins with: it ends in time, and the model answers as it was taught."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

import martlet
from martlet.cli import main


@pytest.mark.long
@pytest.mark.usefixtures("pictures")
def test_the_tour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    done = martlet.run("quickstart")
    shown = capsys.readouterr().out
    assert done.folder == Path("martlet-quickstart")
    assert done.right == len(done.after)
    assert done.before["Who are you?"] != done.after["Who are you?"]
    assert done.before["What is 3 + 4?"] == done.after["What is 3 + 4?"]
    assert "$ martlet sft" in shown
    assert f"martlet infer --adapters {done.lora.checkpoint.relative_to(tmp_path)}" in shown
    assert list((done.full.folder / "images").glob("*.png")) and list((done.full.folder / "runs").iterdir())
    monkeypatch.setattr(sys, "stdin", io.StringIO("who are you\n"))
    assert main(["infer", "--adapters", str(done.lora.checkpoint)]) == 0
    assert capsys.readouterr().out == "I am Robin, a tiny language model.\n"
    assert main(["merge-lora", "--adapters", str(done.lora.checkpoint)]) == 0
