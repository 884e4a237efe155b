"""The one subclass of ``transformers.Trainer``. What is not overridden here is transformers' own.

Why each method is overridden stands beside it; ``tests/test_upstream.py`` holds the list against the installed release.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments, set_seed
from transformers.trainer_utils import EvalLoopOutput

from martlet import Run

from .algorithm import Algorithm
from .batch import Batch
from .interruption import Interruption, Stopped
from .loading import Loader
from .metrics import Tally
from .processes import Processes
from .reference import Reference
from .resuming import Resume
from .saving import Checkpoints
from .scoring import Forward, Scorer
from .sharded import size
from .streaming import StreamLoader


@dataclass
class Job:
    """Everything the loop works with, made by ``core.fit``."""

    run: Run
    algorithm: Algorithm
    model: nn.Module
    scorer: Scorer
    args: TrainingArguments
    train_loader: Loader | StreamLoader
    eval_loader: Loader | None
    checkpoints: Checkpoints
    interruption: Interruption
    resume: Resume | None = None
    parameter_groups: list[dict[str, Any]] | None = None
    """From the tuner: ``params`` and, where they differ from the flags, ``lr_scale`` and ``weight_decay``."""
    callbacks: list[TrainerCallback] = field(default_factory=list)
    exact_mean: bool = True
    """Divide by what all processes count, not by each one's own."""
    share_rows: Callable[[Callable[[bytes], list[bytes]]], None] = lambda gather: None
    """Let every process know what each found out about rows: ``Prepared.share``."""
    reference: Reference | None = None
    """The reference model, for algorithms that need one."""


SHARED_EVERY = 8
"""Batches of an evaluation after which processes ask one another for signals; a transfer waits for the device."""

Counts = dict[str, float]
"""What the sums of an optimizer step are divided by: see ``Algorithm.count``."""


