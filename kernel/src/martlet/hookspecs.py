"""Every hook a plugin may implement.

Two shapes, told apart by their first word:

``provide_*``  takes nothing and yields specs. Called at most once per process, only
               when something of that kind is first asked for. Must be cheap: no torch.
``on_*``       is told that something happened and returns nothing.

There are no ``firstresult`` hooks, no wrappers and no ``tryfirst``: which component is
used is the user's choice (by name), and the order of a list is the order the user wrote.
What a target must be able to do is spelled out in ``martlet.protocols``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from . import specs as s
    from .config import Config
    from .run import Process, Run

PROJECT = "martlet"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

# Command line


@hookspec
def provide_commands() -> Iterable[s.Command]:
    """Add subcommands; a name may have two words.

    Target: ``(run: Run) -> result``. An int is the exit status; anything else is what ``martlet.run`` returns.
    Selected by: the first words of the command line.
    """
    return ()


@hookspec
def provide_arguments() -> Iterable[s.Arguments]:
    """Add a group of flags to every command that takes one of its roles.

    Target: a dataclass. Each field is a flag, its type annotation the parser, its docstring the help.
    ``metadata`` keys: ``component`` (kind whose names are its values), ``unset`` (name used for None),
    ``choices``, ``ge``, ``gt``, ``le``, ``lt``, ``env``, ``path``, ``checkpoint``, ``restore``, ``important``.
    """
    return ()


# Models and text


@hookspec
def provide_models() -> Iterable[s.Model]:
    """Add model families: which checkpoints they cover and how to load them.

    Target: a ``protocols.ModelLoader`` class; None for the ``default`` loader with this spec's facts.
    Selected by: ``--model_type``, else by checkpoint id, else by ``config.json``.
    """
    return ()


@hookspec
def provide_model_patches() -> Iterable[s.ModelPatch]:
    """Add changes to a model around its loading.

    Target: an object with ``before_load(config, kwargs, run)`` and ``after_load(model, processor, run)``.
    Selected by: ``--model_patches a b``, applied in that order, or a flag (``enabled_by``).
    """
    return ()


@hookspec
def provide_templates() -> Iterable[s.Template]:
    """Add chat templates: messages in, token ids and the loss mask out.

    Target: a ``protocols.Template`` class; most templates need only the declarative fields.
    Selected by: ``--template``, else by the model.
    """
    return ()


@hookspec
def provide_loss_scales() -> Iterable[s.LossScale]:
    """Add rules that weight the tokens of a conversation in the loss.

    Target: ``(messages, spans) -> one weight a span``, or pieces ``(text, weight)`` that join to its text.
    Selected by: ``--loss_scale a+b``; chained left to right, weights multiply.
    """
    return ()


# Data


@hookspec
def provide_datasets() -> Iterable[s.Dataset]:
    """Add named datasets.

    Target: ``(row: dict) -> dict | list[dict] | None``; standard rows, or None to drop it. None: by its columns.
    Selected by: ``--dataset name[:subset][#count]``.
    """
    return ()


@hookspec
def provide_dataset_sources() -> Iterable[s.DatasetSource]:
    """Add places rows come from; ``name`` is the scheme in ``scheme::path``.

    Target: ``(path, *, subset, split, run) -> iterable of rows``.
    Selected by: the scheme, else by the file's ending.
    """
    return ()


@hookspec
def provide_preprocessors() -> Iterable[s.Preprocessor]:
    """Add row converters that recognise a layout (alpaca, sharegpt, ...) by its columns.

    Target: ``(row: dict) -> dict | list[dict] | None``, pure.
    Selected by: ``columns`` being among the row's.
    """
    return ()


# Training


@hookspec
def provide_trainers() -> Iterable[s.Trainer]:
    """Add training loops. A loop is ordinary code, readable from top to bottom.

    Target: ``(run: Run) -> TrainResult``.
    Selected by: the training commands.
    """
    return ()


@hookspec
def provide_tuners() -> Iterable[s.Tuner]:
    """Add ways to choose what is trained.

    Target: a class with ``apply(model, run)``, ``save(model, path)``, ``load(model, path)`` and,
    if it can, ``merge(model)``.
    Selected by: ``--tuner_type``.
    """
    return ()


@hookspec
def provide_losses() -> Iterable[s.Loss]:
    """Add loss functions.

    Target, contract ``token``: ``(logits (N, V), labels (N,)) -> (N,)``, one loss a token; 0 where the label is -100.
    Selected by: ``--loss_type``.
    """
    return ()


@hookspec
def provide_callbacks() -> Iterable[s.Callback]:
    """Add training-loop callbacks.

    Target: a ``transformers.TrainerCallback``-shaped class. Errors are never swallowed.
    Selected by: ``--callbacks a b``; called in that order.
    """
    return ()


# Reinforcement learning


@hookspec
def provide_rewards() -> Iterable[s.Reward]:
    """Add reward functions.

    Target: ``(completions: list[str], **columns) -> list[float | None]``.
    ``columns`` are the dataset's; accept ``**columns`` so that new ones never break you.
    Selected by: ``--reward_funcs a b``.
    """
    return ()


# Inference and where files are


@hookspec
def provide_engines() -> Iterable[s.Engine]:
    """Add inference engines.

    Target: a ``protocols.Engine`` class.
    Selected by: ``--infer_backend``.
    """
    return ()


@hookspec
def provide_hubs() -> Iterable[s.Hub]:
    """Add model and dataset hubs; ``name`` is the scheme in ``scheme::id``.

    Target: a class with ``download(id, kind, revision, run)`` and ``upload(folder, id, ...)``.
    Selected by: ``--hub``, or the scheme.
    """
    return ()


# Events


@hookspec
def on_process_start(process: Process) -> None:
    """A process of the run has started: a rank, a data worker, an engine worker.

    The one sanctioned place for process-local side effects (codecs, monkeypatches).
    Must be safe to call twice.
    """


@hookspec
def on_config(config: Config) -> None:
    """The configuration is final. Raise ``ConfigError`` to refuse it; do not change it."""


@hookspec
def on_run_start(run: Run) -> None:
    """The run is about to start."""


@hookspec
def on_run_end(run: Run, error: BaseException | None) -> None:
    """The run is over. ``error`` is what ended it, if anything did."""
