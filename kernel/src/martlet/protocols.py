"""The data that crosses distributions. Standard library only; ``martlet_sdk.protocols`` says what targets must do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

Row = dict[str, Any]
"""One example: ``messages`` and, where there are any, ``tools``, ``label``, ``channel`` and other columns."""


@dataclass(slots=True)
class Span:
    """A piece of a rendered conversation, all of which spans cover. ``generated``: the model itself writes it."""

    text: str
    role: str
    generated: bool
    message: int = -1  # index in ``messages``, or -1
    last_round: bool = False  # it stands after the last user message


@dataclass(slots=True)
class Encoded:
    """One sequence, unshifted. ``labels``: -100 where not supervised. ``token_weights``: None where all weigh 1."""

    input_ids: list[int]
    labels: list[int]
    token_weights: list[float] | None = None
    extra: dict[str, Any] = field(default_factory=dict)

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

    stop_ids: frozenset[int]  # end an answer
    max_length: int | None

    def encode_batch(self, rows: Sequence[Row]) -> Sequence[Encoded | Refused | list[Encoded]]:
        """Encode rows for training, in order; a list stands for a row that is split. Never raises for a row."""

    def spans(self, row: Row) -> list[Span]:
        """Render a row and mark what the model writes. Raises ``DataError`` where that cannot be proven."""

    def prompt(self, messages: Sequence[Row], tools: Sequence[Any] | None = None) -> str:
        """Render up to where the model starts to write."""

    def prompt_ids(self, messages: Sequence[Row], tools: Sequence[Any] | None = None) -> list[int]:
        """Tokenise ``prompt``, as ``apply_chat_template(tokenize=True, add_generation_prompt=True)`` does."""

    def decode(self, ids: Sequence[int]) -> str:
        """Text of an answer, without its end-of-turn token."""


@dataclass
class LoadedModel:
    """A model (``nn.Module``) with its tokenizer or processor and the folder it was read from."""

    model: Any
    processor: Any
    path: Path
    adapters: list[tuple[str, Path]] = field(default_factory=list)
    """``--adapters`` as local folders: name, path. The loader has not applied them."""


@dataclass
class TrainResult:
    """What ``martlet.run("sft", ...)`` returns: ``checkpoint`` is the last one written."""

    folder: Path
    checkpoint: Path | None
    metrics: dict[str, float]
    ledger: dict[str, Any]  # rows read, used and dropped by reason; share of supervised tokens


@dataclass
class Request:
    """One conversation to continue. ``adapter`` None: the only one loaded, or the base model if there are several."""

    messages: list[dict[str, Any]]
    tools: list[Any] | None = None
    adapter: str | None = None
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
    """An answer, or a further piece of a stream (``finish`` is empty while it goes on). ``logprobs``: one a token."""

    text: str
    token_ids: list[int]
    finish: Literal["stop", "length", "error", ""]
    prompt_tokens: int = 0
    logprobs: list[float] | None = None
    top_logprobs: list[list[tuple[int, float]]] | None = None
    id: str = ""
    error: str = ""
