"""What the tests of this folder share: tiny data, a command line that is typed in process, a quick training run."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from martlet import external_plugins as external
from martlet.cli import main

os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads that wait for one another take longer than these models
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
SENTENCE = "the small bird leaves its cliff at dawn and comes back when it is late".split()
QUICK = {
    "add_version": False,
    "report_to": ["none"],
    "gradient_checkpointing": False,
    "dataloader_num_workers": 0,
    "gradient_accumulation_steps": 1,
    "learning_rate": 1e-3,
    "use_cpu": True,
}
"""Settings of a run that takes a second, over which a test's own win."""


@dataclass
class Done:
    """A command line that has been run."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one sentence on standard error that says what is wrong; nothing follows it."""
        lines = self.err.rstrip("\n").splitlines()
        said = [line for line in lines if line.startswith("error: ")]
        assert len(said) == 1 and lines[-1] == said[0], self.err
        assert "Traceback" not in self.err + self.out
        return said[0].removeprefix("error: ")


def words_of(settings: dict[str, Any]) -> list[str]:
    """Write settings as a person would type them."""
    words = []
    for name, value in settings.items():
        values = value if isinstance(value, list) else [value]
        shown = [json.dumps(one) if isinstance(one, bool | dict) else str(one) for one in values]
        words += [f"--{name}", *shown]
    return words


def conversation(number: int) -> dict[str, Any]:
    """Return one row; lengths differ, and every third row has two rounds and a system message."""
    asked = " ".join(SENTENCE[number % 5 : number % 5 + 2 + number % 4])
    answer = " ".join(SENTENCE[(number * 7 + k) % len(SENTENCE)] for k in range(1 + number * 5 % 9))
    turns = [("user", f"Say {number}: {asked}?"), ("assistant", f"{answer}.")]
    if number % 3 == 0:
        turns = [("system", "Be brief."), *turns, ("user", "And why?"), ("assistant", f"Because of {number}.")]
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


def write_rows(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of 13 conversations."""
    return write_rows(tmp_path_factory.mktemp("rows") / "rows.jsonl", [conversation(number) for number in range(13)])


@pytest.fixture(autouse=True)
def quick_and_clean(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Leave nothing to the next test, and draw no pictures (they take longer than the training) unless asked to."""
    monkeypatch.setenv(external.VARIABLE, "")
    if "pictures" not in request.fixturenames:
        monkeypatch.setattr("martlet_train.curves.draw", lambda *args, **settings: [])


@pytest.fixture
def pictures() -> None:
    """Let the run draw its curves."""


@pytest.fixture
def typed(capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Return a function that runs a command line in this process and returns status and output."""

    def run(*words: object) -> Done:
        capsys.readouterr()
        code = main([str(word) for word in words])
        return Done(code, *capsys.readouterr())

    return run


@pytest.fixture
def trained(typed: Callable[..., Done], tiny_model: Path, rows: Path, tmp_path: Path) -> Callable[..., Path]:
    """Return a function that runs ``martlet sft`` with further settings and returns the output folder."""

    def run(name: str = "output", command: str = "sft", **settings: Any) -> Path:
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


def digests(path: Path) -> dict[str, str]:
    """Return the SHA-256 of a file, or of every file below a folder."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    return {str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def losses(folder: Path, key: str = "loss") -> dict[int, float]:
    """Return the logged values of a metric by step."""
    lines = [json.loads(line) for line in (folder / "logging.jsonl").read_text().splitlines()]
    return {line["step"]: line[key] for line in lines if key in line}


def newest(folder: Path) -> Path:
    """Return the checkpoint of the highest step."""
    return max(folder.glob("checkpoint-*"), key=lambda path: int(path.name.partition("-")[2]))
