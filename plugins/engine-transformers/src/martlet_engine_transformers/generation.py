"""One batch through ``generate``: left padding, per-row limits, stop words, log-probabilities, cancelling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from transformers import LogitsProcessor, StoppingCriteria, StoppingCriteriaList

from .borrow import causal_lm, generation_config
from .endings import Endings, Finish

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import GenerationConfig

TokenTop = list[tuple[int, float]]


@dataclass
class Prompt:
    """One conversation, tokenised."""

    index: int
    """Its place among the requests."""
    ids: list[int]
    limit: int
    """Most new tokens."""
    adapter: str | None = None


@dataclass
class Token:
    """What a stream hears of one token."""

    id: int
    logprob: float | None = None
    top: TokenTop | None = None


@dataclass
class Answer:
    """An answer, or a piece of one."""

    ids: list[int]
    """With the stop token, if that ended it."""
    finish: Finish
    logprobs: list[float] | None = None
    top: list[TokenTop] | None = None

    def add(self, token: Token) -> None:
        self.ids.append(token.id)
        if token.logprob is not None:
            self.logprobs = [*(self.logprobs or ()), token.logprob]
        if token.top is not None:
            self.top = [*(self.top or ()), token.top]


class LogProbs:
    """Log-probabilities of the model itself, before temperature, penalties and filters, kept per step."""

    def __init__(self, top: int) -> None:
        self.top = top
        self._last: Tensor | None = None
        self.chosen: list[Tensor] = []
        self.best: list[tuple[Tensor, Tensor]] = []

    def hook(self, module: nn.Module, inputs: Any, output: Any) -> None:
        """Forward hook: remember the last position's distribution, shape (rows, vocabulary)."""
        self._last = torch.log_softmax(output.logits[:, -1].float(), dim=-1)

    def record(self, tokens: Tensor) -> None:
        """Keep the entries of ``tokens``, shape (rows,), which were drawn from the last distribution."""
        last = self._last
        if last is None:
            return
        self.chosen.append(last.gather(1, tokens.to(last.device)[:, None])[:, 0])
        if self.top:
            best = last.topk(min(self.top, last.shape[-1]), dim=-1)
            self.best.append((best.indices, best.values))

    def of_row(self, row: int, count: int) -> tuple[list[float], list[TokenTop] | None]:
        """Return the first ``count`` tokens' entries of a row, and the most probable tokens at each."""
        chosen = torch.stack([step[row] for step in self.chosen[:count]]).tolist()
        best = [_pairs(ids[row], values[row]) for ids, values in self.best[:count]]
        return chosen, best if self.top else None

    def latest(self) -> tuple[float, TokenTop | None]:
        """Return the newest entry of the first row."""
        best = _pairs(self.best[-1][0][0], self.best[-1][1][0]) if self.top else None
        return float(self.chosen[-1][0]), best


def _pairs(ids: Tensor, values: Tensor) -> TokenTop:
    return list(zip(ids.tolist(), values.tolist(), strict=True))


@dataclass
class Watch(StoppingCriteria):  # type: ignore[misc]
    """Ends rows at their own limit or stop word, and hears every token as it is made."""

    width: int
    prompts: Sequence[Prompt]
    endings: Endings
    logprobs: LogProbs | None = None
    on_token: Callable[[Token], None] | None = None
    cancelled: Callable[[], bool] = field(default=lambda: False)

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        made = input_ids.shape[1] - self.width
        rows = input_ids.shape[0] // len(self.prompts)  # beams are neighbours
        if self.logprobs is not None:
            self.logprobs.record(input_ids[:, -1])
        if self.on_token is not None:
            token = Token(int(input_ids[0, -1]))
            if self.logprobs is not None:
                token.logprob, token.top = self.logprobs.latest()
            self.on_token(token)
        done = [self.cancelled() or made >= prompt.limit for prompt in self.prompts for _ in range(rows)]
        if self.endings.words:
            written = input_ids[:, self.width :].tolist()
            done = [over or self.endings.reached(ids) for over, ids in zip(done, written, strict=True)]
        return torch.tensor(done, dtype=torch.bool, device=input_ids.device)


class RepetitionPenalty(LogitsProcessor):  # type: ignore[misc]
    """Divide the score of a token that was already there (CTRL, arXiv:1909.05858); padding does not count.

    The one in transformers counts the padding of shorter rows too, so that an answer depended on its neighbours
    wherever a checkpoint pads with its end-of-text token.
    """

    def __init__(self, penalty: float, mask: Tensor) -> None:
        self.penalty, self.mask = penalty, mask

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        copies = input_ids.shape[0] // self.mask.shape[0]
        mask = self.mask.repeat_interleave(copies, dim=0)
        padded = input_ids[:, : mask.shape[1]].masked_fill(mask == 0, -1)
        seen = torch.cat([padded, input_ids[:, mask.shape[1] :]], dim=1)
        known = torch.zeros_like(scores, dtype=torch.bool)
        rows, columns = (seen >= 0).nonzero(as_tuple=True)
        known[rows, seen[rows, columns]] = True
        return torch.where(known, torch.where(scores < 0, scores * self.penalty, scores / self.penalty), scores)


def generate(
    model: nn.Module,
    prompts: Sequence[Prompt],
    config: GenerationConfig,
    endings: Endings,
    *,
    penalty: float = 1.0,
    logprobs: LogProbs | None = None,
    on_token: Callable[[Token], None] | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> list[Answer]:
    """Answer ``prompts``, one row each. The model is in evaluation mode and its adapter is chosen."""
    inner = causal_lm(model)
    width = max(len(prompt.ids) for prompt in prompts)
    pad = int(config.pad_token_id)
    device = inner.get_input_embeddings().weight.device
    ids = torch.tensor([[pad] * (width - len(p.ids)) + p.ids for p in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(p.ids)) + [1] * len(p.ids) for p in prompts], device=device)
    watch = Watch(width, prompts, endings, logprobs, on_token, cancelled)
    with ExitStack() as stack, torch.no_grad():
        stack.enter_context(generation_config(inner, config))
        if logprobs is not None:
            handle = inner.register_forward_hook(logprobs.hook)
            stack.callback(handle.remove)
        made = model.generate(  # type: ignore[operator]
            input_ids=ids,
            attention_mask=mask,
            generation_config=config,
            stopping_criteria=StoppingCriteriaList([watch]),
            logits_processor=[RepetitionPenalty(penalty, mask)] if penalty != 1.0 else None,
        )
    answers = []
    for row, (prompt, written) in enumerate(zip(prompts, made[:, width:].tolist(), strict=True)):
        kept, finish = endings.trim(written, prompt.limit)
        answer = Answer(kept, finish)
        if logprobs is not None:
            answer.logprobs, answer.top = logprobs.of_row(row, len(kept))
        answers.append(answer)
    return answers
