"""What this package adds to Martlet. Imported for every listing, so nothing heavy is imported here."""

from collections.abc import Iterator
from pathlib import Path

from martlet import Dataset, hookimpl


@hookimpl
def provide_datasets() -> Iterator[Dataset]:
    source = {"file": str(Path(__file__).with_name("my_name.jsonl"))}
    yield Dataset("my-name", "martlet_my_name.dataset:my_name", source=source, summary="Three questions about birds.")
