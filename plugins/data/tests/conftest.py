"""Rows, files and runs for the tests of datasets."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

import martlet
from martlet import Run
from martlet_data.api import Prepared, prepare


def chat(question: str, answer: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


@pytest.fixture(scope="session")
def write_jsonl() -> Callable[[Path, Iterable[Any]], Path]:
    """Return a function that writes rows, one a line; a str or bytes is written as it is."""

    def write(path: Path, rows: Iterable[Any]) -> Path:
        lines = []
        for row in rows:
            text = row if isinstance(row, str | bytes) else json.dumps(row)
            lines.append(text.encode() if isinstance(text, str) else text)
        path.write_bytes(b"".join(line + b"\n" for line in lines))
        return path

    return write


@pytest.fixture
def chats(tmp_path: Path, write_jsonl: Callable[..., Path]) -> Callable[..., str]:
    """Return a function that writes a file of numbered chats and returns its path."""

    def make(count: int = 20, name: str = "chats.jsonl") -> str:
        return str(write_jsonl(tmp_path / name, (chat(f"What follows {k}?", f"It is {k + 1}.") for k in range(count))))

    return make


@pytest.fixture
def rows(tmp_path: Path, write_jsonl: Callable[..., Path]) -> Callable[..., str]:
    """Return a function that writes rows into a new file and returns its path."""
    number = iter(range(1000))
    return lambda lines: str(write_jsonl(tmp_path / f"rows-{next(number)}.jsonl", lines))


@pytest.fixture
def data_run(tmp_path: Path) -> Callable[..., Run]:
    """Return a function that makes a run with data and template settings and a folder of its own."""
    number = iter(range(100))

    def make(*, folder: bool = False, **settings: Any) -> Run:
        run = martlet.prepare(roles=("template", "data", "preview"), **settings)
        if folder:
            run.folder = tmp_path / f"run-{next(number)}"
            run.folder.mkdir()
        return run

    return make


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """Collect what the run logs, whatever handlers other tests have left behind."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("martlet")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield lines
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.fixture(scope="session")
def bound(tiny_tokenizer: Any) -> Callable[[Run], Any]:
    """Return a function that joins the run's template with the tiny tokenizer."""
    return lambda run: run.one("templates").bind(tiny_tokenizer, run)


@pytest.fixture
def prepared(data_run: Callable[..., Run], bound: Callable[[Run], Any]) -> Callable[..., tuple[Prepared, Run]]:
    """Return a function that prepares rows for a mode, whatever is dropped, and returns the run as well."""

    def make(mode: str = "rlhf", lazy: bool = False, **flags: Any) -> tuple[Prepared, Run]:
        run = data_run(folder=True, **{"max_dropped": 1.0, **flags})
        return prepare(run, bound(run), lazy=lazy, mode=mode), run

    return make
