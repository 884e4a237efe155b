"""Supervised fine-tuning and pre-training: the weighted mean loss of the supervised tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from martlet import Loss, Run, Trainer, UsageError
from martlet.errors import suggest
from martlet.protocols import BoundTemplate, TrainResult
from martlet_data.api import Prepared, prepare
from martlet_data.args import DataArguments

from .algorithm import Algorithm, LossOut, Measured
from .args import TrainArguments, TrainerArguments
from .core import fit
from .losses import call_loss, check_values

if TYPE_CHECKING:
    from torch import Tensor

    from .batch import Batch
    from .scoring import Forward


def main(run: Run) -> TrainResult:
    """Run the trainer that is named like the command. Commands ``sft`` and ``pt``."""
    check_losses(run, cast(Trainer, run.spec(Trainer, run.command)))
    result: TrainResult = run.get(Trainer, run.command)(run)
    return result


def check_losses(run: Run, trainer: Trainer) -> None:
    """Refuse a loss that is not of a contract that the trainer takes."""
    if not trainer.contracts and run.config.is_set("loss_type"):
        raise UsageError(f"--loss_type: {trainer.name} has a loss of its own. Leave the flag out.")
    for loss in cast(list[Loss], run.selected(Loss)) if trainer.contracts else ():
        if loss.contract not in trainer.contracts:
            known = sorted(one.name for _, one in run.manager.specs(Loss) if one.contract in trainer.contracts)
            takes = f"{' and '.join(trainer.contracts)} losses: {', '.join(known)}"
            raise UsageError(f"--loss_type {loss.name} is a {loss.contract} loss; {trainer.name} takes {takes}.")


def sft(run: Run) -> TrainResult:
    """Train on the rows of ``--dataset``. Trainer ``sft``, and ``pt``, whose command has other defaults."""
    return fit(run, Supervised(run))


def _check_metric(name: str, *, channels: bool) -> None:
    """Refuse a metric that no evaluation will bring, now and not after hours."""
    known, plain = ("loss", "token_acc"), name.removeprefix("eval_")
    if plain in known or (channels and plain.startswith("loss_")):
        return
    hint = suggest(name, known)
    if plain.startswith("loss_"):
        hint = "The loss of a channel is known with --enable_channel_loss true."
    raise UsageError(f"--metric_for_best_model {name}: an evaluation brings no such metric. {hint}")


class Supervised(Algorithm):
    """Cross entropy, or what ``--loss_type`` names, on the tokens that the template marks."""

    def __init__(self, run: Run) -> None:
        data = run.config[DataArguments]
        if not (data.dataset or data.cached_dataset):
            raise UsageError(f"{run.command} needs data: give --dataset FILE, a dataset's name or a hub id.")
        trainer = run.config[TrainerArguments]
        self.name = run.selected(Loss)[0].name
        self.token_loss: Callable[[Tensor, Tensor], Tensor] = run.one(Loss)
        self.smoothing = trainer.label_smoothing_factor
        self.channels = trainer.enable_channel_loss
        self.accuracy = run.config[TrainArguments].acc_strategy
        _check_metric(trainer.metric_for_best_model or "loss", channels=bool(self.channels))

    def data(self, run: Run, template: BoundTemplate) -> Prepared:
        return prepare(run, template, lazy=bool(run.config[TrainArguments].lazy_tokenize))

    def count(self, batch: Batch) -> dict[str, int]:
        return {"tokens": len(batch.targets)}

    def loss(self, forward: Forward, batch: Batch) -> LossOut:
        def measure(logits: Tensor, targets: Tensor) -> dict[str, Tensor]:
            losses = self._losses(logits, targets)
            if self.smoothing:
                even = logits.logsumexp(-1) - logits.mean(-1)
                losses = (1 - self.smoothing) * losses + self.smoothing * even
            right = {"right": (logits.argmax(-1) == targets).float()} if forward.logged else {}
            return {"loss": losses, **right}

        scores = forward(batch, measure)
        losses = scores.values["loss"]
        weighted = losses if batch.weights is None else losses * batch.weights
        total = weighted.sum() + scores.balance * len(batch.targets)
        metrics = self._metrics(scores.values["right"], losses.detach(), batch) if forward.logged else {}
        return LossOut({"tokens": total}, metrics)

    def _losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return one number a token."""
        losses: Tensor = call_loss(self.name, self.token_loss, logits, targets)
        check_values(self.name, losses, len(targets), "token")
        return losses

    def _metrics(self, right: Tensor, losses: Tensor, batch: Batch) -> Measured:
        if self.accuracy == "seq":
            from .batch import sequence_sum

            trained = sequence_sum(losses.new_ones(len(losses)), batch)
            whole = (sequence_sum(right.to(losses.dtype), batch) == trained) & (trained > 0)
            found: dict[str, tuple[Tensor | float, Tensor | float]] = {"token_acc": (whole.sum(), (trained > 0).sum())}
        else:
            found = {"token_acc": (right.sum(), float(len(right)))}
        if self.channels:
            found |= self._by_channel(losses, batch)
        return found

    def _by_channel(self, losses: Tensor, batch: Batch) -> Measured:
        names = [str(extra.get("channel")) for extra in batch.extra]
        known = sorted(set(names))
        number = batch.sequence.new_tensor([known.index(name) for name in names])[batch.sequence]
        weighted = losses if batch.weights is None else losses * batch.weights
        sums = losses.new_zeros(len(known)).index_add(0, number, weighted)
        counts = losses.new_zeros(len(known)).index_add(0, number, losses.new_ones(len(losses)))
        return {f"loss_{name}": (sums[at], counts[at]) for at, name in enumerate(known)}
