"""The ``transformers`` engine: load or attach a model, then answer requests."""

from __future__ import annotations

import logging
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from martlet.errors import MartletError, UsageError, suggest
from martlet.protocols import BoundTemplate, Encoded, Refused, Request, Response, Sampling

from . import sampling as plan
from .args import TransformersEngineArguments
from .borrow import adapter, causal_lm, evaluation, seeded
from .endings import Endings
from .generation import Answer, LogProbs, Prompt, generate
from .scoring import is_classifier, score
from .streaming import pieces, tokens_of

if TYPE_CHECKING:
    from torch import nn
    from transformers import GenerationConfig

    from martlet.run import Run

logger = logging.getLogger(__name__)

ATTACHED_BATCH = 16
"""Batch size on a live model whose run has no ``--max_batch_size``."""


class TransformersEngine:
    """Answers requests with ``model.generate``, one generation at a time; callers on other threads wait."""

    def __init__(self) -> None:
        self.max_batch_size = 1
        self._attached: _Attached | None = None
        self._busy = threading.Lock()

    # Which model

    def load(self, path: str | Path | None = None, *, run: Run | None = None, **settings: Any) -> TransformersEngine:
        """Load what ``run`` describes or, without one, ``path`` and flag values (``adapters=[...]``, ...)."""
        if run is None:
            run = _prepare(path, {"load_args": True, **settings})
        elif path is not None or settings:
            raise UsageError("engine.load takes either run, or path and settings.")
        loaded = run.one("models").load(run, for_training=False)
        model = loaded.model
        for name, folder in loaded.adapters:
            model = run.one("tuners").load(model, folder, trainable=False, name=name)
        return self.attach(model.eval(), loaded.processor, run=run)

    def attach(self, model: nn.Module, processor: Any, *, run: Run | None = None) -> TransformersEngine:
        """Use a live model, without a copy; every call hands it back in the state it was found in."""
        if run is None:
            run = _prepare(getattr(causal_lm(model).config, "name_or_path", None) or ".", {})
        self._attached = _Attached(model, processor, run.one("templates").bind(processor, run))
        self.max_batch_size = ATTACHED_BATCH
        if TransformersEngineArguments in run.config:
            self.max_batch_size = run.config[TransformersEngineArguments].max_batch_size
        return self

    def close(self) -> None:
        """Let go of the model."""
        self._attached = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    # Answers

    def infer(self, requests: Sequence[Request], sampling: Sampling | None = None) -> list[Response]:
        """Answer all, in order. What fails for one request is its ``Response.error``.

        Raises ``UsageError`` for a ``sampling`` that no request could be answered with.
        """
        attached, sampling = self._writer(), sampling or Sampling()
        plan.check(sampling)
        endings = attached.endings(sampling)
        answers: dict[int, tuple[Prompt, Answer]] = {}
        errors: dict[int, Exception] = {}
        prompts = []
        for index, request in enumerate(requests):
            try:
                prompts.append(attached.prompt(index, request, sampling))
            except Exception as error:
                errors[index] = error
        with self._busy, attached.borrowed(sampling):
            for batch in _batches(prompts, self.max_batch_size):
                for prompt, answer in _answer(attached, batch, sampling):
                    if isinstance(answer, Exception):
                        errors[prompt.index] = answer
                    else:
                        answers[prompt.index] = prompt, answer
        return [
            _failed(request, errors[index])
            if index in errors
            else _response(request, *answers[index], attached.begin + endings.text(answers[index][1].ids))
            for index, request in enumerate(requests)
        ]

    def stream(self, request: Request, sampling: Sampling | None = None) -> Generator[Response, None, None]:
        """Yield the answer in pieces; the last has ``finish`` set. Closing the iterator ends the generation.

        Raises what ``infer`` would report in ``Response.error``. Beams have no pieces: they give one.
        """
        attached, sampling = self._writer(), sampling or Sampling()
        plan.check(sampling)
        prompt, endings = attached.prompt(0, request, sampling), attached.endings(sampling)

        def work(on_token: Any, cancelled: Any) -> None:
            with self._busy, attached.borrowed(sampling):
                if not cancelled():
                    attached.generate([prompt], sampling, on_token=on_token, cancelled=cancelled)

        if sampling.num_beams > 1:
            with self._busy, attached.borrowed(sampling):
                answer = attached.generate([prompt], sampling)[0]
            yield _response(request, prompt, answer, attached.begin + endings.text(answer.ids))
            return
        with closing(tokens_of(work)) as tokens:
            begin = attached.begin
            for text, part in pieces(tokens, prompt.limit, endings):
                yield _response(request, prompt, part, begin + text)
                begin = ""

    def score(self, requests: Sequence[Request]) -> list[list[float]]:
        """Return the numbers that a ``seq_cls`` model puts to whole conversations, in order: one number a label.

        A conversation becomes tokens as in training, its last answer included. Raises ``UsageError`` for one that
        cannot be scored, and for a model that writes text.
        """
        attached = self._ready()
        if not is_classifier(attached.inner):
            raise UsageError("the model writes text and has no score head; load it with --task_type seq_cls.")
        found: dict[int, list[float]] = {}
        prompts = [attached.conversation(index, request) for index, request in enumerate(requests)]
        with self._busy, evaluation(attached.model):
            for batch in _batches(prompts, self.max_batch_size):
                with adapter(attached.model, batch[0].adapter):
                    numbers = score(attached.model, [prompt.ids for prompt in batch])
                found |= {prompt.index: mine for prompt, mine in zip(batch, numbers, strict=True)}
        return [found[index] for index in range(len(requests))]

    def message(self, text: str) -> dict[str, Any]:
        """Return an answer as the message with which its conversation goes on: reasoning apart from content."""
        template = self._ready().template
        divided: dict[str, Any] = getattr(template, "message", _plain_message)(text)
        return divided

    def parse(self, text: str, tools: Sequence[Any] | None = None) -> dict[str, Any]:
        """Return an answer as ``message`` does, and the calls of ``tools`` in it as ``tool_calls``."""
        read = getattr(self._ready().template, "parse", None)
        found: dict[str, Any] = read(text, tools) if read else _plain_message(text)
        return found

    def _ready(self) -> _Attached:
        if self._attached is None:
            raise UsageError("the engine has no model; call load or attach first.")
        return self._attached

    def _writer(self) -> _Attached:
        attached = self._ready()
        if is_classifier(attached.inner):
            raise UsageError("the model puts scores to conversations and writes no text; ask it with score.")
        return attached


