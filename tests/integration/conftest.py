"""Fixtures of the tests that cross distributions: a command line typed in process, and a quick training run."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from tiny_jobs import QUICK, Done, conversation, digests, words_of, write_rows

from martlet import external_plugins as external
from martlet.cli import main

os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads that wait for one another take longer than these models
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of 13 conversations."""
    return write_rows(tmp_path_factory.mktemp("rows") / "rows.jsonl", [conversation(number) for number in range(13)])


@pytest.fixture(autouse=True)
def quick_and_clean(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Leave no plugin to the next test, and draw no pictures (they take longer than the training) unless asked to."""
    monkeypatch.setenv(external.VARIABLE, "")
    if "pictures" not in request.fixturenames:
        monkeypatch.setattr("martlet_train.curves.draw", lambda *args, **settings: [])


@pytest.fixture
def pictures() -> None:
    """Let the run draw its curves."""


@pytest.fixture
def typed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Done]:
    """Return a function that runs a command line in this process and returns its status and what it said."""

    def run(*words: object) -> Done:
        monkeypatch.setenv(external.VARIABLE, "")
        capsys.readouterr()
        code = main([str(word) for word in words])
        return Done(code, *capsys.readouterr())

    return run


@pytest.fixture
def trained(typed: Callable[..., Done], tiny_model: Path, rows: Path, tmp_path: Path) -> Callable[..., Path]:
    """Return a function that runs ``martlet sft`` with further settings and returns the output folder."""

    def run(name: str = "output", *, command: str = "sft", **settings: Any) -> Path:
        base = {"model": tiny_model, "dataset": rows, "output_dir": tmp_path / name, **QUICK}
        done = typed(command, *words_of({**base, **settings}))
        assert done.code == 0, done.err
        return tmp_path / name

    return run


@pytest.fixture
def untouched() -> Iterator[Callable[..., None]]:
    """Return a function that takes files and folders; at the end of the test they must be as they were."""
    before: dict[Path, dict[str, str]] = {}

    def watch(*paths: Path) -> None:
        before.update({path: digests(path) for path in paths})

    yield watch
    for path, known in before.items():
        assert digests(path) == known, f"{path} was changed"
