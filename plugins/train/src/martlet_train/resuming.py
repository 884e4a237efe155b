"""Continue a run from a checkpoint, to the bit, or say why that is not possible."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch.optim.lr_scheduler import ReduceLROnPlateau

from martlet import CheckpointError, Loss, Model, Run, Trainer, Tuner, UsageError

from .checkpoint import follow, verify
from .sharded import load_whole_optimizer, shape
from .state import load_optimizer, load_state, set_rng_state
from .streaming import StreamLoader

if TYPE_CHECKING:
    from transformers import TrainingArguments

    from martlet_data.api import Prepared

    from .loading import Loader
    from .trainer import CoreTrainer

OPTIMIZER = "optimizer.safetensors"
SCHEDULER = "scheduler.safetensors"
SCALER = "scaler.safetensors"
STATE = "trainer_state.json"
SAME = {
    "rows": "the training rows (--dataset, --columns, --max_length, template, --data_seed, --streaming, ...)",
    "order": "the order of the rows (--data_seed, --train_dataloader_shuffle, --group_by_length, --packing_length, "
    "--packing_num_proc)",
    "units_per_step": "the rows in a step (batch size × accumulation × processes)",
}
"""Facts of a checkpoint that place a run among its rows, and how to name them."""

STEERING = (
    "num_train_epochs", "max_steps", "learning_rate", "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_ratio",
    "warmup_steps", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "optim", "optim_args", "max_grad_norm",
    "neftune_noise_alpha", "label_smoothing_factor", "router_aux_loss_coef", "bf16", "fp16", "loss_type", "model",
    "torch_dtype",
)  # fmt: skip
"""Flags that change the result, beside all of the algorithm's; with other values than before, resuming is not exact."""

ADAMW = frozenset({"adamw_torch", "adamw_torch_fused"})
"""Values of ``--optim`` that compute the same from the same state."""


def options_of(run: Run) -> dict[str, str]:
    """Return what ``--set`` says to a run's components that steer it: ``loss.NAME.OPTION`` and its value."""
    used = {(one["kind"], one["name"]) for one in run.record.components}
    return {
        f"{spec.label}.{name}.{option}": str(value)
        for spec in (Loss, Model, Trainer, Tuner)
        for (kind, name), given in run.config.options.items()
        if kind == spec.kind and (kind, name) in used
        for option, value in given.items()
    }


def random_file(rank: int, world_size: int) -> str:
    """Return the name of a process's random state in a checkpoint."""
    return "random_state.safetensors" if world_size == 1 else f"random_state_{rank}.safetensors"


