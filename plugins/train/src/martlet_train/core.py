"""The core of every training command: rows, model, tuner and an algorithm become a run."""

from __future__ import annotations

import gc
import logging
import shlex
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from martlet import Callback, MartletError, Model, Run, Template, Tuner, UsageError
from martlet.protocols import BoundTemplate, LoadedModel, TrainResult
from martlet_data.api import Prepared, SampleStream

from .args import TrainArguments, TrainerArguments
from .output import choose_folder

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import TrainingArguments

    from .algorithm import Algorithm
    from .interruption import Interruption
    from .resuming import Resume
    from .trainer import CoreTrainer
    from .watch import Watch

log = logging.getLogger("martlet")


def fit(run: Run, algorithm: Algorithm) -> TrainResult:
    """Train with ``algorithm`` as the flags of ``run`` say, and return where the result is.

    In this order, so that mistakes show early: output folder, tokenizer, flags, rows, weights.
    """
    from .joining import join
    from .watch import Watch

    with Watch(run, join(run)) as watch:
        return _fit(run, algorithm, watch)


def _fit(run: Run, algorithm: Algorithm, watch: Watch) -> TrainResult:
    folder = choose_folder(run).absolute()
    if watch.meeting is not None:
        from .agreement import agree_on_rows, agree_on_run

        agree_on_run(watch.meeting, run)
        folder = Path(watch.meeting.exchange("folder", str(folder))[0])
    models = run.one(Model)
    processor = models.load_processor(run)
    template = run.one(Template).bind(processor, run)
    from .checkpoint import sweep
    from .deepspeed import loaded_type, loading_in_parts
    from .interruption import Interruption
    from .reference import check_reference
    from .training_arguments import training_arguments

    args = training_arguments(run, folder)
    resume = _checkpoint(run)
    check_reference(run, algorithm, processor)
    _try_tuner(run, models, resume, args)
    if resume is None and (folder / "run.json").exists():
        run.warn(f"{folder} holds an earlier run: its records are replaced, its checkpoints and links stay.")
    run.open(folder)
    if run.process.rank == 0:
        sweep(folder)
    prepared = algorithm.data(run, template)
    if watch.meeting is not None:
        agree_on_rows(watch.meeting, prepared.fingerprint)
    with loading_in_parts(args, partial(loaded_type, models, run)):
        loaded, model = _model(run, models, resume)
    with Interruption(run.process) as interruption:
        setup = Setup(run, algorithm, args, template, prepared, loaded, model, resume, interruption, watch)
        trainer = setup.trainer()
        setup.announce(trainer)
        try:
            with setup.reporter:
                metrics = _train(trainer)
        finally:
            prepared.finish()
    checkpoint = trainer.job.checkpoints.last
    _upload(run, checkpoint)
    _tell_where(run, checkpoint)
    return TrainResult(run.folder or folder, checkpoint, metrics, prepared.ledger.as_dict())


def _checkpoint(run: Run) -> Resume | None:
    flags = run.config[TrainerArguments]
    if not flags.resume_from_checkpoint:
        return None
    from .resuming import Resume

    path = Path(flags.resume_from_checkpoint)
    resume = Resume.open(path, weights_only=flags.resume_only_model, skip=not flags.ignore_data_skip)
    resume.check_tuner(run)
    resume.check_optimizer(run)
    return resume


def _try_tuner(run: Run, models: Any, resume: Resume | None, args: TrainingArguments) -> None:
    """Let the tuner choose on a model without memory: what it refuses should not wait until every row is encoded."""
    from .deepspeed import check_types

    if resume is None and not run.config.is_set("adapters"):
        with suppress(NotImplementedError, RuntimeError):  # what cannot be done without weights
            tuned = run.one(Tuner).apply(models.skeleton(run), run)
            for parameter in tuned.parameters():
                if parameter.requires_grad:
                    check_types(args, parameter.dtype)


def _model(run: Run, models: Any, resume: Resume | None) -> tuple[LoadedModel, nn.Module]:
    """Load the model and let the tuner decide what is trained; from the checkpoint's weights when resuming."""
    from transformers import set_seed

    set_seed(run.seed)
    loaded: LoadedModel = models.load(run, for_training=True)
    tuner = run.one(Tuner)
    if resume is not None:
        return loaded, tuner.load(loaded.model, resume.folder, trainable=True)
    if loaded.adapters:
        name, path = loaded.adapters[0]
        if len(loaded.adapters) > 1:
            raise UsageError("--adapters: training continues one adapter; name one.")
        _tell_unread(run, tuner, path)
        return loaded, tuner.load(loaded.model, path, trainable=True, name=name)
    return loaded, tuner.apply(loaded.model, run)


def _tell_unread(run: Run, tuner: Any, adapter: Path) -> None:
    """Warn of flags by which something else would be trained than the adapter that training goes on with."""
    read = getattr(tuner, "read_on_load", ())
    for flag, _, origin in run.config:
        mine = "tuner" in flag.group.roles and flag.name not in read
        if mine and origin.given and origin.source != "args.json":
            run.warn(f"--{flag.name} has no effect: training goes on with the adapter in {adapter} as it is.")


