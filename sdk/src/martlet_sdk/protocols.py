"""What the target of each kind must be able to do, for people (and type checkers) that write one.

The data that goes in and out is in ``martlet.protocols``; ``martlet_sdk.contract`` checks what is said here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from martlet.protocols import BoundTemplate, LoadedModel, Request, Response, Row, Sampling, Span, TrainResult

if TYPE_CHECKING:
    from torch import Tensor, nn

    from martlet import Run

# Text


class Template(Protocol):
    """Target of ``provide_templates``: a class."""

    def bind(self, processor: Any, run: Run) -> BoundTemplate:
        """Join with a tokenizer. ``UsageError`` when they do not fit (no chat template, say)."""


LossScale = Callable[[Sequence[Mapping[str, Any]], Sequence[Span]], Sequence["float | Sequence[tuple[str, float]]"]]
"""``(messages, spans) -> one entry a span``: a weight, or pieces ``(text, weight)`` that join to the span's text."""

# Models


class ModelLoader(Protocol):
    """Target of ``provide_models``: a class. One named ``default`` loads what no other claims."""

    def load(self, run: Run, *, for_training: bool = False) -> LoadedModel:
        """Read weights and tokenizer as ``--model`` and its companions say."""

    def load_processor(self, run: Run) -> Any:
        """Read the tokenizer alone; needs no weights."""

    def skeleton(self, run: Run) -> nn.Module:
        """Build the model on the meta device: shapes and names, no memory."""


class ModelPatch(Protocol):
    """Target of ``provide_model_patches``."""

    def before_load(self, config: Any, kwargs: dict[str, Any], run: Run) -> None: ...
    def after_load(self, model: nn.Module, processor: Any, run: Run) -> nn.Module: ...


class Tuner(Protocol):
    """Target of ``provide_tuners``: a class. Optional: ``callbacks(run)``, ``parameter_groups(model, run)``."""

    def apply(self, model: nn.Module, run: Run) -> nn.Module:
        """Decide what is trained; return the model to train (the same one or a wrapper)."""

    def save(self, model: nn.Module, path: Path, state_dict: dict[str, Tensor] | None = None) -> None:
        """Write what ``load`` needs, as safetensors."""

    def load(self, model: nn.Module, path: Path, *, trainable: bool = False, name: str = "default") -> nn.Module:
        """Put saved weights onto a base model."""

    def merge(self, model: nn.Module) -> nn.Module:
        """Fold the trained weights into the base model (specs with ``mergeable=True``)."""


# Data

Preprocessor = Callable[[Row], "Row | list[Row] | None"]
"""A raw row in, standard rows out; None drops it. Pure and picklable."""

DatasetSource = Callable[..., Iterable[Row]]
"""``(path, *, subset, split, run) -> rows``. A row may carry ``__line__``, its place in the file, from 1."""

# Training

TokenLoss = Callable[["Tensor", "Tensor"], "Tensor"]
"""``(logits (N, V) float32, labels (N,)) -> (N,)``: one loss a token, 0 where the label is -100.

The trainer multiplies by ``token_weights``, sums, and divides by the number of supervised tokens of the whole
optimizer step, so no loss has to know how a batch was split."""

Trainer = Callable[["Run"], TrainResult]

Reward = Callable[..., "Sequence[float | None]"]
"""``(completions: list[str], **columns) -> one score each``; None where it does not apply."""

# Inference


class Engine(Protocol):
    """Target of ``provide_engines``: a class. Usable alone: ``martlet.get("engines", NAME)``."""

    def load(self, path: str | Path | None = None, *, run: Run | None = None, **settings: Any) -> Engine:
        """Load the model that ``run`` (or ``path`` and flag values) describes; return itself."""

    def attach(self, model: nn.Module, processor: Any, *, run: Run | None = None) -> Engine:
        """Use a live model, without a copy."""

    def infer(self, requests: Sequence[Request], sampling: Sampling | None = None) -> list[Response]:
        """Answer all, in order. What fails for one request is its ``Response.error``."""

    def stream(self, request: Request, sampling: Sampling | None = None) -> Iterator[Response]:
        """Yield pieces as they are made; the last has ``finish`` set. Closing the iterator stops."""

    def close(self) -> None: ...


class Hub(Protocol):
    """Target of ``provide_hubs``."""

    def download(self, id: str, kind: Literal["model", "dataset"], revision: str | None, run: Run) -> Path:
        """Return a local folder with the repository's files."""

    def upload(self, folder: Path, id: str, *, private: bool, message: str, run: Run) -> str:
        """Push a model folder; return its address."""