class _Attached:
    """A model, its tokenizer and its template."""

    def __init__(self, model: nn.Module, processor: Any, template: BoundTemplate) -> None:
        self.model, self.template = model, template
        self.inner = causal_lm(model)
        self.tokenizer = getattr(processor, "tokenizer", processor)
        self.begin: str = getattr(template, "response_prefix", "")
        """Text of every answer that the prompt supplies."""

    @property
    def adapters(self) -> list[str]:
        return list(getattr(self.model, "peft_config", {}))

    @property
    def generation_config(self) -> GenerationConfig:
        found: GenerationConfig = self.inner.generation_config
        return found

    @contextmanager
    def borrowed(self, sampling: Sampling) -> Iterator[None]:
        device = self.inner.get_input_embeddings().weight.device
        with evaluation(self.model), seeded(sampling.seed, device):
            yield

    def endings(self, sampling: Sampling) -> Endings:
        """Collect what ends an answer. A stop word that is a special token is one more stop token."""
        eos = self.generation_config.eos_token_id
        stop_ids = {*self.template.stop_ids, *(eos if isinstance(eos, list) else [] if eos is None else [eos])}
        special = {token.content: id for id, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        words = [word for word in sampling.stop if word and word not in special]
        stop_ids |= {special[word] for word in sampling.stop if word in special}
        return Endings(frozenset(stop_ids), words, self.template.decode)

    def prompt(self, index: int, request: Request, sampling: Sampling) -> Prompt:
        """Tokenise a conversation; ``MartletError`` where it cannot be answered."""
        name = self._adapter(request)
        if not request.messages:
            raise UsageError("the conversation has no messages.")
        ids = list(self.template.prompt_ids(request.messages, request.tools))
        longest = self.longest
        if longest and len(ids) >= longest:
            raise UsageError(f"the prompt has {len(ids)} tokens; the model takes {longest}, answer included.")
        if self.template.max_length and len(ids) > self.template.max_length:
            raise UsageError(f"the prompt has {len(ids)} tokens, more than max_length={self.template.max_length}.")
        limit = plan.new_tokens(self.generation_config, sampling)
        return Prompt(index, ids, min(limit, longest - len(ids)) if longest else limit, name)

    def conversation(self, index: int, request: Request) -> Prompt:
        """Tokenise a whole conversation, as for training; ``UsageError`` where it cannot be scored."""
        name = self._adapter(request)
        row = {"messages": request.messages} | ({"tools": request.tools} if request.tools else {})
        made = self.template.encode_batch([row])[0]
        if not isinstance(made, Encoded):
            why = f"{made.reason}{f' ({made.detail})' if made.detail else ''}" if isinstance(made, Refused) else "split"
            raise UsageError(f"the conversation cannot be scored: {why}.")
        ids = list(made.input_ids)
        if self.longest and len(ids) > self.longest:
            raise UsageError(f"the conversation has {len(ids)} tokens; the model takes {self.longest}.")
        return Prompt(index, ids, 0, name)

    @property
    def longest(self) -> int | None:
        """Tokens that the model takes, as its configuration says."""
        config = self.inner.config.get_text_config(decoder=True)
        found: int | None = getattr(config, "max_position_embeddings", None)
        return found

    def _adapter(self, request: Request) -> str | None:
        names = self.adapters
        if request.adapter is None:
            return names[0] if len(names) == 1 else None
        if request.adapter and request.adapter not in names:
            known = suggest(request.adapter, names, listed="Loaded adapters")
            raise UsageError(f"adapter {request.adapter!r} is not loaded. {known}")
        return request.adapter or None

    def generate(self, batch: Sequence[Prompt], sampling: Sampling, **streaming: Any) -> list[Answer]:
        """Answer prompts of one adapter."""
        endings, own = self.endings(sampling), self.generation_config
        pad = self.tokenizer.pad_token_id
        config = plan.configure(
            own,
            sampling,
            stop_ids=endings.stop_ids,
            pad_id=pad if pad is not None else min(endings.stop_ids, default=0),
            max_new_tokens=max(prompt.limit for prompt in batch),
        )
        wanted = sampling.logprobs or sampling.top_logprobs
        with adapter(self.model, batch[0].adapter):
            return generate(
                self.model,
                batch,
                config,
                endings,
                penalty=plan.repetition_penalty(own, sampling),
                logprobs=LogProbs(sampling.top_logprobs or 0) if wanted else None,
                **streaming,
            )


def _prepare(path: str | Path | None, settings: dict[str, Any]) -> Run:
    import martlet

    if path is not None:
        settings = {"model": str(path), **settings}
    return martlet.prepare(roles=("model", "template", "infer"), **settings)


def _batches(prompts: Iterable[Prompt], size: int) -> Iterator[list[Prompt]]:
    """Put prompts of one adapter and of similar length together, the longest first."""
    groups: dict[str | None, list[Prompt]] = {}
    for prompt in prompts:
        groups.setdefault(prompt.adapter, []).append(prompt)
    for group in groups.values():
        group.sort(key=lambda prompt: -len(prompt.ids))
        step = size if size > 0 else len(group)
        for start in range(0, len(group), step):
            yield group[start : start + step]


def _answer(
    attached: _Attached, batch: Sequence[Prompt], sampling: Sampling
) -> Iterator[tuple[Prompt, Answer | Exception]]:
    """Answer a batch; one that fails is halved until the requests at fault stand alone."""
    try:
        answers: list[Answer] | list[Exception] = attached.generate(batch, sampling)
    except Exception as error:
        if len(batch) > 1:
            logger.warning("A batch of %d conversations failed (%s); trying halves.", len(batch), error)
            half = len(batch) // 2
            yield from _answer(attached, batch[:half], sampling)
            yield from _answer(attached, batch[half:], sampling)
            return
        logger.debug("Generation failed.", exc_info=error)
        answers = [error]
    yield from zip(batch, answers, strict=True)


def _plain_message(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def _response(request: Request, prompt: Prompt, answer: Answer, text: str) -> Response:
    return Response(
        text=text,
        token_ids=answer.ids,
        finish=answer.finish,
        prompt_tokens=len(prompt.ids),
        logprobs=answer.logprobs,
        top_logprobs=answer.top,
        id=request.id,
    )


def _failed(request: Request, error: Exception) -> Response:
    reason = str(error) if isinstance(error, MartletError) else f"{type(error).__name__}: {error}"
    return Response("", [], "error", id=request.id, error=reason)
