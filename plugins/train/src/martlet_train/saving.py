"""What a checkpoint folder holds, and which checkpoints are kept.

Weights and their configuration as the tuner saves them, tokenizer and chat template, ``generation_config.json``,
``args.json``, ``trainer_state.json``; and unless ``--save_only_model``, optimizer, schedule and random state as
safetensors. No pickles: plain transformers and PEFT read it, and nothing in it can run code.
"""

from __future__ import annotations

import copy
import logging
import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from transformers import GenerationConfig
from transformers.trainer_callback import ExportableState
from transformers.utils import logging as transformers_logging

from .checkpoint import point, prune, write_checkpoint
from .resuming import OPTIMIZER, SCALER, SCHEDULER, STATE, random_file, trained_parameters
from .sharded import whole_optimizer, whole_weights
from .state import rng_state, save_state

if TYPE_CHECKING:
    from torch import Tensor

    from .trainer import CoreTrainer

_log = logging.getLogger("martlet")


@dataclass
class Checkpoints:
    """The checkpoints of one run."""

    folder: Path
    save_weights: Callable[[Path, dict[str, Tensor] | None], None]
    """Write weights, configuration and tokenizer; the weights are given where the model holds parts of them."""
    facts: dict[str, Any]
    """What ``resuming.SAME`` compares."""
    keep: int | None = None
    only_model: bool = False
    links: bool = True
    last: Path | None = field(default=None, init=False)
    """The one written last by this run."""
    _owes: bool = field(default=False, init=False)

    def save(self, trainer: CoreTrainer) -> None:
        """Write ``checkpoint-STEP``, move the links, delete what is too old. Once a step."""
        state = trainer.state
        target = self.folder / f"checkpoint-{state.global_step}"
        owes = trainer.job.interruption.owes_evaluation
        if self.last == target and self._owes == owes:
            return
        best = self._best(trainer, target)
        if best is not None:
            state.best_model_checkpoint = str(best)
        # Every process has its own random state; one writes.
        random_states = [] if self.only_model else trainer.processes.gather(_random_state(trainer))
        whole = _Whole.of(trainer, only_model=self.only_model)
        if trainer.args.should_save:
            facts = {"step": state.global_step, "epoch": state.epoch, "owes_evaluation": owes, **self.facts}
            write_checkpoint(target, lambda folder: self._fill(folder, trainer, random_states, whole), facts=facts)
            if best is not None and self.links:
                point(self.folder / "best", best)
            if self.keep is not None:
                prune(self.folder, self.keep, [best] if best is not None else [])
            if not self.links:
                (self.folder / "last").unlink(missing_ok=True)
        self.last, self._owes = target, owes

    def _best(self, trainer: CoreTrainer, target: Path) -> Path | None:
        """Return which of the checkpoints that there are was evaluated best; upstream asks for the best evaluation."""
        metric = trainer.args.metric_for_best_model or "loss"
        name = metric if metric.startswith("eval_") else f"eval_{metric}"
        lines = [line for line in trainer.state.log_history if math.isfinite(line.get(name, math.nan))]
        found = [(line[name], self.folder / f"checkpoint-{line['step']}") for line in lines]
        saved = [(value, folder) for value, folder in found if folder == target or folder.is_dir()]
        choose = max if trainer.args.greater_is_better else min
        return choose(saved, key=lambda pair: pair[0])[1] if saved else None

    def _fill(self, folder: Path, trainer: CoreTrainer, random_states: list[bytes], whole: _Whole) -> None:
        self.save_weights(folder, whole.weights)
        settings = self.folder / "args.json"
        if settings.is_file():
            shutil.copyfile(settings, folder / settings.name)
        _note_callbacks(trainer)
        trainer.state.save_to_json(str(folder / STATE))
        if self.only_model:
            return
        parameters = trained_parameters(trainer)
        save_state(folder / OPTIMIZER, {"optimizer": whole.optimizer, "parameters": parameters})
        save_state(folder / SCHEDULER, trainer.lr_scheduler.state_dict())
        if getattr(trainer.accelerator, "scaler", None) is not None:
            save_state(folder / SCALER, trainer.accelerator.scaler.state_dict())
        for rank, data in enumerate(random_states):
            (folder / random_file(rank, len(random_states))).write_bytes(data)


@dataclass
class _Whole:
    """State that processes may hold in parts, put together where a checkpoint is written."""

    weights: dict[str, Tensor] | None
    optimizer: dict[str, Any]

    @classmethod
    def of(cls, trainer: CoreTrainer, *, only_model: bool) -> _Whole:
        """Put it together; all processes must call this."""
        model, keep = trainer.accelerator.unwrap_model(trainer.model), trainer.args.should_save
        weights = whole_weights(model, keep=keep)
        if only_model:
            return cls(weights, {})
        return cls(weights, whole_optimizer(trainer.optimizer, trainer.trained_groups(), keep=keep))


def _random_state(trainer: CoreTrainer) -> bytes:
    """Return this process's random state, and what its loop has gathered since the last log line."""
    with TemporaryDirectory() as folder:
        file = Path(folder, "state.safetensors")
        save_state(file, {"random": rng_state(), "loop": trainer.loop_state()})
        return file.read_bytes()


def _note_callbacks(trainer: CoreTrainer) -> None:
    """Keep the state of callbacks that export it, in the form that upstream gives it."""
    found: dict[str, list[Any]] = {}
    for one in (*trainer.callback_handler.callbacks, trainer.control):
        if isinstance(one, ExportableState):
            found.setdefault(type(one).__name__, []).append(one.state())
    trainer.state.stateful_callbacks = {
        name: states[0] if len(states) == 1 else states for name, states in found.items()
    }


@contextmanager
def quiet() -> Iterator[None]:
    """Hide the progress bars of transformers, which would tear ours."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def save_generation_config(model: Any, folder: Path, stop_ids: frozenset[int]) -> None:
    """Write ``generation_config.json``, with the tokens that end an answer in training among those that end one.

    One that cannot be written must not cost the trained weights: a plain one takes its place, and that is told.
    """
    config = getattr(model, "generation_config", None)
    if config is None:
        return
    try:
        _with_stops(copy.deepcopy(config), stop_ids).save_pretrained(folder)
    except (AttributeError, TypeError, ValueError) as error:
        _log.warning(
            "The model's generation_config.json cannot be written (%s): the checkpoint gets one that holds its stop "
            "tokens alone. Mend that of the model.",
            " ".join(str(error).split()),
        )
        _with_stops(GenerationConfig(), stop_ids).save_pretrained(folder)


def _with_stops(config: Any, stop_ids: frozenset[int]) -> Any:
    known = config.eos_token_id
    known = [] if known is None else list(known) if isinstance(known, list | tuple) else [known]
    config.eos_token_id = sorted({*known, *stop_ids}) or None
    if config.pad_token_id is None and config.eos_token_id:
        config.pad_token_id = config.eos_token_id[0]
    return config
