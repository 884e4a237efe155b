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


def check_adapters(run: Run) -> None:
    """Refuse adapters that would not be used."""
    spec, adapters = run.selected(Engine)[0], run.config[ModelArguments].adapters
    if isinstance(spec, Engine) and adapters and "lora" not in spec.can:
        raise UsageError(f"--infer_backend {spec.name} takes no adapters; merge them first with martlet merge-lora.")
    if len(adapters) > 1:
        one = "name one, or make one model of all with martlet merge-lora"
        raise UsageError(f"--adapters: {run.command} answers with one adapter, but {len(adapters)} are named; {one}.")


def load_engine(run: Run) -> Answering:
    """Load the model into the engine that ``--infer_backend`` names."""
    engine: Answering = run.one(Engine).load(run=run)
    return engine
