"""Answer every row of a dataset and write the answers as JSON lines."""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from martlet import MartletError, UsageError
from martlet.protocols import Request, Response, Row, Sampling
from martlet_data.api import Dropped, Ledger, load_rows, rows_of
from martlet_data.args import DataArguments
from martlet_models.args import ModelArguments

from .args import GenerationArguments, InferArguments
from .engine import Answering, chunk_size, gives_scores, load_engine
from .scores import scored, tell_unread
from .terminal import visible

if TYPE_CHECKING:
    from martlet import Run

MEDIA = frozenset({"images", "videos", "audios"})


@dataclass
class BatchResult:
    """What ``martlet.run("infer", ...)`` returns for a dataset."""

    path: Path
    rows: int
    failed: int


def answer_dataset(run: Run, sampling: Sampling) -> BatchResult:
    """Answer the rows of the command's datasets."""
    settings, scores = run.config[InferArguments], gives_scores(run)
    if scores:
        tell_unread(run)
    elif run.config[GenerationArguments].stream and sys.stdout is None:
        raise UsageError("--stream true: standard output is closed; without the flag the answers go to a file alone.")
    rows, ledger = _rows(run)
    what = "scores" if scores else "answers"
    path = Path(settings.result_path) if settings.result_path else default_result_path(run)
    with Writer.open(path, settings.write_batch_size) as writer:
        if writer.appended:
            run.warn(f"{path} exists; the answers are added to it.")
        _tell_left_out(run, ledger, path.with_name(f"{path.stem}.dropped.jsonl"))
        engine = load_engine(run)
        try:
            with _progress(len(rows)) as advance:
                for line in (
                    scored(engine, rows, advance) if scores else _answered(run, engine, rows, sampling, advance)
                ):
                    writer.add(line)
        except KeyboardInterrupt:
            run.logger.warning("Stopped: %d of %d %s are in %s", writer.rows, len(rows), what, path)
            raise
        finally:
            engine.close()
    run.logger.info("%d %s are in %s", writer.rows, what, path)
    if writer.rows and writer.failed == writer.rows:
        raise MartletError(f"None of the {writer.rows} rows could be answered; the first reason: {writer.first_error}")
    if writer.failed:
        run.warn(f'{writer.failed} of {writer.rows} rows could not be answered; see "error" in {path}.')
    return BatchResult(path, writer.rows, writer.failed)


def _rows(run: Run) -> tuple[list[Row], Ledger]:
    """Return the rows to answer: the evaluation part where there is one, else all of --dataset in file order.

    The ledger says which of the dataset cannot be used.
    """
    data, count = run.config[DataArguments], run.config[InferArguments].val_dataset_sample
    if data.val_dataset or data.cached_val_dataset or data.split_dataset_ratio > 0:
        asked = run.config.is_set("dataset") and run.config.origin("dataset").source != "args.json"
        if data.val_dataset and asked:
            run.warn("--dataset is not answered, because --val_dataset is given too.")
        found = load_rows(run, part="eval")
    else:
        cached = [rows_of(text, "--cached_dataset") for text in data.cached_dataset]
        found = load_rows(run, [*data.dataset, *cached])
    shown = [id for row, id in zip(found, found.ids, strict=True) if not MEDIA.isdisjoint(row)]
    found.ledger.rows += [Dropped(id, "media not supported", "it has media, and only text is read") for id in shown]
    rows = [row for row in found if MEDIA.isdisjoint(row)]
    if count is not None and count < len(rows):
        chosen = random.Random(data.data_seed).sample(range(len(rows)), count)
        rows = [rows[index] for index in sorted(chosen)]
    return rows, found.ledger


def _tell_left_out(run: Run, ledger: Ledger, path: Path) -> None:
    """Name rows that get no answer, and write all of them beside the answers."""
    if left_out := ledger.rows:
        ledger.write_dropped(path)
        first = "; ".join(f"{row.id} ({row.detail or row.reason})" for row in left_out[:3])
        more = "; …" if len(left_out) > 3 else ""
        count = sum(row.times for row in left_out)
        run.warn(f"{count} rows are left out, they cannot be used: {first}{more} All are in {path}.")


def default_result_path(run: Run, stamp: str = "") -> Path:
    """Return a path that does not exist yet, beside the checkpoint or under ./result."""
    settings = run.config[ModelArguments]
    named = [entry.partition("=")[2] or entry for entry in settings.adapters] + [str(settings.model)]
    folders = (Path(text) for text in named)
    beside = next((folder for folder in folders if (folder / "args.json").is_file()), None)
    from .infer import model_name

    folder = (beside or Path("result") / model_name(settings)) / "infer_result"
    stamp = stamp or time.strftime("%Y%m%d-%H%M%S")
    path, number = folder / f"{stamp}.jsonl", 2
    while path.exists():
        path, number = folder / f"{stamp}-{number}.jsonl", number + 1
    return path


def _answered(
    run: Run, engine: Answering, rows: Sequence[Row], sampling: Sampling, advance: Any
) -> Iterator[dict[str, Any]]:
    """Yield a line of the results for each row."""
    for row, answer in _answers(run, engine, rows, sampling, advance):
        yield result(row, answer, tool_calls(engine, row, answer))


