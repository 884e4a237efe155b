"""Reward models: a score head that tells the chosen answer of a pair from the rejected one."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from martlet import MartletError, Run, UsageError
from martlet.protocols import BoundTemplate, TrainResult
from martlet_data.api import Prepared, prepare
from martlet_data.args import DataArguments
from martlet_train.api import Algorithm, Batch, Forward, LossOut, fit
from martlet_train.args import TrainArguments

from .args import RewardArguments
from .checks import check_run, is_given

METRICS = tuple(f"rewards/{name}" for name in ("chosen", "rejected", "margins", "accuracies", "mean"))


def pair_losses(chosen: Tensor, rejected: Tensor, margin: Tensor, center: float) -> Tensor:
    """Return the (P,) losses of (P,) scores: -log sigmoid(chosen - rejected - margin).

    The model of Bradley and Terry as in InstructGPT (arXiv 2203.02155), with the margins of Llama 2 (arXiv 2307.09288);
    center * (chosen + rejected)^2 draws the mean score to 0 (arXiv 2312.09244).
    """
    return center * (chosen + rejected).square() - logsigmoid(chosen - rejected - margin)


class RewardModel(Algorithm):
    """Score whole conversations; a row's column ``margin`` says by how much its answers should differ."""

    def __init__(self, run: Run) -> None:
        check_run(run, METRICS)
        labels = next((value for flag, value, _ in run.config if flag.name == "num_labels"), 1)
        if labels != 1:
            raise UsageError(f"--num_labels {labels}: a reward is one number. Leave the flag out.")
        if is_given(run, "beta"):
            run.warn("--beta has no effect: a reward model is compared with no reference model.")
        if is_given(run, "use_logits_to_keep"):
            run.warn("--use_logits_to_keep has no effect: a reward model computes no logits.")
        if is_given(run, "loss_scale") and not run.config[DataArguments].cached_dataset:  # which wants its own
            run.warn("--loss_scale has no effect on a reward: it is the score of a whole conversation.")
        self.center = run.config[RewardArguments].center_rewards_coefficient or 0.0

    def data(self, run: Run, template: BoundTemplate) -> Prepared:
        return prepare(run, template, mode="rlhf", lazy=bool(run.config[TrainArguments].lazy_tokenize))

    def count(self, batch: Batch) -> dict[str, int]:
        return {"pairs": batch.sequences // 2}

    def loss(self, forward: Forward, batch: Batch) -> LossOut:
        scores = forward(batch).score
        if scores is None:
            raise MartletError("This model has no score head. Load it with --task_type seq_cls.")
        chosen, rejected = scores[0::2], scores[1::2]
        margin = torch.tensor([float(extra.get("margin", 0.0)) for extra in batch.extra[0::2]], device=scores.device)
        total = {"pairs": pair_losses(chosen, rejected, margin, self.center).sum()}
        if not forward.logged:
            return LossOut(total)
        chosen, rejected, pairs = chosen.detach(), rejected.detach(), float(len(chosen))
        values = {
            "chosen": chosen,
            "rejected": rejected,
            "margins": chosen - rejected,
            "accuracies": (chosen > rejected).float(),
            "mean": (chosen + rejected) / 2,
        }
        return LossOut(total, {f"rewards/{name}": (value.sum(), pairs) for name, value in values.items()})


def rm(run: Run) -> TrainResult:
    """Train a reward model on pairs. Trainer ``rm``."""
    return fit(run, RewardModel(run))