class CoreTrainer(Trainer):
    """Train with an exact mean over the whole optimizer step, and resume to the bit."""

    loss_is_scaled_for_ga = True  # compute_loss divides by the count of the whole step

    def __init__(self, job: Job) -> None:
        self.job, self.algorithm, self.scorer = job, job.algorithm, job.scorer
        config: Any = getattr(job.model, "config", None)
        use_cache = getattr(config, "use_cache", None)
        super().__init__(
            model=job.model,
            args=job.args,
            data_collator=_refuse,
            train_dataset=job.train_loader.dataset,
            eval_dataset=job.eval_loader.dataset if job.eval_loader else None,
            callbacks=job.callbacks,
        )
        if self.args.process_index:
            set_seed(self.args.seed + self.args.process_index)  # each process draws dropout of its own
        if use_cache is not None:
            config.use_cache = use_cache  # the Scorer turns the cache off in its call; checkpoints keep the setting
        self.remove_callback(PrinterCallback)
        self.processes = Processes(self.accelerator)
        self.tally = Tally()
        self._flops_per_token: int | None = None
        self._optimizer_trains = False
        self._loss_since: int | None = None
        self._groups: list[list[nn.Parameter]] = []

    # Batches

    def get_train_dataloader(self) -> Loader | StreamLoader:
        """Return our loader as it is: accelerate's draws from the global random state and repeats rows at the end."""
        return self.job.train_loader

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Loader:
        """Return our loader, for the same reasons."""
        if self.job.eval_loader is None:
            raise ValueError("There are no evaluation rows.")
        return self.job.eval_loader

    def get_batch_samples(
        self, epoch_iterator: Iterator[Batch], num_batches: int, device: torch.device
    ) -> tuple[list[Batch], Counts]:
        """End the epoch with the rows of a stream; upstream would go on asking up to the last step."""
        batches, count = super().get_batch_samples(epoch_iterator, num_batches, device)
        self.control.should_epoch_stop |= not batches
        return batches, count

    def _get_num_items_in_batch(self, batch_samples: list[Batch], device: torch.device) -> Counts:
        """Count the whole optimizer step, over all processes: the divisors of the exact mean."""
        counts: Counts = {}
        for batch in batch_samples:
            for name, count in self.algorithm.count(batch).items():
                counts[name] = counts.get(name, 0.0) + (0.0 if batch.filler else count)
        shared = dict(zip(counts, self.share(*counts.values()), strict=True))
        counts = shared if self.job.exact_mean else counts
        if batch_samples:
            self.algorithm.begin(self._forward(), (batch.to(device) for batch in batch_samples))
        return {name: max(count, 1.0) for name, count in counts.items()}

    def share_rows(self) -> None:
        """Let every process know what each found out about rows."""
        self.job.share_rows(self.processes.gather)

    def share(self, *numbers: float) -> list[float]:
        """Add up numbers over all processes, and let each know of a signal that any of them got, in one transfer."""
        if self.args.world_size == 1:
            return list(numbers)
        interruption = self.job.interruption
        mine = torch.tensor([*numbers, *interruption.votes()], dtype=torch.float64, device=self.args.device)
        total: list[float] = self.processes.sum(mine).tolist()
        interruption.count(total[len(numbers) :])
        return total[: len(numbers)]

    # One step

    def training_step(self, model: nn.Module, inputs: Batch, num_items_in_batch: Counts | None = None) -> Tensor:
        """Compute the loss of one batch and its gradients."""
        if not (model.training and self._optimizer_trains):
            model.train()
            self.optimizer.train()
            self._optimizer_trains = True
        loss = self.compute_loss(model, inputs.to(self.args.device), num_items_in_batch=num_items_in_batch)
        every = self.args.torch_empty_cache_steps
        if every and self.state.global_step % every == 0:
            torch.cuda.empty_cache()
        # The loss is divided by the count of the whole step; DeepSpeed would divide by the number of batches as well.
        self.accelerator.backward(loss, **({"scale_wrt_gas": False} if self.is_deepspeed_enabled else {}))
        return loss.detach()

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: Counts | None = None,
    ) -> Tensor:
        """Return the algorithm's sums for this batch, divided by the counts of the step."""
        forward = self._forward(model)
        out = self.algorithm.loss(forward, inputs)
        if forward.logged and not inputs.filler:
            self.tally.add(out.metrics)
        counts = num_items_in_batch or {}
        loss = torch.stack([total / counts[name] for name, total in out.total.items()]).sum() * (not inputs.filler)
        # DistributedDataParallel averages gradients over processes; the divisor already counts all of them.
        return loss * self.args.world_size if self.job.exact_mean and self.args.world_size > 1 else loss

    def _forward(self, model: nn.Module | None = None, *, evaluating: bool = False) -> Forward:
        """Return what an algorithm calls: the model, wrapped where gradients are to be shared, and the reference."""
        reference = self.job.reference
        says = None if reference is None else reference.evaluation if evaluating else reference.training
        return Forward(model or self.model, self.scorer, self.processes, evaluating or self._is_logged(), says)

    def _is_logged(self) -> bool:
        """Tell whether the step now computed will be logged: what is measured costs a pass over the logits."""
        if self.args.logging_strategy != "steps":
            return self.args.logging_strategy == "epoch"
        step = self.state.global_step + 1
        chosen = step % self.state.logging_steps == 0 or step == self.state.max_steps
        return chosen or (step == 1 and self.args.logging_first_step)

    def _prepare_for_training(
        self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: str | None
    ) -> tuple[nn.Module, Any]:
        """Take up our own checkpoint also where upstream would ask for one of DeepSpeed's."""
        prepared: tuple[nn.Module, Any] = super()._prepare_for_training(max_steps, train_dataloader, None)
        if resume_from_checkpoint is not None:
            self._load_optimizer_and_scheduler(resume_from_checkpoint)
            self._load_scaler(resume_from_checkpoint)
        return prepared

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context in which the model computes; DeepSpeed, not accelerate, enters its own around a model."""
        if self.is_deepspeed_enabled:
            enabled = "torch_autocast" in self.args.hf_deepspeed_config.config
            return torch.autocast(self.args.device.type, torch.bfloat16, enabled=enabled)
        context: AbstractContextManager[Any] = self.accelerator.autocast()
        return context

    def trained_groups(self) -> list[list[nn.Parameter]]:
        """Return the parameters of the optimizer, group by group; DeepSpeed gives it slices in their place."""
        return self._groups if self.is_deepspeed_enabled else [group["params"] for group in self.optimizer.param_groups]

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Drop groups without parameters, as DeepSpeed does, and note what is trained before it takes that away."""
        made = self._make_optimizer(model)
        if not self._groups:
            made.param_groups[:] = [group for group in made.param_groups if group["params"]]
            self._groups = [list(group["params"]) for group in made.param_groups]
        return made

    def _make_optimizer(self, model: nn.Module | None) -> torch.optim.Optimizer:
        """Give the tuner's parameter groups their own learning rates."""
        groups = self.job.parameter_groups
        if groups is None or self.optimizer is not None:
            return super().create_optimizer(model)
        cls, settings = self.get_optimizer_cls_and_kwargs(self.args, self.model)
        scaled = []
        for group in groups:
            rest = {key: value for key, value in group.items() if key != "lr_scale"}
            rate = self.args.learning_rate * group.get("lr_scale", 1.0)
            scaled.append({"weight_decay": self.args.weight_decay, **rest, "lr": rate})
        self.optimizer = cls(scaled, **settings)
        return self.optimizer

    def floating_point_ops(self, inputs: Batch) -> int:
        """Estimate as upstream does, without counting the parameters again in every step."""
        if self._flops_per_token is None:
            layers = [module for module in self.model.modules() if isinstance(module, nn.Embedding)]
            embeddings = {id(parameter) for layer in layers for parameter in layer.parameters()}
            self._flops_per_token = 6 * sum(size(p) for p in self.model.parameters() if id(p) not in embeddings)
        return self._flops_per_token * inputs.tokens

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add what was measured, and warn of a loss that is no number."""
        logs.pop("train_samples_per_second", None)  # upstream counts every step as full
        if "train_loss" in logs:  # upstream divides the loss of all steps by those since it was resumed
            total, count = self.share(self._total_loss_scalar)[0], self.args.world_size  # the rest is each one's own
            logs["train_loss"] = total / count / max(self.state.global_step - self._first_step(), 1)
            self._total_loss_scalar -= self._tr_loss.item()  # a checkpoint keeps the rest apart
        if "loss" in logs:
            logs.update(self.tally.take(self.processes))
            if not math.isfinite(logs["loss"]):
                self.job.run.warn(
                    f"The loss is {logs['loss']} at step {self.state.global_step}. Lower --learning_rate, or compute "
                    "in a wider type (--torch_dtype, --bf16)."
                )
        super().log(logs, start_time)

    # Evaluation

    def evaluation_loop(
        self,
        dataloader: Loader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Average over the tokens of the whole set; upstream averages the means of batches."""
        model, tally = self.model_wrapped, Tally()
        model.eval()
        if self._optimizer_trains:
            self.optimizer.eval()
            self._optimizer_trains = False
        self.callback_handler.eval_dataloader = dataloader
        forward, device = self._forward(model, evaluating=True), self.args.device
        with torch.no_grad():
            self.algorithm.begin(forward, (batch.to(device) for batch in dataloader))
            for number, batch in enumerate(dataloader):
                if number % SHARED_EVERY == 0:
                    self.share()
                out = self.algorithm.loss(forward, batch.to(device))
                if not batch.filler:
                    counts = self.algorithm.count(batch)
                    tally.add({f"loss/{name}": (total, counts[name]) for name, total in out.total.items()})
                    tally.add(out.metrics)
                self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
                if self.job.interruption.signal is not None and self.is_in_train:
                    self.job.interruption.owes_evaluation = True
                    raise Stopped
        found = tally.take(self.processes)
        found["loss"] = sum(found.pop(name) for name in list(found) if name.startswith("loss/"))
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in found.items()}
        return EvalLoopOutput(predictions=None, label_ids=None, metrics=metrics, num_samples=len(dataloader.dataset))

    def _evaluate(
        self, trial: Any, ignore_keys_for_eval: list[str] | None, skip_scheduler: bool = False
    ) -> dict[str, float]:
        """Evaluate; before the first step of a resumed run, make up for what was put off, as if it had been in time."""
        resume = self.job.resume
        late = skip_scheduler and resume is not None and resume.position is not None
        metrics: dict[str, float] = super()._evaluate(trial, ignore_keys_for_eval, skip_scheduler and not late)
        if late:
            self._determine_best_metric(metrics=metrics, trial=trial)
            if self.control.should_training_stop:
                raise Stopped
        return metrics

    # Checkpoints

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write whole checkpoints without pickle: see ``saving``."""
        self.store_flos()
        self.share_rows()
        self.job.checkpoints.save(self)
        self.accelerator.wait_for_everyone()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Do nothing: the tuner has loaded the weights."""

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Read our files instead of pickles. Log, evaluate and save when this run's flags say, not the checkpoint's."""
        if self.job.resume:
            self.state.compute_steps(self.args, self.state.max_steps)
            self.job.resume.load_optimizer(self)

    def _load_scaler(self, checkpoint: str | None) -> None:
        """Read our files instead of pickles."""
        if self.job.resume:
            self.job.resume.load_scaler(self)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Read our files instead of pickles; also what the next log line averages over."""
        if self.job.resume:
            self.job.resume.load_random_state(self)

    def _load_callback_state(self) -> None:
        """Put the state back into the callbacks that there are; upstream makes new ones, and only if a flag says so."""
        if self.job.resume:
            self.job.resume.load_callbacks(self)

    def total_steps(self) -> int:
        """Return the number of optimizer steps of the whole run."""
        return int(self.set_initial_training_values(self.args, self.job.train_loader)[-1])

    def save_last(self) -> None:
        """Save where the loop has ended, unless that is done: a callback may have stopped it, or a signal."""
        if self.args.save_strategy != "no" and self.state.global_step:
            self._save_checkpoint(self.model_wrapped, None)

    def end_early(self) -> None:
        """End as the loop would have, after an evaluation that was given up."""
        self.control = self.callback_handler.on_train_end(self.args, self.state, self.control)
        self.is_in_train = False

    def final_metrics(self) -> dict[str, float]:
        """Return the last value of everything that was logged, and the best metric."""
        found: dict[str, float] = {}
        for line in self.state.log_history:
            found |= {name: value for name, value in line.items() if isinstance(value, int | float)}
        if self.state.best_metric is not None:
            found[f"best_{self.args.metric_for_best_model}"] = self.state.best_metric
        return found

    def loop_state(self) -> dict[str, Any]:
        """Return what the loop has gathered since the last log line, for a checkpoint."""
        logged, since = self._globalstep_last_logged, self._first_step()
        return {"loss": self._tr_loss, "total": self._total_loss_scalar, "logged": logged, "since": since}

    def set_loop_state(self, state: dict[str, Any]) -> None:
        """Put back what ``loop_state`` returned."""
        self._tr_loss.copy_(state["loss"])
        self._total_loss_scalar = state["total"]
        self._globalstep_last_logged = state["logged"]
        self._loss_since = state["since"]

    def _first_step(self) -> int:
        """Return the step from which the total loss was added up."""
        return self._initial_global_step if self._loss_since is None else self._loss_since


def _refuse(rows: Any) -> Any:
    """Stand in for the collator that ``Trainer`` asks for: batches are made by ``loading``."""
    raise TypeError("batches come from the loader")