@dataclass
class Resume:
    """A verified checkpoint, and how much of it to take up."""

    folder: Path
    facts: dict[str, Any]
    weights_only: bool
    """Take the weights and the position alone."""
    skip: bool
    """Continue behind the rows that were trained on."""

    @classmethod
    def open(cls, path: Path, *, weights_only: bool, skip: bool) -> Resume:
        """Check every file; ``CheckpointError`` when something is missing or altered, or too little was saved."""
        folder = follow(path) or path
        index = verify(folder)
        if not weights_only and OPTIMIZER not in index["files"]:
            raise CheckpointError(
                f"{folder} holds no optimizer state (it was written with --save_only_model true). "
                "Add --resume_only_model true to continue with its weights and a new optimizer."
            )
        return cls(folder, index["facts"], weights_only, skip)

    @property
    def position(self) -> Path | None:
        """The folder whose ``trainer_state.json`` the loop continues from; None to begin at step 0."""
        return None if self.weights_only and not self.skip else self.folder

    @property
    def owes_evaluation(self) -> bool:
        """A signal came when the step was to be evaluated, and the evaluation was put off."""
        return bool(self.facts.get("owes_evaluation"))

    def check(self, facts: dict[str, Any]) -> None:
        """Compare the checkpoint's facts with those of this run, where the position depends on them."""
        if not self.skip:
            return
        for key, what in SAME.items():
            if self.facts.get(key) != facts[key]:
                raise CheckpointError(
                    f"--resume_from_checkpoint {self.folder}: {what} differ from those of the checkpoint, so the place "
                    "in the data is lost. Use the same flags, or --ignore_data_skip true to begin the epoch anew."
                )

    def restore_rows(self, prepared: Prepared, loader: Loader | StreamLoader, args: TrainingArguments) -> None:
        """Let a stream go on behind the last batch; where the rows are at hand, the loop skips batches itself."""
        if not self.skip:
            return
        prepared.restore(self.folder)
        if isinstance(loader, StreamLoader):
            loader.restore(self.folder)
            args.ignore_data_skip = True

    def check_tuner(self, run: Run) -> None:
        """Refuse flags by which something else would be trained: the checkpoint decides that, not they."""
        before = self._settings()
        for flag, now, origin in run.config:
            then = before.get(flag.name, now)
            if "tuner" in flag.group.roles and origin.given and now != then:
                raise UsageError(
                    f"--{flag.name} {now}: {self.folder} was made with {then}, and training goes on with what it "
                    f"holds. Leave the flag out, or start anew without --resume_from_checkpoint."
                )

    def check_optimizer(self, run: Run) -> None:
        """Refuse an optimizer that cannot go on from the state of the checkpoint's."""
        now = run.config.value("optim")
        then = self._settings().get("optim", now)
        if now != then and not self.weights_only and not {now, then} <= ADAMW:
            raise UsageError(
                f"--optim {now}: {self.folder} was made with {then}, whose state {now} cannot take up. Use --optim "
                f"{then}, or take the weights alone with --resume_only_model true."
            )

    def warn_of_changes(self, run: Run) -> None:
        """Tell the user which settings are not those of the checkpoint."""
        before = self._settings()
        now = run.record.values()  # written as in args.json: a path that exists is whole
        changed = [
            f"{flag} ({before[flag]} then, {now[flag]} now)"
            for flag in (*STEERING, *(flag.name for flag in run.config.flags if "rlhf" in flag.group.roles))
            if flag in before and before[flag] != now.get(flag)
        ]
        given = options_of(run)
        then: dict[str, Any] = self.facts.get("options", given)
        for name in sorted(name for name in {*then, *given} if then.get(name) != given.get(name)):
            was, is_now = (values.get(name, "its default") for values in (then, given))
            changed.append(f"--set {name} ({was} then, {is_now} now)")
        if changed and not self.weights_only:
            run.warn(
                f"{self.folder} was made with other settings: {', '.join(changed)}. The optimizer keeps its own from "
                "then; this is not an exact continuation."
            )

    def _settings(self) -> dict[str, Any]:
        file = self.folder / "args.json"
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        return found

    def load_optimizer(self, trainer: CoreTrainer) -> None:
        """Put back the optimizer and the schedule."""
        if not self.weights_only:
            saved = load_state(self.folder / OPTIMIZER)
            self._match(saved["parameters"], trained_parameters(trainer))
            if not load_whole_optimizer(trainer.optimizer, saved["optimizer"], trainer.trained_groups()):
                load_optimizer(trainer.optimizer, saved["optimizer"])
            trainer.lr_scheduler.load_state_dict(load_state(self.folder / SCHEDULER))
            return
        with warnings.catch_warnings():
            # The schedule is a function of the step; its optimizer has not stepped here, and torch warns of that.
            warnings.simplefilter("ignore", UserWarning)
            for _ in range(self.step if not isinstance(trainer.lr_scheduler, ReduceLROnPlateau) else 0):
                trainer.lr_scheduler.step()

    def load_callbacks(self, trainer: CoreTrainer) -> None:
        """Put back what callbacks exported: how long an early stop has been patient, say."""
        if self.weights_only:
            return
        for name, states in trainer.state.stateful_callbacks.items():
            mine = [one for one in trainer.callback_handler.callbacks if type(one).__name__ == name]
            for callback, state in zip(mine, states if isinstance(states, list) else [states], strict=False):
                for attribute, value in state.get("attributes", {}).items():
                    setattr(callback, attribute, value)

    @property
    def step(self) -> int:
        """The optimizer step after which the checkpoint was written."""
        return int(json.loads((self.folder / STATE).read_text(encoding="utf-8"))["global_step"])

    def _match(self, saved: list[Any], mine: list[Any]) -> None:
        if saved != mine:
            before, now = ({name for group in groups for name, _ in group} for groups in (saved, mine))
            changed = sorted(before ^ now) or ["their shapes or groups"]
            raise CheckpointError(
                f"--resume_from_checkpoint {self.folder}: other parameters are trained now than then"
                f" ({', '.join(changed[:3])}{', ...' if len(changed) > 3 else ''}). Use the same flags of the tuner."
            )

    def load_scaler(self, trainer: CoreTrainer) -> None:
        """Put back the loss scale of fp16."""
        scaler = getattr(trainer.accelerator, "scaler", None)
        if scaler is not None and not self.weights_only:
            scaler.load_state_dict(load_state(self.folder / SCALER))

    def load_random_state(self, trainer: CoreTrainer) -> None:
        """Put back this process's random state and what the loop had gathered for the next log line."""
        if self.weights_only:
            return
        rank, size = trainer.args.process_index, trainer.args.world_size
        files = [self.folder / random_file(one, size) for one in range(size)]
        written = sorted(self.folder.glob("random_state*.safetensors"))
        same = sorted(files) == written
        if not same:
            trainer.job.run.warn(
                f"{self.folder} was written by another number of processes: the rows continue where they were, but "
                "random numbers (dropout) do not."
            )
        states = [load_state(file) for file in ([files[rank]] if same else written)]
        if any(state["loop"].keys() != trainer.loop_state().keys() for state in states):
            raise CheckpointError(
                f"{written[0]} was made by another version of martlet-train, whose state this one cannot take up. "
                "Continue with that version, or take the weights alone with --resume_only_model true."
            )
        if same:
            set_rng_state(states[0]["random"])
        if states:  # what is logged is the mean over processes, so each of another number of them begins with that
            mean = sum(state["loop"]["loss"] for state in states) / len(states)
            trainer.set_loop_state({**states[0]["loop"], "loss": mean})


def trained_parameters(trainer: CoreTrainer) -> list[list[Any]]:
    """Return name and shape of the optimizer's parameters, group by group, in its order."""
    names = {id(parameter): name for name, parameter in trainer.model.named_parameters()}
    return [
        [[names.get(id(parameter), "?"), shape(parameter)] for parameter in group] for group in trainer.trained_groups()
    ]
