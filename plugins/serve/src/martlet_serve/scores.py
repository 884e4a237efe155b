"""Score every row of a dataset, with a model that puts numbers to conversations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from martlet import MartletError
from martlet.protocols import Request, Row

from .args import GenerationArguments
from .engine import Answering, chunk_size

if TYPE_CHECKING:
    from martlet import Run

Score = list[float] | str
"""One number a label, or why there is none."""


def tell_unread(run: Run) -> None:
    """Warn of flags on this command line that only generation reads."""
    for flag, _, origin in run.config:
        if flag.field.owner is GenerationArguments and origin.given and origin.source != "args.json":
            run.warn(f"--{flag.name} has no effect: the model puts scores to conversations and writes no text.")


def scored(engine: Answering, rows: Sequence[Row], advance: Any) -> Iterator[dict[str, Any]]:
    """Yield a line of the results for each row: the conversation, its score, the row's other columns."""
    size = chunk_size(engine)
    for start in range(0, len(rows), size):
        chunk = rows[start : start + size]
        requests = [Request(row["messages"], row.get("tools"), id=str(start + at)) for at, row in enumerate(chunk)]
        for row, found in zip(chunk, _scores(engine, requests), strict=True):
            yield result(row, found)
        advance(len(chunk))


def _scores(engine: Answering, requests: Sequence[Request]) -> list[Score]:
    """Score conversations; where some fail, halve them until those at fault stand alone."""
    try:
        return [*engine.score(requests)]
    except Exception as error:
        if len(requests) == 1:
            return [str(error) if isinstance(error, MartletError) else f"{type(error).__name__}: {error}"]
    half = len(requests) // 2
    return _scores(engine, requests[:half]) + _scores(engine, requests[half:])


def result(row: Row, found: Score) -> dict[str, Any]:
    """Return one line of the results; of a model with one label, ``response`` is its number."""
    line: dict[str, Any] = {"messages": row["messages"], "response": None}
    if isinstance(found, str):
        line["error"] = found
    else:
        line["response"] = found[0] if len(found) == 1 else found
    return {**line, **{name: value for name, value in row.items() if name not in line}}
