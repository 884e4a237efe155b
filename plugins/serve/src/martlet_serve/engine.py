"""The part of an inference engine that the commands here use, and how one is loaded."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Protocol

from martlet import Engine, UsageError
from martlet.protocols import Request, Response, Sampling
from martlet_models.args import ModelArguments

if TYPE_CHECKING:
    from martlet import Run


class Answering(Protocol):
    """A loaded engine."""

    def infer(self, requests: Sequence[Request], sampling: Sampling | None = None) -> list[Response]: ...
    def stream(self, request: Request, sampling: Sampling | None = None) -> Generator[Response, None, None]: ...
    def close(self) -> None: ...


def load_engine(run: Run) -> Answering:
    """Load the model into the engine that ``--infer_backend`` names."""
    spec = run.selected(Engine)[0]
    if isinstance(spec, Engine) and run.config[ModelArguments].adapters and "lora" not in spec.can:
        raise UsageError(f"--infer_backend {spec.name} takes no adapters; merge them first with martlet merge-lora.")
    engine: Answering = run.one(Engine).load(run=run)
    return engine