@dataclass
class Setup:
    """What a run is made of, and how the trainer is put together from it."""

    run: Run
    algorithm: Algorithm
    args: TrainingArguments
    template: BoundTemplate
    prepared: Prepared
    loaded: LoadedModel
    model: nn.Module
    resume: Resume | None
    interruption: Interruption
    watch: Watch

    def __post_init__(self) -> None:
        self.flags = self.run.config[TrainerArguments]
        self.ours = self.run.config[TrainArguments]

    def trainer(self) -> CoreTrainer:
        """Build everything that has to be in place before the first step."""
        from .feeding import Feeding
        from .reference import Reference
        from .reporting import Reporter
        from .scoring import Scorer
        from .sharded import fetching, place
        from .trainer import CoreTrainer, Job

        self.reporter = Reporter(self.run, report_to=self.flags.report_to, logging_dir=_path(self.flags.logging_dir))
        self._prepare_model()
        feeding = Feeding(self.run, self.algorithm, self.args, self.template, self.prepared, self.loaded.processor)
        reference = Reference.choose(self.run, self.algorithm, self.loaded, self.model)  # may put an adapter into it
        if not self.args.fsdp:
            place(self.model, self.args.device)
        with fetching(self.model, self.args.device):
            feeding.check_layout(self.model)
            balance = self.flags.router_aux_loss_coef
            scorer = Scorer(self.model, keep=self.ours.use_logits_to_keep, router_weight=balance)
        self.run.note("forward", {"output_layer": scorer.way, **feeding.attention})
        self.loader, facts = feeding.training()
        self.units_per_step = facts["units_per_step"]
        if self.resume is not None:
            if self.resume.position is not None:  # the first step was before the checkpoint
                self.args.eval_on_start = self.resume.owes_evaluation and self.args.eval_strategy != "no"
            self.resume.check(facts)
            self.resume.warn_of_changes(self.run)
            self.resume.restore_rows(self.prepared, self.loader, self.args)
        groups = getattr(self.run.one(Tuner), "parameter_groups", None)
        job = Job(
            run=self.run,
            algorithm=self.algorithm,
            model=self.model,
            scorer=scorer,
            args=self.args,
            train_loader=self.loader,
            eval_loader=feeding.evaluation(),
            checkpoints=self._checkpoints(facts),
            interruption=self.interruption,
            resume=self.resume,
            parameter_groups=groups(self.model, self.run) if groups else None,
            callbacks=self._callbacks(),
            exact_mean=self.flags.average_tokens_across_devices,
            share_rows=self.prepared.share,
            reference=reference,
        )
        trainer = CoreTrainer(job)
        if reference is not None:
            reference.start(trainer, feeding)
        return trainer

    def _prepare_model(self) -> None:
        from .training_arguments import set_precision

        base = self.loaded.model
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        if not trained:
            raise UsageError("Nothing is trained: every parameter is frozen. Change the flags of the tuner.")
        weights = next((p.dtype for p in base.parameters() if p.is_floating_point()), trained[0].dtype)
        narrowest = min((parameter.dtype for parameter in trained), key=lambda dtype: dtype.itemsize)
        set_precision(self.args, self.run, weights, narrowest)
        if getattr(base.config, "_attn_implementation", "") == "flex_attention" and self.args.device.type == "cpu":
            raise UsageError("--attn_impl flex_attention has no gradient on a CPU. Use --attn_impl sdpa.")
        if self.flags.gradient_checkpointing and not getattr(base, "supports_gradient_checkpointing", False):
            if self.run.config.is_set("gradient_checkpointing"):
                raise UsageError(f"--gradient_checkpointing true: {type(base).__name__} cannot. Leave the flag out.")
            self.args.activation_checkpointing = False
        if self.args.ddp_find_unused_parameters is None:  # transformers would always do it for an adapter
            self.args.ddp_find_unused_parameters = not self.args.activation_checkpointing

    def _checkpoints(self, facts: dict[str, Any]) -> Any:
        from .resuming import options_of
        from .saving import Checkpoints

        return Checkpoints(
            folder=self.run.folder or Path(self.args.output_dir or "."),
            save_weights=self._save_weights,
            facts=facts | {"options": options_of(self.run)},
            keep=self.flags.save_total_limit,
            only_model=self.flags.save_only_model,
            links=self.ours.create_checkpoint_symlink,
        )

    def _save_weights(self, folder: Path, whole: dict[str, Tensor] | None) -> None:
        from .saving import quiet, save_generation_config
        from .streaming import StreamLoader

        with quiet():
            self.run.one(Tuner).save(self.model, folder, whole)
        self.loaded.processor.save_pretrained(folder)
        save_generation_config(self.loaded.model, folder, self.template.stop_ids)
        self.prepared.save(folder)
        if isinstance(self.loader, StreamLoader):
            self.loader.save(folder)

    def _callbacks(self) -> list[Any]:
        from .epochs import CountUnits
        from .interruption import StopAfterEpochs, StopOnSignal
        from .shaped import Agreed, shaped
        from .streaming import CountPasses, StreamLoader
        from .watch import TellSteps

        of_tuner = getattr(self.run.one(Tuner), "callbacks", None)
        theirs = shaped([*(of_tuner(self.run) if of_tuner else ()), *self.run.all(Callback)])
        found = [*theirs, *([Agreed()] if theirs and self.args.world_size > 1 else []), self.reporter]
        if isinstance(self.loader, StreamLoader):
            found.insert(0, CountPasses(self.loader))
        else:
            found.insert(0, CountUnits(self.loader, self.units_per_step))
        if self.flags.max_epochs is not None:
            found.append(StopAfterEpochs(self.flags.max_epochs))
        counted = not isinstance(self.loader, StreamLoader)
        stop = StopOnSignal(self.interruption, save=self.flags.save_strategy != "no", epochs=counted)
        return [TellSteps(self.watch), *found, stop]

    def announce(self, trainer: CoreTrainer) -> None:
        """Show a person the first row as the model will see it, and how much there is to do."""
        from .preview import show_sample
        from .sharded import size

        if self.run.process.rank == 0 and log.isEnabledFor(logging.INFO):
            train = self.prepared.train
            sample = train.sample if isinstance(train, SampleStream) else train[0]
            if sample is not None:
                show_sample(sample, self.loaded.processor)
        trained = sum(size(p) for p in self.model.parameters() if p.requires_grad)
        total = sum(size(p) for p in self.model.parameters())
        steps = trainer.total_steps()
        self.reporter.images = steps > 1  # one point is no curve, and drawing takes longer than a step
        share, unit = 100 * trained / max(total, 1), "packs" if self.ours.packing else "rows"
        log.info("%s of %s parameters are trained (%.2f%%).", f"{trained:,}", f"{total:,}", share)
        log.info("%s steps; %s in a step: %s.", f"{steps:,}", unit, self.units_per_step)
        self.run.note("training", {"trainable_parameters": trained, "parameters": total, "steps": steps})


