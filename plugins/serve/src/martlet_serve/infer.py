"""``martlet infer``: a chat without a dataset, a batch with one."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from martlet import UsageError
from martlet.protocols import Sampling
from martlet_data.args import DataArguments
from martlet_models.args import ModelArguments

from .args import GenerationArguments, InferArguments
from .engine import check_adapters, gives_scores, load_engine

if TYPE_CHECKING:
    from martlet import Run

    from .batch import BatchResult

ONLY_FOR_DATASETS = ("result_path", "write_batch_size", "val_dataset_sample", "max_batch_size", "top_logprobs")


def main(run: Run) -> BatchResult | int:
    """Answer the rows of the datasets or, if none is named, talk."""
    data, drawing = run.config[DataArguments], sampling(run)
    check_adapters(run)
    if has_rows(data):
        from .batch import answer_dataset

        return answer_dataset(run, drawing)
    if gives_scores(run):
        raise UsageError(
            "the model puts scores to conversations and writes no text, so there is no chat with it; name the "
            "conversations with --val_dataset FILE."
        )
    for flag in ONLY_FOR_DATASETS:
        if run.config.is_set(flag):
            run.warn(f"--{flag} has no effect in a chat; name a dataset with --val_dataset to answer its rows.")
    return _talk(run, replace(drawing, top_logprobs=None))


def sampling(run: Run) -> Sampling:
    """Return the flags of generation as the engines take them."""
    given = run.config[GenerationArguments]
    if given.num_beams > 1 and (given.logprobs or given.top_logprobs):
        raise UsageError("--logprobs: beams have none; set --num_beams 1, or leave the log-probabilities out.")
    return Sampling(
        max_new_tokens=given.max_new_tokens,
        temperature=given.temperature,
        top_k=given.top_k,
        top_p=given.top_p,
        repetition_penalty=given.repetition_penalty,
        num_beams=given.num_beams,
        stop=list(given.stop_words),
        logprobs=given.logprobs or given.top_logprobs is not None,
        top_logprobs=given.top_logprobs,
        seed=run.seed,
    )


def _talk(run: Run, drawing: Sampling) -> int:
    from .chat import Chat
    from .terminal import PlainTerminal, RichTerminal

    wanted = run.config[GenerationArguments].stream
    stream = wanted if wanted is not None else True
    if sys.stdin is None:
        raise UsageError("standard input is closed, so nobody can ask; name a dataset with --val_dataset.")
    if sys.stdout is None:
        raise UsageError("standard output is closed, so nobody sees the answers; name a dataset with --val_dataset.")
    interactive = sys.stdin.isatty() and sys.stdout.isatty()
    engine = load_engine(run)
    try:
        terminal = RichTerminal() if interactive else PlainTerminal()
        chat = Chat(engine, drawing, terminal, stream=stream)
        return chat.run(_facts(run))
    finally:
        engine.close()


def _facts(run: Run) -> dict[str, str]:
    """Say what one is talking to."""
    settings = run.config[ModelArguments]
    facts = {"model": str(settings.model)}
    if settings.adapters:
        facts["adapter"] = ", ".join(settings.adapters)
    return facts


def has_rows(data: DataArguments) -> bool:
    """Tell whether there is a dataset to answer."""
    return bool(data.dataset or data.val_dataset or data.cached_dataset or data.cached_val_dataset)


def plan(run: Run) -> dict[str, Any]:
    """Facts for ``martlet plan``."""
    data = run.config[DataArguments]
    check_adapters(run)
    scores = gives_scores(run)
    if not has_rows(data):
        return {"mode": "chat in the terminal"}
    from martlet_data.api import count_rows

    from .batch import default_result_path

    counts = count_rows(run)
    given = run.config[InferArguments].result_path
    return {
        "mode": "score the rows of the datasets" if scores else "answer the rows of the datasets",
        "rows": counts.eval or counts.train,
        "files": [given or str(default_result_path(run, "<time>"))],
    }


def model_name(settings: ModelArguments) -> str:
    """Return the last part of a model's id or folder."""
    return Path(str(settings.model)).name or "model"
