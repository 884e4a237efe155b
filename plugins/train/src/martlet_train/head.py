"""The output layer on supervised tokens, a few at a time: what is wanted of the logits, without the logits.

The output layer is by far the widest of a language model: with 8k tokens and a vocabulary of 150k its logits take 5 GB
in float32, and as much again for their gradient. So it is called on some of the hidden states at a time, what is wanted
of their logits is kept, and the backward pass computes them again (``torch.utils.checkpoint``).

It happens inside the model's own ``forward``, where the output layer is called: wrappers that prepare a layer just
before its call (DistributedDataParallel, ZeRO-3, FSDP) see the same calls as ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

ELEMENTS = 2**25
"""Logits that exist at a time: 128 MiB in float32."""

Measure = Callable[[Tensor, Tensor], Mapping[str, Tensor]]
"""``(logits (n, V) f32, targets (n,)) -> {name: (n,) f32}``: what is wanted of the logits of each token, by itself."""


def in_chunks(head: Callable[[Tensor], Tensor], hidden: Tensor, targets: Tensor, measure: Measure) -> dict[str, Tensor]:
    """Return ``measure(head(hidden), targets)``, never holding more than ``ELEMENTS`` logits.

    hidden: (N, H), the states that predict ``targets`` (N,). Forward and backward are exact to rounding.
    """

    def part(states: Tensor, wanted: Tensor) -> dict[str, Tensor]:
        return dict(measure(head(states).float(), wanted))

    rows = max(1, ELEMENTS // _width(head))
    if len(hidden) <= rows:
        return part(hidden, targets)
    pieces = zip(hidden.split(rows), targets.split(rows), strict=True)
    found: list[dict[str, Tensor]] = [checkpoint(part, *piece, use_reentrant=False) for piece in pieces]
    return {name: torch.cat([one[name] for one in found]) for name in found[0]}


def _width(head: Any) -> int:
    """Return the size of the vocabulary that an output layer predicts."""
    return int(getattr(head, "width", 0) or getattr(head, "out_features", 0) or head.weight.shape[0])


@dataclass
class After:
    """What a family's ``forward`` does with the logits that its output layer returns."""

    owners: list[Any]
    """The objects that say how much: the model, its configuration, or both."""
    name: str
    """The attribute that says it."""
    neutral: float | None
    """The value with which nothing is done."""
    apply: Callable[[Tensor, float], Tensor]

    @contextmanager
    def set_aside(self) -> Iterator[Callable[[Tensor], Tensor]]:
        """Let ``forward`` leave the logits alone; yields what does the same to some of them."""
        amounts = [getattr(owner, self.name) for owner in self.owners]
        for owner in self.owners:
            setattr(owner, self.name, self.neutral)
        try:
            yield lambda logits: self.apply(logits, amounts[0])
        finally:
            for owner, amount in zip(self.owners, amounts, strict=True):
                setattr(owner, self.name, amount)


AFTER: tuple[tuple[str, float | None, Callable[[Tensor, float], Tensor]], ...] = (
    ("final_logit_softcapping", None, lambda logits, cap: (logits / cap).tanh() * cap),
    ("logit_scale", 1.0, lambda logits, scale: logits * scale),
    ("logits_scaling", 1.0, lambda logits, scale: logits / scale),
    ("lm_head_multiplier", 1.0, lambda logits, scale: logits * scale),
)


class Head:
    """A model's output layer, replaced for the time of a call."""

    def __init__(self, model: Any, module: nn.Module) -> None:
        """``model``: the transformers model, without wrappers; ``module``: its output embeddings."""
        self.module, self.after = module, _after(model)
        self.width = _width(_base_layer(module))

    @contextmanager
    def measuring(self, at: Tensor, targets: Tensor, measure: Measure) -> Iterator[list[str]]:
        """Let the output layer return (1, N, k) values in place of logits; yields the list of their k names.

        at: (N,) places in the flattened (B, T) hidden states that predict ``targets`` (N,).
        """
        plain, own = self.module.forward, self.module.__dict__.get("forward")
        names: list[str] = []

        def forward(hidden: Tensor) -> Tensor:
            found = in_chunks(logits_of, hidden.reshape(-1, hidden.shape[-1])[at], targets, measure)
            names[:] = found
            return torch.stack([value.float() for value in found.values()], dim=-1)[None]

        with ExitStack() as stack:
            further = [stack.enter_context(one.set_aside()) for one in self.after]

            def logits_of(states: Tensor) -> Tensor:
                logits: Tensor = plain(states)
                for change in further:
                    logits = change(logits)
                return logits

            logits_of.width = self.width  # type: ignore[attr-defined]
            self.module.forward = forward  # type: ignore[method-assign]
            try:
                yield names
            finally:
                del self.module.forward
                if own is not None:
                    self.module.forward = own  # type: ignore[method-assign]


def _base_layer(module: nn.Module) -> Any:
    """Return the layer inside an adapter's."""
    inner = getattr(module, "get_base_layer", None)
    return inner() if inner else module


def _after(model: Any) -> list[After]:
    owners = {id(owner): owner for owner in (model, model.base_model, model.config, model.config.get_text_config())}
    found = []
    for name, neutral, apply in AFTER:
        mine = [owner for owner in owners.values() if isinstance(getattr(owner, name, None), int | float)]
        if mine:
            found.append(After(mine, name, neutral, apply))
    return found
