"""The data that crosses distributions, and what each kind's target must be able to do.

Only the standard library is imported here; tensors are named in annotations alone. ``docs/reference`` is
generated from this file, and ``martlet_sdk.contract`` checks what it says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .run import Run

Row = dict[str, Any]
"""One example: ``messages`` and, where there are any, ``tools``, ``label``, ``channel`` and other columns."""

# Text


@dataclass(slots=True)
class Span:
    """A piece of a rendered conversation. Spans follow one another without gap and cover all of it."""

    text: str
    role: str
    """``system``, ``user``, ``assistant``, ``tool``, or ``""`` for what belongs to no message."""
    generated: bool
    """The model itself writes this text."""
    message: int = -1
    """Index in ``messages``; -1 for none."""
    last_round: bool = False
    """It stands after the last user message."""


@dataclass(slots=True)
class Encoded:
    """One sequence, unshifted; plain lists, so that it pickles and fits Arrow."""

    input_ids: list[int]
    labels: list[int]
    """``input_ids`` where the token is supervised, else -100."""
    token_weights: list[float] | None = None
    """None when every supervised token weighs 1."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Columns that losses and metrics asked for (``channel``, ``label``, ...)."""

    @property
    def length(self) -> int:
        return len(self.input_ids)


@dataclass(slots=True)
class Refused:
    """Why a row cannot be encoded. ``reason`` is a short stable word, counted in the ledger."""

    reason: str
    detail: str = ""


class BoundTemplate(Protocol):
    """A template joined with one tokenizer and one configuration. Pickles."""

    stop_ids: frozenset[int]
    """Token ids that end an answer."""
    max_length: int | None

    def encode_batch(self, rows: Sequence[Row]) -> list[Encoded | Refused]:
        """Encode rows for training, in order. Never raises for what a row holds."""

    def spans(self, row: Row) -> list[Span]:
        """Render a row and mark what the model writes. Raises ``DataError`` where that cannot be proven."""

    def prompt(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Any] | None = None) -> str:
        """Render up to where the model starts to write."""

    def prompt_ids(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Any] | None = None) -> list[int]:
        """Tokenise ``prompt``; equal to ``apply_chat_template(..., tokenize=True, add_generation_prompt=True)``."""

    def decode(self, ids: Sequence[int]) -> str:
        """Text of an answer, without its end-of-turn token."""


class Template(Protocol):
    """Target of ``provide_templates``: a class."""

    def bind(self, processor: Any, run: Run) -> BoundTemplate:
        """Join with a tokenizer. ``UsageError`` when they do not fit (no chat template, say)."""


LossScale = Callable[[Sequence[Mapping[str, Any]], Sequence[Span]], Sequence["float | Sequence[tuple[str, float]]"]]
"""``(messages, spans) -> one entry a span``: a weight, or pieces ``(text, weight)`` that join to the span's text."""

# Models


@dataclass
class LoadedModel:
    model: nn.Module
    processor: Any
    """The tokenizer (or a multimodal processor)."""
    path: Path
    """The folder it was read from."""
    adapters: list[tuple[str, Path]] = field(default_factory=list)
    """``--adapters`` as local folders: name, path. The loader has not applied them."""


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


@dataclass
class TrainResult:
    """What ``martlet.run("sft", ...)`` returns."""

    folder: Path
    checkpoint: Path | None
    """The last one written."""
    metrics: dict[str, float]
    ledger: dict[str, Any]
    """Rows read, used and dropped by reason; share of supervised tokens."""


Trainer = Callable[["Run"], TrainResult]

Reward = Callable[..., "Sequence[float | None]"]
"""``(completions: list[str], **columns) -> one score each``; None where it does not apply."""

# Inference


@dataclass
class Request:
    """One conversation to continue."""

    messages: list[dict[str, Any]]
    tools: list[Any] | None = None
    adapter: str | None = None
    """Name of one of ``--adapters``; None uses the only one, or the base model where there are several."""
    id: str = ""


@dataclass
class Sampling:
    """How to continue it. None: the checkpoint's ``generation_config.json`` decides."""

    max_new_tokens: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float | None = None
    num_beams: int = 1
    stop: list[str] = field(default_factory=list)
    logprobs: bool = False
    top_logprobs: int | None = None
    seed: int | None = None


@dataclass
class Response:
    """An answer, or with ``Engine.stream`` a further piece of one."""

    text: str
    token_ids: list[int]
    finish: Literal["stop", "length", "error", ""]
    """"" while a stream goes on."""
    prompt_tokens: int = 0
    logprobs: list[float] | None = None
    """Of each of ``token_ids``, natural logarithm."""
    top_logprobs: list[list[tuple[int, float]]] | None = None
    id: str = ""
    error: str = ""


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
