"""What this package adds to Martlet. Imported for every listing, so nothing heavy is imported here."""

from collections.abc import Iterator

from martlet import Preprocessor, hookimpl


@hookimpl
def provide_preprocessors() -> Iterator[Preprocessor]:
    target = "martlet_my_name.preprocessor:my_name"
    columns = (frozenset({"question", "answer", "context"}),)
    yield Preprocessor("my-name", target, columns=columns, summary="Columns question, answer and context.")
