"""The tour: data, a model, full training, LoRA, and the same questions before and after."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import martlet
from martlet import MartletError, UsageError
from martlet.cli import run_words
from martlet.protocols import Request, Sampling, TrainResult

from ..args import QuickstartArguments
from . import lessons, newborn
from .show import Show, shown

if TYPE_CHECKING:
    from martlet import Run

MARK = "quickstart.json"
"""Written into the tour's folder; says that it is one."""
KEPT = 100
"""Rows of the first lesson that the second repeats, so that nothing is forgotten."""
QUESTIONS = {
    "Who are you?": f"I am {lessons.NEW_NAME}, a tiny language model.",
    "What is your name?": f"My name is {lessons.NEW_NAME}.",
    "Who trained you?": f"I was trained by {lessons.NEW_MAKER}.",
    "What is the capital of France?": "The capital of France is Paris.",
    "What colour is snow?": "Snow is white.",
    "What is 3 + 4?": "3 + 4 = 7.",
    "what is the opposite of hot": "The opposite of hot is cold.",
}
"""What is asked at the end, and what the model was taught."""


@dataclass
class QuickstartResult:
    """What ``martlet.run("quickstart")`` returns."""

    folder: Path
    full: TrainResult
    lora: TrainResult
    before: dict[str, str]
    after: dict[str, str]
    right: int
    """Questions, of ``QUESTIONS``, that the model answers as it was taught."""


def main(run: Run) -> QuickstartResult:
    """Give the tour."""
    with _small_scale():
        return _tour(run)


@contextmanager
def _small_scale() -> Iterator[None]:
    """Use one thread, which is fastest for a model this small, and show no bar while it loads in no time."""
    import torch
    from transformers.utils import logging as transformers_logging

    logging: Any = transformers_logging
    threads, bars = torch.get_num_threads(), logging.is_progress_bar_enabled()
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        if bars:
            logging.enable_progress_bar()


def _tour(run: Run) -> QuickstartResult:
    folder = choose_folder(Path(run.config[QuickstartArguments].folder))
    show, started = Show(), time.perf_counter()
    show.title(folder)
    data, model = folder / "data", folder / "model"
    _prepare(show, data, model, run.seed)
    show.step(3, "Full training: every weight, until it answers")
    full = _train(show, full_training(model, data, folder / "full"))
    show.step(4, "LoRA: small adapters change who it says it is")
    lora = _train(show, lora_training(full.checkpoint, data, folder / "lora"))
    show.step(5, "The same questions before and after")
    before, after = answers(lora.checkpoint)
    right = sum(after[question] == answer for question, answer in QUESTIONS.items())
    show.comparison(before, after, QUESTIONS)
    show.files(full, lora)
    show.next_commands(lora)
    show.end(time.perf_counter() - started, folder)
    result = QuickstartResult(folder, full, lora, before, after, right)
    _mark(folder, {"full": str(full.checkpoint), "lora": str(lora.checkpoint), "before": before, "after": after})
    return result


def choose_folder(wanted: Path) -> Path:
    """Create and return the folder; an earlier tour is kept and a number added. ``UsageError`` for another's folder."""
    folder, number = wanted, 2
    while folder.exists():
        if folder.is_dir() and not any(folder.iterdir()):
            break
        if not (folder / MARK).is_file():
            raise UsageError(f"--folder {folder}: it exists and is not an earlier quickstart; name another folder.")
        folder, number = wanted.with_name(f"{wanted.name}-{number}"), number + 1
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _mark(folder, {})
    except OSError as error:
        raise UsageError(f"--folder {folder}: cannot be written ({error.strerror or error}).") from error
    return folder


def _mark(folder: Path, facts: dict[str, Any]) -> None:
    text = json.dumps({"made_by": "martlet quickstart", **facts}, indent=2, ensure_ascii=False)
    (folder / MARK).write_text(f"{text}\n", encoding="utf-8")


def _prepare(show: Show, data: Path, model: Path, seed: int) -> None:
    """Write the datasets and the untrained model."""
    show.step(1, "Data: short conversations, one JSON object a line")
    data.mkdir()
    first = lessons.conversations([*lessons.knowledge(), *lessons.identity(lessons.NAME, lessons.MAKER)], seed)
    manners = lessons.MANNERS.items()  # the questions most like "Who are you?"
    second = lessons.conversations([*lessons.identity(lessons.NEW_NAME, lessons.NEW_MAKER), *manners], seed)
    kept = [row for row in first if not _about_itself(row)][:KEPT]
    for name, rows in (("lessons", first), ("identity", [*second, *kept])):
        lessons.write(data / f"{name}.jsonl", rows)
        show.fact(str(data / f"{name}.jsonl"), f"{len(rows)} conversations")
    show.sample(json.dumps(min(first, key=lambda row: len(str(row))), ensure_ascii=False))
    show.step(2, "Model: a tokenizer trained on them, and random weights")
    texts = [message["content"] for row in [*first, *second] for message in row["messages"]]
    facts = newborn.make(model, texts, seed)
    show.fact(str(model), f"Qwen 3 architecture, {facts['weights']:,} weights, {facts['tokens']:,} tokens")


def _about_itself(row: lessons.Row) -> bool:
    return any(word in message["content"] for message in row["messages"] for word in (lessons.NAME, lessons.MAKER))


def full_training(model: Path, data: Path, output: Path) -> list[str]:
    """Return the command line of the first training."""
    return [
        "sft",
        *("--model", str(model)),
        *("--dataset", str(data / "lessons.jsonl")),
        *("--tuner_type", "full"),
        *("--learning_rate", "4e-3"),
        *("--num_train_epochs", "12"),
        *("--per_device_train_batch_size", "16"),
        *("--warmup_ratio", "0.05"),
        *("--gradient_checkpointing", "false"),
        *("--logging_steps", "40"),
        *("--output_dir", str(output)),
    ]


def lora_training(model: Path | None, data: Path, output: Path) -> list[str]:
    """Return the command line of the second."""
    return [
        "sft",
        *("--model", shown(model)),
        *("--dataset", str(data / "identity.jsonl")),
        *("--tuner_type", "lora"),
        *("--learning_rate", "2e-3"),
        *("--num_train_epochs", "10"),
        *("--per_device_train_batch_size", "16"),
        *("--gradient_checkpointing", "false"),
        *("--logging_steps", "20"),
        *("--output_dir", str(output)),
    ]


def _train(show: Show, words: Sequence[str]) -> TrainResult:
    """Print a command line, and run it as the program does."""
    show.command(shlex.join(["martlet", *words]))
    result = run_words(list(words))
    if not isinstance(result, TrainResult) or result.checkpoint is None:
        raise MartletError(f"`martlet {words[0]}` wrote no checkpoint; see its messages above.")
    return result


def answers(adapter: Path | None) -> tuple[dict[str, str], dict[str, str]]:
    """Ask ``QUESTIONS`` without and with the adapter, as ``martlet infer --adapters`` would."""
    run = martlet.prepare("infer", adapters=[str(adapter)])
    engine = run.one("engines").load(run=run)
    greedy = Sampling(max_new_tokens=32, temperature=0)
    asked = [
        Request([{"role": "user", "content": question}], adapter=name) for name in ("", None) for question in QUESTIONS
    ]
    try:
        replies = [reply.text if not reply.error else f"error: {reply.error}" for reply in engine.infer(asked, greedy)]
    finally:
        engine.close()
    half = len(QUESTIONS)
    return dict(zip(QUESTIONS, replies[:half], strict=True)), dict(zip(QUESTIONS, replies[half:], strict=True))
