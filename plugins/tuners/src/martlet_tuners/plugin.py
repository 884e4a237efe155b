"""Tuners ``full`` and ``lora``, and their flags."""

from __future__ import annotations

from collections.abc import Iterator

from martlet import Arguments, Tuner, hookimpl


@hookimpl
def provide_arguments() -> Iterator[Arguments]:
    yield Arguments(
        "tuner",
        "martlet_tuners.args:TunerArguments",
        roles=("tuner",),
        restored_by="load_args",
        summary="Where adapters go.",
    )
    yield Arguments(
        "full",
        "martlet_tuners.args:FullArguments",
        roles=("tuner",),
        restored_by="load_args",
        only_for=(("tuners", "full"),),
        summary="Which part of the weights is trained.",
    )
    yield Arguments(
        "lora",
        "martlet_tuners.args:LoraArguments",
        roles=("tuner",),
        restored_by="load_args",
        only_for=(("tuners", "lora"),),
        summary="Size and form of the adapters.",
    )


@hookimpl
def provide_tuners() -> Iterator[Tuner]:
    yield Tuner(
        "full",
        "martlet_tuners.full:FullTuner",
        defaults={"learning_rate": 1e-5},
        summary="Train all weights of the model, or the part that freeze_* and trainable_* leave.",
    )
    yield Tuner(
        "lora",
        "martlet_tuners.lora:LoraTuner",
        mergeable=True,
        defaults={"learning_rate": 1e-4},
        summary="Train low-rank adapters beside frozen weights; saved as PEFT saves them.",
    )
