"""From a batch to what a model says of it: values for each supervised token, or a score for each sequence.

What a model's ``forward`` understands is tried out once, at the start, and the way that takes the least memory is used.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from martlet import UsageError

from .batch import Batch
from .head import Head, Measure
from .probing import base_of, evaluating, probe_ids
from .processes import Processes

Way = Literal["head", "mask", "columns", "all", "score"]
"""Through the output layer in chunks; ``logits_to_keep`` as a mask (B, T), or as column numbers; all logits; or the
score of a sequence-classification model."""


@dataclass
class TokenScores:
    """What a model says of a batch of N supervised tokens and S sequences."""

    values: dict[str, Tensor] = field(default_factory=dict)
    """What was measured, (N,) f32 each: value i is about ``targets[i]``."""
    score: Tensor | None = None
    """Of a sequence-classification model, at the last token of each sequence: (S,) f32, with several labels (S, L)."""
    balance: Tensor | float = 0.0
    """Scalar: the load-balancing loss of a mixture-of-experts model times ``--router_aux_loss_coef``.

    It is a mean over the tokens of the batch. Times what the batch adds to a divisor, it is to be added to that
    divisor's total; being no sum over tokens, it depends on how a step is split."""

    @property
    def logp(self) -> Tensor:
        """Log-probability of each target: (N,) f32."""
        return self.values["logp"]


