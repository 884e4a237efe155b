"""A dataset source: lines of JSON."""

import json
from pathlib import Path

from martlet import DataError, DatasetSource, hookimpl


def lines(path, *, subset, split, run):
    if not Path(path).exists():
        raise DataError(f"{path} does not exist.")
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        yield json.loads(line) | {"__line__": number}


@hookimpl
def provide_dataset_sources():
    yield DatasetSource("lines", lines, suffixes=(".jsonl",))
