"""What martlet-train adds: the training commands, their flags, trainers and losses."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from martlet import Arguments, Command, Loss, Trainer, hookimpl

if TYPE_CHECKING:
    from martlet import Config

ROLES = ("model", "template", "data", "train", "tuner")


@hookimpl
def provide_commands() -> Iterable[Command]:
    yield Command(
        "pt",
        "martlet_train.sft:main",
        summary="Continue pre-training on plain text.",
        roles=ROLES,
        plan="martlet_train.plan:plan",
        folder="martlet_train.output:choose_folder",
        defaults={"use_chat_template": False, "loss_scale": "all"},
    )
    yield Command(
        "sft",
        "martlet_train.sft:main",
        summary="Fine-tune on conversations (supervised fine-tuning).",
        roles=ROLES,
        plan="martlet_train.plan:plan",
        folder="martlet_train.output:choose_folder",
    )
    yield Command(
        "rlhf",
        "martlet_train.rlhf:main",
        summary="Align a model with preferences, by the algorithm that --rlhf_type names.",
        roles=(*ROLES, "rlhf"),
        plan="martlet_train.plan:plan",
        folder="martlet_train.output:choose_folder",
        defaults={"loss_scale": "last_round"},
    )
    yield Command(
        "verify-resume",
        "martlet_train.verify:main",
        raw=True,
        summary="Check that a training command, interrupted and resumed, does what it does uninterrupted.",
    )


@hookimpl
def provide_arguments() -> Iterable[Arguments]:
    yield Arguments(
        "trainer",
        "martlet_train.args:TrainerArguments",
        summary="the training loop",
        roles=("train",),
        resolve="martlet_train.resolve:choose_trainer",
    )
    yield Arguments(
        "train",
        "martlet_train.args:TrainArguments",
        summary="packing, loss, callbacks",
        roles=("train",),
        resolve="martlet_train.resolve:choose_train",
    )
    yield Arguments(
        "rlhf",
        "martlet_train.args:RlhfArguments",
        summary="alignment: the algorithm and its reference model",
        roles=("rlhf",),
    )


@hookimpl
def provide_trainers() -> Iterable[Trainer]:
    yield Trainer("pt", "martlet_train.sft:sft", summary="next-token loss on all tokens")
    yield Trainer("sft", "martlet_train.sft:sft", summary="next-token loss on the model's own turns")


@hookimpl
def provide_losses() -> Iterable[Loss]:
    yield Loss("cross_entropy", "martlet_train.losses:cross_entropy", summary="negative log-likelihood")
    yield Loss("dft", "martlet_train.losses:dft", summary="dynamic fine-tuning: weighted by each token's probability")


@hookimpl
def on_config(config: Config) -> None:
    """Refuse settings that contradict one another."""
    from .resolve import check

    check(config)
