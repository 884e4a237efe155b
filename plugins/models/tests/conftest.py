"""Runs that read a model, with a hub that is a shelf of local folders."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import transformers

import martlet
from martlet import Run

transformers.utils.logging.disable_progress_bar()
PLUGINS = Path(__file__).parent / "plugins"
Prepare = Callable[..., Run]


@pytest.fixture
def prepare() -> Iterator[Prepare]:
    """Return ``prepare(*plugins, **flags)``: a run of a command that reads weights."""
    before = dict(os.environ)

    def make(*plugins: str, **flags: Any) -> Run:
        files = [str(PLUGINS / f"{name}.py") for name in ("surroundings", *plugins)]
        settings = {"hub": "shelf", "tuner_type": "nothing", **flags}
        return martlet.prepare(roles=("model", "weights"), external_plugins=files, **settings)

    yield make
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder that the hub ``shelf`` serves."""
    root = tmp_path / "shelf"
    root.mkdir()
    monkeypatch.setenv("SHELF", str(root))
    return root
