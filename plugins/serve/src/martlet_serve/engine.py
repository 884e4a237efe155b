"""The part of an inference engine that the commands here use, and how one is loaded."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Protocol

from martlet import Engine, UsageError
from martlet.protocols import Request, Response, Sampling
from martlet_models.args import ModelArguments

if TYPE_CHECKING:
    from martlet import Run


DEFAULT_CHUNK = 256
"""Rows handed to an engine at a time, where it does not say how many it takes at once."""
CHUNKS_OF_BATCHES = 8


class Answering(Protocol):
    """A loaded engine."""

    def infer(self, requests: Sequence[Request], sampling: Sampling | None = None) -> list[Response]: ...
    def stream(self, request: Request, sampling: Sampling | None = None) -> Generator[Response, None, None]: ...
    def score(self, requests: Sequence[Request]) -> list[list[float]]: ...
    def close(self) -> None: ...


def check_adapters(run: Run) -> None:
    """Refuse adapters that would not be used."""
    spec, adapters = run.selected(Engine)[0], run.config[ModelArguments].adapters
    if isinstance(spec, Engine) and adapters and "lora" not in spec.can:
        raise UsageError(f"--infer_backend {spec.name} takes no adapters; merge them first with martlet merge-lora.")
    if len(adapters) > 1:
        one = "name one, or make one model of all with martlet merge-lora"
        raise UsageError(f"--adapters: {run.command} answers with one adapter, but {len(adapters)} are named; {one}.")


def gives_scores(run: Run) -> bool:
    """Tell whether the model puts scores to conversations; ``UsageError`` where the engine cannot do that."""
    if run.config[ModelArguments].task_type != "seq_cls":
        return False
    spec = run.selected(Engine)[0]
    if isinstance(spec, Engine) and "score" not in spec.can:
        raise UsageError(f"--infer_backend {spec.name} only writes text, and --task_type seq_cls asks it for scores.")
    return True


def load_engine(run: Run) -> Answering:
    """Load the model into the engine that ``--infer_backend`` names."""
    engine: Answering = run.one(Engine).load(run=run)
    return engine


def chunk_size(engine: Answering) -> int:
    """Return how many rows to hand to an engine at a time: some batches of it."""
    size: int = getattr(engine, "max_batch_size", 0) * CHUNKS_OF_BATCHES
    return size if size > 0 else DEFAULT_CHUNK