def log_probabilities(logits: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Measure the log-probability of each target, as ``logp``."""
    return {"logp": -nn.functional.cross_entropy(logits, targets, reduction="none")}


@dataclass
class Forward:
    """The models of a run, as an algorithm calls them."""

    model: nn.Module
    scorer: Scorer
    processes: Processes
    logged: bool
    """Metrics are wanted: the step is one that is logged, or this is an evaluation."""
    reference_model: Callable[[Batch, Measure], TokenScores] | None = None

    def __call__(self, batch: Batch, measure: Measure = log_probabilities) -> TokenScores:
        """Run the model that is trained, with a gradient where gradients are enabled."""
        return self.scorer(self.model, batch, measure)

    def reference(self, batch: Batch, measure: Measure = log_probabilities) -> TokenScores:
        """Run the reference model: no gradient, no dropout. For algorithms that declare ``reference``."""
        if self.reference_model is None:
            raise TypeError("the algorithm does not declare that it needs a reference model")
        return self.reference_model(batch, measure)

    def sum(self, values: Tensor) -> Tensor:
        """Add up tensors of one shape over all processes, each of which must call this."""
        return self.processes.sum(values)


class Scorer:
    """Run a model on a batch. Built once for a model; reads what its ``forward`` accepts."""

    def __init__(self, model: nn.Module, *, keep: bool | None = None, router_weight: float = 0.0) -> None:
        """Find out what ``model`` accepts.

        ``keep``: compute supervised logits alone, None for "if it can"; ``UsageError`` if it must and cannot.
        """
        base: Any = base_of(model)
        parameters = inspect.signature(base.forward).parameters
        self.inputs: dict[str, Any] = {}
        if "use_cache" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            self.inputs["use_cache"] = False  # with a cache, transformers would not tell packed rows apart either
        self.router_weight = router_weight
        if router_weight:
            if "output_router_logits" not in parameters:
                raise UsageError(
                    f"--router_aux_loss_coef: {type(base).__name__} has no experts to balance, or does not tell. "
                    "Leave it at 0."
                )
            self.inputs["output_router_logits"] = True
        output = base.get_output_embeddings()
        self.head = None if output is None else Head(base, output)
        self.classifier: Any = getattr(base, "score", None) if output is None else None
        self.padding = base.config.get_text_config().pad_token_id if self.classifier is not None else None
        self.way: Way = "score" if self.classifier is not None else "all"
        if keep is not False and self.way == "all":
            self.way = self._probe(model, "logits_to_keep" in parameters)
        if keep and self.way == "all":
            raise UsageError("--use_logits_to_keep true: this model always computes all logits. Leave the flag out.")

    def __call__(self, model: nn.Module, batch: Batch, measure: Measure = log_probabilities) -> TokenScores:
        """Return the scores of a batch that is on the model's device; gradients flow if they are enabled."""
        if self.classifier is not None:
            return self._classified(model, batch)
        if self.head is not None and self.way == "head":
            at = batch.rows * batch.model_inputs["input_ids"].shape[1] + batch.columns
            with self.head.measuring(at, batch.targets, measure) as names:
                output = model(**batch.model_inputs, **self.inputs)
            values = dict(zip(names, output.logits[0].unbind(-1), strict=True))
            return TokenScores(values, balance=self._balance(output))
        kept = self._kept(batch)
        output = model(**batch.model_inputs, **self.inputs, **kept)
        logits = output.logits
        logits = logits.reshape(-1, logits.shape[-1]) if kept else logits[batch.rows, batch.columns]
        return TokenScores(dict(measure(logits.float(), batch.targets)), balance=self._balance(output))

    def _balance(self, output: Any) -> Tensor | float:
        loss = output.get("aux_loss") if self.router_weight else None
        return 0.0 if loss is None else self.router_weight * loss

    def _kept(self, batch: Batch) -> dict[str, Tensor]:
        """Return ``logits_to_keep``, in the form that the model understands."""
        ids = batch.model_inputs["input_ids"]
        if self.way == "all" or (self.way == "columns" and len(ids) > 1):
            return {}
        if len(ids) == 1:
            return {"logits_to_keep": batch.columns}
        mask = torch.zeros(ids.shape, dtype=torch.bool, device=ids.device)
        mask[batch.rows, batch.columns] = True
        return {"logits_to_keep": mask}

    def _classified(self, model: nn.Module, batch: Batch) -> TokenScores:
        """Take the score of every token where the classifier computes it: transformers pools one of each row of ids."""
        scores: list[Tensor] = []
        handle = self.classifier.register_forward_hook(lambda module, inputs, output: scores.append(output))
        try:
            output = model(**batch.model_inputs, **self.inputs)
        finally:
            handle.remove()
        found = scores[-1].flatten(0, 1)[self._read_at(batch)].float()
        return TokenScores(score=found.squeeze(-1), balance=self._balance(output))

    def _read_at(self, batch: Batch) -> Tensor:
        """Return where the score of each sequence is read: as in transformers, at the last token but padding.

        That is before the end of a sequence where an end-of-text token is the padding as well.
        """
        if self.padding is None:
            return batch.ends
        ids = batch.model_inputs["input_ids"].flatten()
        places = torch.arange(len(ids), device=ids.device)
        return torch.where(ids == self.padding, 0, places).cummax(0).values[batch.ends]

    def _probe(self, model: nn.Module, keeps: bool) -> Way:
        """Return the way of the least memory that gives the numbers it should."""
        ids = probe_ids(model, 6).view(2, 3)
        places = torch.tensor([0, 2, 4], device=ids.device)
        with evaluating(model):
            logits = model(input_ids=ids, **self.inputs).logits.flatten(0, 1)[places].float()
            if self._measures(model, ids, places, logits):
                return "head"
            mask = torch.zeros(6, dtype=torch.bool, device=ids.device).index_fill(0, places, True).view(2, 3)
            forms: list[tuple[Way, Tensor, Tensor]] = [("mask", ids, mask), ("columns", ids[:1], places[:2])]
            for form, inputs, chosen in forms if keeps else ():
                try:
                    found = model(input_ids=inputs, logits_to_keep=chosen, **self.inputs).logits
                except torch.OutOfMemoryError:
                    raise
                except (IndexError, RuntimeError, TypeError, ValueError):
                    continue
                if found.numel() == int(chosen.sum() if form == "mask" else len(chosen)) * logits.shape[-1]:
                    return form
        return "all"

    def _measures(self, model: nn.Module, ids: Tensor, places: Tensor, logits: Tensor) -> bool:
        """Tell whether the output layer can be called in chunks: some families do more with its logits."""
        if self.head is None:
            return False
        targets = ids.flatten()[places]

        def measure(found: Tensor, wanted: Tensor) -> dict[str, Tensor]:
            spread = {"least": found.amin(-1), "most": found.amax(-1)}
            return {**spread, "logp": log_probabilities(found, wanted)["logp"]}

        try:
            with self.head.measuring(places, targets, measure) as names:
                found = model(input_ids=ids, **self.inputs).logits
            values = dict(zip(names, found[0].unbind(-1), strict=True))
        except torch.OutOfMemoryError:  # the other ways take more
            raise
        except (AttributeError, IndexError, RuntimeError, TypeError, ValueError):
            return False
        near = 1e-2 if next(model.parameters()).dtype in (torch.bfloat16, torch.float16) else 1e-4
        wanted = measure(logits, targets)
        return all(torch.allclose(values[name], wanted[name], rtol=near, atol=near) for name in wanted)
