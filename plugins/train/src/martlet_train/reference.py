"""The reference model of an algorithm that compares: one service, whatever stands behind it.

``Forward.reference`` runs the model as it was before training, or another that ``--ref_model`` and ``--ref_adapters``
name. A second model is loaded only where the trained one cannot be its own reference for a while, by switching its
adapter off or another one on. With ``--precompute_ref_log_probs`` it runs once over all rows, before training.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from martlet import Run, Tuner, UsageError
from martlet.protocols import LoadedModel
from martlet_data.args import DataArguments

from .another_model import AnotherModel, check_same_tokenizer
from .args import RlhfArguments, TrainArguments
from .batch import Batch
from .deepspeed import loading_in_parts, run_in_parts
from .head import Measure
from .scoring import Scorer, TokenScores, log_probabilities
from .sharded import fetching, place
from .state import rng_state, set_rng_state

if TYPE_CHECKING:
    from .algorithm import Algorithm
    from .feeding import Feeding
    from .trainer import CoreTrainer

log = logging.getLogger("martlet")
FLAGS = ("ref_model", "ref_adapters", "ref_model_type", "ref_model_revision", "precompute_ref_log_probs")
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
Switch = Callable[[], AbstractContextManager[None]]


def check_reference(run: Run, algorithm: Algorithm, processor: Any) -> None:
    """Refuse what the flags of the reference ask in vain, before a row is encoded or a weight is read."""
    if not algorithm.reference:
        for name in FLAGS:
            if run.config.is_set(name) and run.config.value(name):
                run.warn(f"--{name} has no effect: this algorithm compares with no reference model.")
        return
    another, flags = AnotherModel(run, "ref_"), _flags(run)
    if len(another.adapters) > 1:
        raise UsageError("--ref_adapters: a reference has one adapter; name one.")
    if flags.precompute_ref_log_probs:
        why = "--streaming true" if run.config[DataArguments].streaming else None
        why = why or ("--lazy_tokenize true" if run.config[TrainArguments].lazy_tokenize else None)
        if why:
            raise UsageError(
                f"--precompute_ref_log_probs true runs the reference over all rows before training, and with {why} "
                "the rows are not known by then. Leave one of the two out."
            )
    another.find_adapters()
    if another.named:
        check_same_tokenizer(another, processor)


def _flags(run: Run) -> RlhfArguments:
    return run.config[RlhfArguments] if RlhfArguments in run.config else RlhfArguments()


@dataclass
class Reference:
    """What ``Forward.reference`` calls. Made before the trainer, started when there is one."""

    run: Run
    policy: LoadedModel
    way: str
    """For people: what stands behind it."""
    model: nn.Module | None
    """The trained model where it is its own reference; else the second one, from ``start`` on."""
    switch: Switch | None
    """In its context the trained model is the reference; None for a second model."""
    adapter: Path | None
    folder: Path | None = None
    """Where the weights were read from; None as long as nobody knows."""
    stored: Mapping[bool, Callable[[Batch], TokenScores]] = field(default_factory=dict)
    """Log-probabilities computed before training, by whether they are of the evaluation set."""

    @classmethod
    def choose(cls, run: Run, algorithm: Algorithm, policy: LoadedModel, model: nn.Module) -> Reference | None:
        """Decide where the reference comes from, and put ``--ref_adapters`` beside the trained adapter if it can be.

        policy: as it was loaded; model: what the tuner made of it.
        """
        if not algorithm.reference:
            return None
        another = AnotherModel(run, "ref_")
        adapter = next((path for _, path in another.find_adapters()), None)
        if adapter is None and not another.named and not run.config.is_set("resume_from_checkpoint"):
            for entry in another.policy("adapters") or ():
                run.warn(
                    f"The reference is the base model, without the adapter {entry} that training goes on with. To "
                    f"compare with what that adapter makes of it, add --ref_adapters {entry}"
                )
        own = getattr(run.one(Tuner), "reference", None)
        switch: Switch | None = own(model, adapter) if own and not another.named else None
        if switch is None:
            way = f"a second model ({another}{f' with the adapter {adapter}' if adapter else ''})"
        elif adapter is None:
            way = "the model with its adapter switched off"
        else:
            way = f"the model with the adapter {adapter} in place of the trained one"
        folder = policy.path if switch else another.folder()
        return cls(run, policy, way, model if switch else None, switch, adapter, folder)

    def start(self, trainer: CoreTrainer, feeding: Feeding) -> None:
        """Load a second model where one is needed, and compute log-probabilities in advance where they are wanted."""
        self.trainer, self.feeding = trainer, feeding
        if self.switch is not None:
            self.scorer = trainer.scorer
        elif not _flags(self.run).precompute_ref_log_probs:
            self.load()
        if _flags(self.run).precompute_ref_log_probs:
            from .reference_cache import ReferenceCache

            self.stored = ReferenceCache(self).stored()
            if self.switch is None and self.model is not None:
                self.model = None
                del self.scorer  # it knows the output layer
                gc.collect()
                if torch.accelerator.is_available():
                    torch.accelerator.empty_cache()
        after = "; its log-probabilities were computed in advance" if self.stored else ""
        log.info("The reference is %s%s.", self.way, after)
        self.run.note("reference", {"is": self.way, "precomputed": bool(self.stored)})

    def training(self, batch: Batch, measure: Measure = log_probabilities) -> TokenScores:
        """Return what the reference says of a batch of the training set."""
        return self._answer(batch, measure, evaluation=False)

    def evaluation(self, batch: Batch, measure: Measure = log_probabilities) -> TokenScores:
        """Return what the reference says of a batch of the evaluation set."""
        return self._answer(batch, measure, evaluation=True)

    def _answer(self, batch: Batch, measure: Measure, *, evaluation: bool) -> TokenScores:
        if not self.stored:
            return self.compute(batch, measure)
        if measure is not log_probabilities:
            raise UsageError(
                "--precompute_ref_log_probs true keeps log-probabilities alone, and this algorithm asks the reference "
                "for more. Leave the flag out."
            )
        return self.stored[evaluation](batch)

    def compute(self, batch: Batch, measure: Measure = log_probabilities) -> TokenScores:
        """Run the reference: without gradient and dropout, under the autocast of training."""
        with (self.switch or nullcontext)(), torch.no_grad(), self.trainer.autocast():
            return self.scorer(self.model, batch, measure)  # type: ignore[arg-type]

    def load(self) -> None:
        """Load the second model, frozen, in the number type of the policy."""
        another = AnotherModel(self.run, "ref_")
        weights = self.policy.model.parameters()
        dtype = next(parameter.dtype for parameter in weights if parameter.is_floating_point())
        same = {"torch_dtype": str(dtype).removeprefix("torch.")} if dtype in DTYPES else {}
        before = rng_state()
        torch.manual_seed(self.run.seed)  # weights that --init_strategy fills are those of the policy
        with loading_in_parts(self.trainer.args, lambda: dtype):
            loaded = another.load(**same) if another.named else another.load()
            model, self.folder = loaded.model, loaded.path
            if self.adapter is not None:
                model = _with_adapter(self.run, model, self.adapter)
        set_rng_state(before)
        device = self.trainer.args.device
        place(model.requires_grad_(False).eval(), device)
        with fetching(model, device):
            self.feeding.check_layout(model)
            self.scorer = Scorer(model, keep=self.run.config[TrainArguments].use_logits_to_keep)
        self.model = run_in_parts(model, self.trainer.args)


def _with_adapter(run: Run, model: nn.Module, path: Path) -> nn.Module:
    """Put an adapter onto a model: by the tuner of the run where it knows adapters, else by one that does."""
    specs = [spec for _, spec in run.manager.specs(Tuner) if spec.mergeable]
    specs.sort(key=lambda spec: spec not in run.selected(Tuner))
    error: UsageError | None = None
    for spec in specs:
        try:
            adapted: nn.Module = run.get(Tuner, spec.name).load(model, path, trainable=False)
            return adapted
        except UsageError as refused:
            error = error or refused
    raise error or UsageError(f"--ref_adapters {path}: no installed tuner loads adapters. Leave the flag out.")
