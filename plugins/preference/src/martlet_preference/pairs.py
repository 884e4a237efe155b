"""What the algorithms of pairs share: from the tokens of a batch to the losses of its pairs."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from martlet import Run
from martlet.protocols import BoundTemplate
from martlet_data.api import Prepared, prepare
from martlet_train.api import Algorithm, Batch, Forward, LossOut, Measured, sequence_sum
from martlet_train.args import TrainArguments

from .args import PairArguments
from .checks import beta_of, check_run
from .terms import DIVISORS, SETTINGS, Term, chosen_terms, made_up

METRICS = tuple(f"rewards/{name}" for name in ("chosen", "rejected", "accuracies", "margins"))
METRICS += ("logps/chosen", "logps/rejected")


class Pairs(Algorithm):
    """Losses of contract ``pair``, and the negative log-likelihood of the chosen answers beside them.

    A token's log-probability counts with its weight of ``--loss_scale``; averages divide by the number of tokens.
    """

    averages: ClassVar[bool] = False
    """Rewards and log-probabilities are logged as averages over the tokens of an answer, not as sums."""
    more_metrics: ClassVar[tuple[str, ...]] = ()
    tail_weight: float | None = None
    """What tokens beyond the length of the shorter answer count."""

    def __init__(self, run: Run, nll_weight: float) -> None:
        self.nll_weight = nll_weight
        settings = run.config[PairArguments]
        self.beta = beta_of(run)
        self.settings = {"beta": self.beta} | {name: getattr(settings, name) for name in SETTINGS}
        self.terms = self.losses(run)
        nll = ("nll_loss",) if nll_weight else ()
        several = self.terms if len(self.terms) > 1 else ()
        parts = [name for term in several for name in term.names(term(made_up(self.settings), 2)).values()]
        check_run(run, (*METRICS, *self.more_metrics, *nll, *parts))

    def data(self, run: Run, template: BoundTemplate) -> Prepared:
        return prepare(run, template, mode="rlhf", lazy=bool(run.config[TrainArguments].lazy_tokenize))

    def count(self, batch: Batch) -> dict[str, int]:
        return {"pairs": batch.sequences // 2, "chosen_tokens": int((batch.sequence % 2 == 0).sum())}

    def loss(self, forward: Forward, batch: Batch) -> LossOut:
        scores = forward(batch)
        given = self._answers(scores.logp, forward.reference(batch).logp if self.reference else None, batch)
        found = [(term, term(given, batch.sequences // 2)) for term in self.terms]
        total = {divisor: scores.logp.new_zeros(()) for divisor in DIVISORS}
        for term, parts in found:
            for divisor, losses in parts.items():
                total[divisor] = total[divisor] + term.weight * losses.sum()
        if self.nll_weight:
            total["chosen_tokens"] = total["chosen_tokens"] + self.nll_weight * given["nll"].sum()
        total["pairs"] = total["pairs"] + scores.balance * (batch.sequences // 2)
        if not forward.logged:
            return LossOut(total)
        metrics = dict(self.measure(given))
        for term, parts in found if len(found) > 1 else ():
            for divisor, name in term.names(parts).items():
                metrics[name] = _mean(parts[divisor], given, divisor)
        return LossOut(total, metrics)

    def losses(self, run: Run) -> list[Term]:
        """Return what is minimised: the losses of ``--loss_type``, unless an algorithm has its own."""
        return chosen_terms(run, self.settings)

    def score(self, log_ratio: Tensor) -> Tensor:
        """Return what losses compare of an answer, from its log-ratio to the reference."""
        return log_ratio

    def measure(self, given: dict[str, Any]) -> Measured:
        """Return what is logged: the rewards beta * log-ratio, and the log-probabilities."""
        chosen, rejected = given["chosen"], given["rejected"]
        better, worse = chosen - given["ref_chosen"], rejected - given["ref_rejected"]
        if self.averages:
            lengths = given["chosen_tokens"].clamp(min=1), given["rejected_tokens"].clamp(min=1)
            chosen, better = chosen / lengths[0], better / lengths[0]
            rejected, worse = rejected / lengths[1], worse / lengths[1]
        values = {
            "rewards/chosen": self.beta * better,
            "rewards/rejected": self.beta * worse,
            "rewards/accuracies": (better > worse).float(),
            "rewards/margins": self.beta * (better - worse),
            "logps/chosen": chosen,
            "logps/rejected": rejected,
        }
        metrics = {name: _mean(value, given) for name, value in values.items()}
        if self.nll_weight:
            metrics["nll_loss"] = _mean(given["nll"], given, "chosen_tokens")
        return metrics

    def _answers(self, logp: Tensor, reference: Tensor | None, batch: Batch) -> dict[str, Any]:
        """Return the arguments of the losses."""
        tokens = sequence_sum(logp.detach().new_ones(len(logp)), batch)
        weights = batch.weights
        if self.tail_weight is not None:
            tail = _beyond_the_shorter(tokens, batch)
            scale = logp.detach().new_ones(len(logp)).masked_fill(tail, self.tail_weight)
            weights = scale if weights is None else weights * scale
        chosen, rejected = _sums(logp, weights, batch)
        zeros = chosen.detach().new_zeros(len(chosen))
        ref_chosen, ref_rejected = (zeros, zeros) if reference is None else _sums(reference, weights, batch)
        return {
            "chosen": chosen,
            "rejected": rejected,
            "ref_chosen": ref_chosen,
            "ref_rejected": ref_rejected,
            "chosen_score": self.score(chosen - ref_chosen),
            "rejected_score": self.score(rejected - ref_rejected),
            "chosen_tokens": tokens[0::2],
            "rejected_tokens": tokens[1::2],
            "nll": -_sums(logp, batch.weights, batch)[0],
            **self.settings,
        }


def _sums(values: Tensor, weights: Tensor | None, batch: Batch) -> tuple[Tensor, Tensor]:
    """Sum (N,) weighted values over the chosen and over the rejected answers: (P,) and (P,)."""
    sums = sequence_sum(values, batch, weights)
    return sums[0::2], sums[1::2]


def _beyond_the_shorter(tokens: Tensor, batch: Batch) -> Tensor:
    """Tell which of the N tokens come after as many as the shorter answer of their pair has: (N,) bool."""
    before = (tokens.cumsum(0) - tokens)[batch.sequence]
    place = before.new_ones(len(batch.sequence)).cumsum(0) - 1 - before
    shorter = tokens.view(-1, 2).min(dim=1).values.repeat_interleave(2)
    return place >= shorter[batch.sequence]


def _mean(values: Tensor, given: dict[str, Any], divisor: str = "pairs") -> tuple[Tensor | float, Tensor | float]:
    """Return the sum of (P,) values and what it is divided by."""
    return values.detach().sum(), given["chosen_tokens"].sum() if divisor == "chosen_tokens" else float(len(values))
