"""Kahneman-Tversky optimisation: answers that are each labelled good or bad (arXiv 2402.01306)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from martlet import Run, UsageError
from martlet.protocols import BoundTemplate, TrainResult
from martlet_data.api import Prepared, prepare
from martlet_data.args import DataArguments
from martlet_train.api import (
    Algorithm,
    Batch,
    Collator,
    Forward,
    LossOut,
    Measured,
    Row,
    evaluating,
    fit,
    sequence_sum,
)
from martlet_train.args import TrainArguments, TrainerArguments

from .args import KtoArguments
from .checks import beta_of, check_run
from .mismatched import Mismatched

METRICS = ("kl", *(f"{kind}/{name}" for kind in ("rewards", "logps") for name in ("chosen", "rejected")))
METRICS += ("rewards/margins",)
BALANCED = 4 / 3
"""How much more good answers may weigh than bad ones, and not less: equation 8 of the paper."""


def row_losses(log_ratio: Tensor, good: Tensor, kl: Tensor, beta: float) -> Tensor:
    """Return 1 - sigmoid(beta (r - kl)) of good answers and 1 - sigmoid(beta (kl - r)) of bad ones: (S,).

    log_ratio: r, of the policy to the reference, (S,); good: (S,) bool; kl: scalar, without gradient. Equation 7 of
    arXiv 2402.01306 without the weights.
    """
    sign = good.to(log_ratio.dtype) * 2 - 1
    return torch.sigmoid(-beta * sign * (log_ratio - kl))


class Kto(Algorithm):
    """Raise good answers and lower bad ones, as far as they are from what mismatched answers show to be usual.

    A token's log-probability counts with its weight of ``--loss_scale``.
    """

    reference = True

    def __init__(self, run: Run) -> None:
        check_run(run, METRICS)
        self.beta = beta_of(run)
        settings = run.config[KtoArguments]
        self.weights = {True: settings.desirable_weight, False: settings.undesirable_weight}
        if not any(self.weights.values()):
            raise UsageError(
                "--desirable_weight 0 --undesirable_weight 0: neither good nor bad answers would count, so nothing "
                "would be trained. Give at least one of them a weight above 0."
            )
        self.kl = torch.zeros(())
        self.rows = {True: 0.0, False: 0.0}
        lazy = run.config[TrainArguments].lazy_tokenize
        if lazy or run.config[DataArguments].streaming:
            flag = "--lazy_tokenize true" if lazy else "--streaming true"
            raise UsageError(
                f"{flag} encodes rows while training, and kto puts the answer of the next row beside every prompt to "
                "estimate the KL divergence, so it needs all of them before. Leave the flag out."
            )

    def data(self, run: Run, template: BoundTemplate) -> Prepared:
        prepared = prepare(run, template, mode="kto")
        sets: dict[str, Any] = {"train": prepared.train, "eval": prepared.eval}
        use = {"train": "train", "eval": "evaluate"}
        sets = {name: rows and Mismatched(rows, template.max_length, use[name]) for name, rows in sets.items()}
        if sets["eval"]:
            _check_metric(run, sets["eval"].labels)
        self._tell_balance(run, sets["train"].labels)
        return replace(prepared, **sets, group=2)

    @staticmethod
    def collate(rows: Sequence[Row], numbers: Sequence[int], collator: Collator) -> Batch:
        batch = collator(rows[0::2], numbers[0::2])
        batch.attached = {"kl": collator(rows[1::2], numbers[1::2])}
        return batch

    def begin(self, forward: Forward, batches: Iterable[Batch]) -> None:
        """Estimate the KL divergence of the step, or of the evaluation set: at least 0, without gradient or dropout."""
        sums = forward.processes.zeros(3)
        with evaluating(forward.model):
            for batch in batches:
                mismatched = batch.attached["kl"]
                ratios = forward(mismatched).logp - forward.reference(mismatched).logp
                log_ratios = sequence_sum(ratios, mismatched, mismatched.weights)
                good = _good(batch).to(log_ratios)
                if not batch.filler:
                    sums = sums + torch.stack([log_ratios.sum(), good.sum(), (1 - good).sum()])
        total, *rows = forward.sum(sums)
        self.rows = dict(zip((True, False), map(float, rows), strict=True))
        self.kl = (total / max(sum(self.rows.values()), 1.0)).clamp(min=0)

    def count(self, batch: Batch) -> dict[str, int]:
        return {"rows": batch.sequences}

    def loss(self, forward: Forward, batch: Batch) -> LossOut:
        scores = forward(batch)
        policy, good = sequence_sum(scores.logp, batch, batch.weights), _good(batch)
        log_ratio = policy - sequence_sum(forward.reference(batch).logp, batch, batch.weights)
        weight = torch.where(good, self.weights[True], self.weights[False])
        losses = weight * row_losses(log_ratio, good, self.kl, self.beta)
        total = losses.sum() + scores.balance * batch.sequences
        metrics = self._measure(log_ratio.detach(), policy.detach(), good) if forward.logged else {}
        return LossOut({"rows": total}, metrics)

    def _measure(self, log_ratio: Tensor, policy: Tensor, good: Tensor) -> Measured:
        """Return rewards and log-probabilities by label; the margin is the difference of the rewards' means."""
        found: dict[str, tuple[Tensor | float, Tensor | float]] = {"kl": (self.kl * len(good), float(len(good)))}
        for name, chosen in (("chosen", good), ("rejected", ~good)):
            found[f"rewards/{name}"] = (self.beta * log_ratio[chosen].sum(), chosen.sum())
            found[f"logps/{name}"] = (policy[chosen].sum(), chosen.sum())
        if all(self.rows.values()):
            rows = sum(self.rows.values())
            share = torch.where(good, rows / self.rows[True], -rows / self.rows[False])
            found["rewards/margins"] = (self.beta * (share * log_ratio).sum(), float(len(good)))
        return found

    def _tell_balance(self, run: Run, labels: Sequence[bool]) -> None:
        """Warn of labels that leave nothing to compare, or of weights that let one label dominate."""
        good = sum(labels)
        bad = len(labels) - good
        if not good or not bad:
            label, way = ("true", "towards") if good else ("false", "away from")
            if not self.weights[bool(good)]:
                flag = "desirable_weight" if good else "undesirable_weight"
                raise UsageError(
                    f"--{flag} 0: all {len(labels):,} rows have the label {label}, so nothing would be trained. Leave "
                    "the flag out, or add rows with the other label."
                )
            run.warn(
                f"All {len(labels):,} rows have the label {label}, so nothing tells good answers from bad ones: the "
                f"model is only pushed {way} these answers, whatever they are like. Add rows with the other label."
            )
            return
        run.logger.info("%s rows have the label true, %s false.", f"{good:,}", f"{bad:,}")
        desirable, undesirable = self.weights[True] * good, self.weights[False] * bad
        if not undesirable <= desirable * (1 + 1e-6) <= undesirable * BALANCED * (1 + 1e-5):
            mends = (("desirable_weight", undesirable / good), ("undesirable_weight", desirable / bad))
            would_do = " or ".join(f"--{flag} {weight:.3g}" for flag, weight in mends if weight)
            run.warn(
                f"Good answers weigh {desirable:,.4g} (rows times --desirable_weight), bad ones {undesirable:,.4g} "
                "(times --undesirable_weight); the paper wants the first between 1 and 4/3 times the second. "
                f"{would_do} would do."
            )


def _check_metric(run: Run, labels: Sequence[bool]) -> None:
    """Refuse to choose the best checkpoint by a metric that an evaluation on rows of one label does not bring."""
    metric = run.config[TrainerArguments].metric_for_best_model or "loss"
    needed = {"chosen": {True}, "rejected": {False}, "margins": {True, False}}.get(metric.rpartition("/")[2], set())
    if not needed <= set(labels):
        raise UsageError(
            f"--metric_for_best_model {metric}: all {len(labels):,} rows to evaluate on have the label "
            f"{str(labels[0]).lower()}, so none brings it. Add rows with the other label, or choose loss or kl."
        )


def _good(batch: Batch) -> Tensor:
    """Tell which rows have the label true: (S,) bool."""
    return torch.tensor([extra["label"] for extra in batch.extra], device=batch.targets.device)


def kto(run: Run) -> TrainResult:
    """Train on rows with labels against a reference model. Trainer ``kto``."""
    return fit(run, Kto(run))
