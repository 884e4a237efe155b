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

ToolCall = Mapping[str, Any]
"""``{"name": str, "arguments": {...}}``"""


class AgentTemplate(Protocol):
    """Target of ``provide_agent_templates``: a class. Pickles; holds no state of a conversation."""

    inline: bool
    """Results stand inside the assistant's turn, as ReAct writes them; else in a turn of their own."""

    def tools(self, tools: Sequence[Mapping[str, Any]], system: str | None) -> str:
        """Return the system text that describes the tools (OpenAI definitions), the given one included."""

    def calls(self, calls: Sequence[ToolCall], content: str = "") -> str:
        """Return what the model writes behind ``content`` to make these calls, what divides the two included."""

    def results(self, results: Sequence[tuple[str, str]]) -> str:
        """Return the text of the results of one round: (name of the function, what it returned), in order."""

    def parse(self, text: str, tools: Sequence[Mapping[str, Any]] | None = None) -> tuple[str, list[dict[str, Any]]]:
        """Split an answer into its content and the calls in it. Never raises: what is no call stays text.

        Where arguments are written without quotes, ``tools`` say which of them are strings.
        """

    def stream(self, tools: Sequence[Mapping[str, Any]] | None = None) -> AgentStream:
        """Return a parser for one answer that arrives in pieces."""


class AgentStream(Protocol):
    """Parses as ``AgentTemplate.parse`` does, whatever the pieces."""

    def feed(self, piece: str) -> tuple[str, list[dict[str, Any]]]:
        """Return the content that is now certain to be no call, and the calls that are now complete."""

    def end(self) -> tuple[str, list[dict[str, Any]]]:
        """Return what was held back."""


# Models


class ModelLoader(Protocol):
    """Target of ``provide_models``: a class. One named ``default`` loads what no other claims.

    A second model (``--ref_model``) is loaded by the same methods, with a run in which ``--model`` names that one.
    Optional: ``folder(run)``, where the weights are read from; ``find_adapters(run)``, names and folders of
    ``--adapters``.
    """

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
    """Target of ``provide_tuners``: a class. Optional: ``callbacks(run)``, ``parameter_groups(model, run)``, and
    ``reference(model, adapter)``, for tuners that leave the weights of the base alone: a function whose context makes
    the model its base, with the adapter in the folder ``adapter`` unless None; None where that takes another model.
    """

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

PairLoss = Callable[..., "Tensor | Mapping[str, Tensor]"]
"""``(chosen, rejected, ref_chosen, ref_rejected, chosen_score, rejected_score, chosen_tokens, rejected_tokens, nll,
beta, label_smoothing, discopop_tau, simpo_gamma, **more) -> (P,)``, by keyword: a loss names what it reads.

(P,) float32 each: sums of log-probabilities under the model and the reference (zeros where there is none), log-ratios
or what ``--f_divergence_type`` makes of them, numbers of tokens, negative log-likelihood; then numbers. One loss a pair
is averaged over the pairs of the optimizer step; a dict says for each term whether ``pairs`` or ``chosen_tokens``
divide it."""

Trainer = Callable[["Run"], TrainResult]

Launcher = Callable[["Run"], int]
"""``(run) -> exit status``: start processes with the words ``run.words`` and the variables ``RANK``, ``LOCAL_RANK``,
``WORLD_SIZE``, ``MASTER_ADDR`` and ``MASTER_PORT``; where ``run.config.command.folder`` says where the command will
write, ask it once and hand the folder down in ``MARTLET_RUN_FOLDER``. A signal has to reach every process once."""

Reward = Callable[..., "Sequence[float | None]"]
"""``(completions: list[str], **columns) -> one score each``; None where it does not apply."""

# Inference


class Engine(Protocol):
    """Target of ``provide_engines``: a class. Usable alone: ``martlet.get("engines", NAME)``.

    Optional: ``message(text)``, the message that an answer is, its reasoning apart, for the conversation to go on with;
    ``score(requests)`` (capability ``score``), a score head's numbers for each conversation, one a label.
    """

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

    def download(
        self, id: str, kind: Literal["model", "dataset"], revision: str | None, run: Run, *, force: bool = False
    ) -> Path:
        """Return a local folder with the repository's files; ``force``: whatever was downloaded before, fetch all."""

    def upload(self, folder: Path, id: str, *, private: bool, message: str, run: Run) -> str:
        """Push a model folder; return its address."""
