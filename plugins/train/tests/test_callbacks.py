"""Callbacks of plugins: what they do wrong is said to be theirs, and what they remember survives."""

from __future__ import annotations

from pathlib import Path

import pytest

from martlet import MartletError

PLUGINS = [str(Path(__file__).parent / name) for name in ("standins.py", "derived_callbacks.py")]


def test_the_error_of_a_callback_names_it_and_the_event(train):
    said = r"Callback Clumsy failed in on_step_end: IndexError: no such bird \(.*derived_callbacks.py:13\)"
    with pytest.raises(MartletError, match=said):
        train(max_steps=1, callbacks=["clumsy"], external_plugins=PLUGINS)


def test_a_callback_remembers_what_it_exported(train):
    settings = {"max_steps": 9, "save_steps": 2, "callbacks": ["stop_at_five"], "external_plugins": PLUGINS}
    whole = train(**settings)
    assert whole.checkpoint.name == "checkpoint-5"
    resumed = train(**settings, resume_from_checkpoint=str(whole.folder / "checkpoint-2"))
    assert resumed.checkpoint.name == "checkpoint-5"
    forgetful = train(**settings, resume_from_checkpoint=str(whole.folder / "checkpoint-2"), resume_only_model=True)
    assert forgetful.checkpoint.name == "checkpoint-7"


def test_a_callback_that_leaves_the_program_is_named(train, tmp_path):
    plugin = tmp_path / "leaver.py"
    plugin.write_text(
        "import sys\n\nfrom martlet import Callback, hookimpl\n\n\n"
        "class Leaver:\n    def on_step_end(self, *args, **more):\n        sys.exit(3)\n\n\n"
        "@hookimpl\ndef provide_callbacks():\n    yield Callback('leaver', Leaver)\n"
    )
    with pytest.raises(MartletError, match=r"Callback Leaver failed in on_step_end: SystemExit: 3 \(.*leaver.py:8\)"):
        train(max_steps=1, callbacks=["leaver"], external_plugins=[PLUGINS[0], str(plugin)])
