"""What other distributions add to a real installation: a hub that is a shelf of local folders, a tuner's name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from martlet import Hub, MartletError, Run, Tuner, hookimpl


class Shelf:
    """A hub whose repositories are folders below the one that SHELF names."""

    def __init__(self) -> None:
        self.downloads: list[tuple[str, str | None]] = []

    def download(self, id: str, kind: str, revision: str | None, run: Run) -> Path:
        self.downloads.append((id, revision))
        folder = Path(os.environ["SHELF"]) / id
        if not folder.is_dir():
            raise MartletError(f"the shelf has no {id}.")
        return folder

    def cached(self, id: str, kind: str, revision: str | None) -> Path | None:
        return None

    def upload(self, folder: Path, id: str, *, private: bool, message: str, run: Run) -> str:
        raise MartletError("the shelf is read-only.")


class Nothing:
    """A tuner that is only named."""

    def apply(self, model: Any, run: Run) -> Any:
        return model


@hookimpl
def provide_hubs() -> Iterator[Hub]:
    yield Hub("shelf", Shelf)


@hookimpl
def provide_tuners() -> Iterator[Tuner]:
    yield Tuner("nothing", Nothing)