def _answers(
    run: Run, engine: Answering, rows: Sequence[Row], sampling: Sampling, advance: Any
) -> Iterator[tuple[Row, Response]]:
    if run.config[GenerationArguments].stream:
        for index, row in enumerate(rows):
            yield row, _streamed(engine, request(row, index), replace(sampling, seed=run.seed + index))
            advance(1)
        return
    size = chunk_size(engine)
    for start in range(0, len(rows), size):
        chunk = rows[start : start + size]
        requests = [request(row, start + index) for index, row in enumerate(chunk)]
        yield from zip(chunk, engine.infer(requests, replace(sampling, seed=run.seed + start)), strict=True)
        advance(len(chunk))


def request(row: Row, index: int) -> Request:
    """Return the conversation of a row without the answer that it ends with."""
    messages = list(row["messages"])
    if messages and messages[-1]["role"] == "assistant":
        messages.pop()
    return Request(messages, row.get("tools"), id=str(index))


def tool_calls(engine: Answering, row: Row, answer: Response) -> list[Any]:
    """Return the tool calls that an answer makes, as the engine's template reads them."""
    read = getattr(engine, "parse", None)
    if read is None or answer.error:
        return []
    found: list[Any] = read(answer.text, row.get("tools")).get("tool_calls", [])
    return found


def result(row: Row, answer: Response, calls: Sequence[Any] = ()) -> dict[str, Any]:
    """Return one line of the results: the conversation with the answer, the expected answer, the other columns."""
    messages = list(row["messages"])
    expected = messages.pop() if messages and messages[-1]["role"] == "assistant" else None
    line: dict[str, Any] = {"messages": messages, "response": None}
    if answer.error:
        line["error"] = answer.error
    else:
        line["messages"] = [*messages, {"role": "assistant", "content": answer.text}]
        line |= {"response": answer.text, "finish_reason": answer.finish}
        line |= {"tool_calls": list(calls)} if calls else {}
    if expected is not None:
        line["labels"] = expected.get("content")
        if expected.get("tool_calls"):
            line["labels_tool_calls"] = expected["tool_calls"]
    if answer.logprobs is not None:
        line |= {"token_ids": answer.token_ids, "logprobs": answer.logprobs}
    if answer.top_logprobs is not None:
        line["top_logprobs"] = answer.top_logprobs
    return {**line, **{name: value for name, value in row.items() if name not in line}}


def _streamed(engine: Answering, asked: Request, sampling: Sampling) -> Response:
    """Print a question and its answer as it is made."""
    last = asked.messages[-1] if asked.messages else {}
    print(f"\n[{asked.id}] {last.get('content', '')}")
    whole = Response("", [], "", id=asked.id)
    try:
        for piece in engine.stream(asked, sampling):
            print(visible(piece.text) if sys.stdout.isatty() else piece.text, end="", flush=True)
            whole.text += piece.text
            whole.token_ids += piece.token_ids
            whole.finish, whole.prompt_tokens = piece.finish, piece.prompt_tokens
            if piece.logprobs is not None:
                whole.logprobs = [*(whole.logprobs or ()), *piece.logprobs]
            if piece.top_logprobs is not None:
                whole.top_logprobs = [*(whole.top_logprobs or ()), *piece.top_logprobs]
    except BrokenPipeError:
        raise
    except Exception as error:
        whole.finish, whole.error = "error", str(error)
        print(f"error: {error}", end="")
    print()
    return whole


@dataclass
class Writer:
    """Adds lines to a file, a batch at a time. Whatever ends the run, the lines it was given are written."""

    path: Path
    stream: IO[str]
    size: int
    appended: bool
    rows: int = 0
    failed: int = 0
    first_error: str = ""
    _waiting: list[str] = field(default_factory=list)

    @classmethod
    @contextmanager
    def open(cls, path: Path, size: int) -> Iterator[Writer]:
        """Open ``path`` before anything slow begins; leave no empty file behind."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            found, appended = path.exists(), path.exists() and path.stat().st_size > 0
            needs_newline = appended and _last_byte(path) != b"\n"
            stream = path.open("a", encoding="utf-8")
        except OSError as error:
            raise UsageError(f"--result_path {path}: cannot be written ({error.strerror or error}).") from error
        writer = cls(path, stream, size, appended)
        try:
            if needs_newline:
                stream.write("\n")
            yield writer
        finally:
            writer.flush()
            stream.close()
            if not found and path.stat().st_size == 0:
                path.unlink()

    def add(self, line: dict[str, Any]) -> None:
        self._waiting.append(json.dumps(line, ensure_ascii=False, default=str))
        self.rows += 1
        if "error" in line and line["response"] is None:
            self.failed += 1
            self.first_error = self.first_error or line["error"]
        if 0 < self.size <= len(self._waiting):
            self.flush()

    def flush(self) -> None:
        self.stream.writelines(f"{line}\n" for line in self._waiting)
        self.stream.flush()
        self._waiting.clear()


def _last_byte(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read()


@contextmanager
def _progress(total: int) -> Iterator[Any]:
    """Show a bar on a terminal's standard error; yield a function that moves it."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (TextColumn("Answering"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total)
        yield lambda count: bar.advance(task, count)