def _train(trainer: CoreTrainer) -> dict[str, float]:
    """Run the loop to its end, or to a checkpoint when a signal came."""
    import torch

    from .interruption import Stopped, raise_if_interrupted, tell_last

    resume = trainer.job.resume
    position = resume.position if resume else None
    if resume is not None and position is not None and resume.step >= trainer.total_steps():
        trainer.job.run.warn(f"{resume.folder} is at step {resume.step}: there is nothing left to train.")
        trainer.job.checkpoints.last = resume.folder
        return {}
    # What exists now stays until the end: forked data workers share its memory, and no collection walks through it.
    gc.freeze()
    try:
        trainer.train(resume_from_checkpoint=str(position) if position else None)
    except Stopped:
        trainer.end_early()
    except KeyboardInterrupt:
        tell_last(trainer)
        raise
    except torch.OutOfMemoryError as error:
        raise MartletError(
            f"The device ran out of memory in step {trainer.state.global_step + 1}. Lower "
            "--per_device_train_batch_size (--gradient_accumulation_steps makes up for it), --max_length or "
            "--packing_length, or use --gradient_checkpointing true."
        ) from error
    except RuntimeError as error:
        if "find_unused_parameters" not in str(error):
            raise
        raise MartletError(
            "Some of the parameters that are trained take no part in the loss, and the other processes wait for their "
            "gradients. Freeze them, or add --ddp_find_unused_parameters true."
        ) from error
    finally:
        gc.unfreeze()
    trainer.save_last()
    trainer.share_rows()
    trainer.share()
    raise_if_interrupted(trainer)
    return trainer.final_metrics()


def _tell_where(run: Run, checkpoint: Path | None) -> None:
    if run.process.rank != 0:
        return
    if checkpoint is None:
        log.warning("No checkpoint was written (--save_strategy no); the log is in %s.", run.folder)
        return
    log.info("The last checkpoint is %s", checkpoint)
    writes = next((value for flag, value, _ in run.config if flag.name == "task_type"), "causal_lm") == "causal_lm"
    use, rows = ("To talk to it", "") if writes else ("To score with it", " --val_dataset FILE")
    for file, flag in (("adapter_config.json", "adapters"), ("config.json", "model")):
        if (checkpoint / file).exists():
            log.info("%s: martlet infer --%s %s%s", use, flag, shlex.quote(str(checkpoint)), rows)
            return


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None


def _upload(run: Run, checkpoint: Path | None) -> None:
    flags = run.config[TrainerArguments]
    if not flags.push_to_hub or checkpoint is None or run.process.rank != 0:
        return
    from martlet import Hub

    place = run.one(Hub).upload(
        checkpoint, flags.hub_model_id, private=flags.hub_private_repo, message=f"martlet {run.command}", run=run
    )
    log.info("Uploaded %s to %s.", checkpoint.name, place)
