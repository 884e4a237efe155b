"""Model loading: the flags of every command that reads a model, and the loader behind them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from martlet import Arguments, Model, hookimpl

if TYPE_CHECKING:
    from martlet import Config


@hookimpl
def provide_arguments() -> Iterator[Arguments]:
    yield Arguments(
        "model",
        "martlet_models.args:ModelArguments",
        roles=("model",),
        restored_by="load_args",
        resolve="martlet_models.resolve:choose",
        summary="Which model to use.",
    )
    yield Arguments(
        "loading",
        "martlet_models.args:LoadingArguments",
        roles=("weights", "train", "infer"),
        restored_by="load_args",
        summary="How the weights are read, and what is trained of them.",
    )


@hookimpl
def provide_models() -> Iterator[Model]:
    yield Model(
        "default",
        "martlet_models.loader:DefaultLoader",
        summary="Any causal language model that transformers can load, also with a score head in place of its own.",
    )


@hookimpl
def on_config(config: Config) -> None:
    from .args import LoadingArguments, ModelArguments
    from .check import check_settings
    from .tasks import check_flags

    if ModelArguments in config:
        origin = config.origin("model")
        recorded = f"{origin.detail}/args.json" if origin.source == "args.json" else ""
        weights = LoadingArguments in config
        check_settings(config[ModelArguments], config[LoadingArguments] if weights else None, recorded)
        check_flags(config)
