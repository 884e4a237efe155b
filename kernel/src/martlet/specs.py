"""What plugins yield: a name, a target, and facts that need no import.

``target`` is the object itself or ``"package.module:attribute"``, imported when first used. A function is used as it
is. A class is built once, with whichever of the keyword arguments ``spec`` and ``options`` its constructor declares;
run-time objects (the model, the run) are arguments of its methods. One rule for every kind.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from importlib import import_module
from operator import attrgetter
from typing import Any, ClassVar, dataclass_transform

from .errors import UsageError, suggest

Ref = str | Callable[..., Any]


def load(ref: Ref) -> Any:
    """Import a ``"module:attribute"`` reference; return anything else as it is."""
    if not isinstance(ref, str):
        return ref
    module, _, attribute = ref.partition(":")
    return attrgetter(attribute)(import_module(module))


@dataclass_transform(frozen_default=True, kw_only_default=True)
@dataclass(frozen=True)
class Spec:
    """A named component. Everything but ``target`` is known without importing it."""

    kind: ClassVar[str] = ""  # plural: the hook that provides it is ``provide_{kind}``
    label: ClassVar[str] = ""  # singular: what messages and ``--set`` call it

    def __init_subclass__(cls, kind: str = "", label: str = "", **more: Any) -> None:
        super().__init_subclass__(**more)
        cls.label = label or re.sub(r"(?<=.)(?=[A-Z])", "_", cls.__name__).lower()
        cls.kind = kind or f"{cls.label}s"
        dataclass(frozen=True, kw_only=True)(cls)

    name: str
    target: Ref | None = None
    """None: the component of this kind that is named ``default`` (for purely declarative specs)."""
    _: KW_ONLY
    summary: str = ""
    """One line for ``plugin list`` and the reference pages."""
    options: Ref | None = None
    """A dataclass of settings, for class targets: ``--set reward.brevity.scale=2``."""
    requires: tuple[str, ...] = ()
    """Requirements (PEP 508) checked, with an install hint, before ``target`` is imported."""
    replace: bool = False
    """Win over another plugin's spec of this name. Two that say so are an error."""
    enabled_by: str = ""
    """A flag that selects this component when it leaves its default."""
    conflicts: tuple[str, ...] = ()
    """Names of the same kind that cannot be used together with this one."""
    defaults: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Flag defaults that hold while this component is selected."""

    def build(self, target: Ref, options: Mapping[str, Any] | None = None) -> Any:
        """Return ``target`` (this spec's, or that of the kind's ``default``) as it is; if a class, one instance."""
        found = load(target)
        wanted = inspect.signature(found).parameters if inspect.isclass(found) else {}
        if options and "options" not in wanted:
            raise UsageError(f"{self.label} {self.name!r} takes no options (given: {', '.join(options)}).")
        arguments: dict[str, Any] = {"spec": self} if "spec" in wanted else {}
        if "options" in wanted:
            arguments["options"] = self._options(options or {})
        return found(**arguments) if inspect.isclass(found) else found

    def _options(self, given: Mapping[str, Any]) -> Any:
        from .fields import fields_of, parse

        if not self.options:
            return dict(given)
        shape, where = load(self.options), f"--set {self.label}.{self.name}"
        known = {f.name: f for f in fields_of(shape)}
        for name in given.keys() - known.keys():
            raise UsageError(f"{where}.{name}: no such option. {suggest(name, known, listed='Options')}")
        return shape(**{name: parse(known[name], value, f"{where}.{name}") for name, value in given.items()})


class Command(Spec):
    """A subcommand, of one or two words. Target: ``(run) -> result``; an int is the exit status."""

    roles: tuple[str, ...] = ()
    """Which argument groups it takes; ``base`` is always among them."""
    plan: Ref | None = None
    """``(run) -> dict``: what ``martlet plan`` prints beside the settings; loads no weights."""
    folder: Ref | None = None
    """``(run) -> Path``: where it will write; a launcher asks, before there are several processes."""
    raw: bool = False
    """Hand the words after the command over unparsed, in ``run.words``."""
    positional: str = ""
    """A field that takes the words before the first flag: ``plugin show NAME``."""


class Arguments(Spec, kind="arguments", label="group"):
    """A group of flags. Target: a dataclass; a field is a flag, its annotation the parser, the literal behind it help.

    ``metadata``: ``component`` (kind whose names are its values), ``unset`` (name used for None), ``owner`` (plugin of
    the default), ``separator choices ge gt le lt env path checkpoint restore secret important local late``.
    """

    roles: tuple[str, ...] = ()
    """Opaque words; a command that lists one of them takes this group."""
    resolve: Ref | None = None
    """``(config) -> iterable of (flag, value, reason)``: settings left at None that are chosen for the user."""
    restored_by: str = ""
    """The bool flag under which a checkpoint's ``args.json`` gives this group's values (``load_args``)."""
    only_for: tuple[tuple[str, str], ...] = ()
    """``(kind, name)`` of the components that read it; a warning says when none of them is used."""


class Model(Spec):
    """A model family. Target: a loader class. Selected by: ``--model_type``, checkpoint id or ``config.json``."""

    template: str = ""
    """Name of the template that its checkpoints use, where they carry none themselves."""
    checkpoints: tuple[str, ...] = ()
    """Hub ids or last parts of a path, as ``fnmatch`` patterns."""
    architectures: tuple[str, ...] = ()


class ModelPatch(Spec, kind="model_patches"):
    """A change around loading: ``before_load(config, kwargs, run)``, ``after_load(model, processor, run)``."""


class Template(Spec):
    """A chat template. Target: a class with ``bind``; most need only the fields, with ``{content}`` and the like."""

    prefix: str = ""
    system: str = ""
    default_system: str | None = None
    prompt: str = ""
    """One user turn, up to where the model starts to write."""
    separator: str = ""
    """Behind every answer's end-of-turn text, the last answer's too; not trained on."""
    suffix: str = ""
    """The end-of-turn text that the model writes."""
    stop_words: tuple[str, ...] = ()
    tool_prompt: str = ""
    """One turn of tool results, like ``prompt``; empty: as a user's."""
    agent_template: str = ""
    """How tools and calls are written where ``--agent_template`` does not say."""
    thinking: str = ""
    """What the model reasons, ``{thinking}``, as an answer begins with it; empty: it answers at once."""
    thinking_prefix: str = ""
    """What an answer begins with when reasoning is on; supplied by the prompt, like the next."""
    non_thinking_prefix: str = ""
    history: str | None = ""
    """What answers before the last question begin with in place of their reasoning; None: they keep it."""
    history_suffix: str = ""
    """The end-of-turn text of every answer but the last, where it is another."""
    answer: str = "{content}"


class AgentTemplate(Spec):
    """How tools, calls and results are written. Target: a class with ``tools, calls, results, parse, stream``."""


class LossScale(Spec):
    """Token weights: ``(messages, spans) -> one weight a span``, or pieces ``(text, weight)`` that join to its text."""

    base: bool = False
    """Decides which spans are trained on at all; a chain without one begins with ``default``."""


class Dataset(Spec):
    """A named dataset. Target: ``(row) -> row | list of rows | None`` (None drops it); no target: by its columns."""

    source: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Scheme to id or path: ``{"hf": "org/name", "ms": "org/name"}`` or ``{"file": "/abs/rows.jsonl"}``."""
    subsets: tuple[str, ...] = ("default",)
    split: str = "train"
    columns: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Renamed before the layout is recognised."""
    tags: tuple[str, ...] = ()


class DatasetSource(Spec):
    """Where rows come from, by scheme. Target: ``(path, *, subset, split, run) -> rows``, with ``__line__`` from 1."""

    suffixes: tuple[str, ...] = ()
    """File endings it reads, with the dot."""


class Preprocessor(Spec):
    """A row converter that recognises a layout. Target: ``(row) -> row | list of rows | None``, pure."""

    columns: tuple[frozenset[str], ...] = ()
    """Selected by: rows that have all columns of one of these sets."""


class Trainer(Spec):
    """A training loop, readable from top to bottom. Target: ``(run) -> TrainResult``. Selected by: its command."""

    contracts: tuple[str, ...] = ("token",)
    """Which losses ``--loss_type`` may name."""
    command: str = ""
    """The command that it belongs to, where a flag of that one selects it."""


class Tuner(Spec):
    """What is trained. Target: a class with ``apply, save, load``, maybe ``merge``. Selected by: ``--tuner_type``."""

    mergeable: bool = False


class Loss(Spec, kind="losses"):
    """A loss. Contract ``token``: ``(logits (N, V), labels (N,)) -> (N,)``, 0 where it is -100. Contract ``pair``:
    log-probabilities of pairs by keyword ``-> (P,)``. The trainer sums, and divides by those of the optimizer step."""

    contract: str = "token"
    """``token``, ``pair``, ``policy`` or ``embedding``."""


class Callback(Spec):
    """A class shaped like ``transformers.TrainerCallback``. Selected by: ``--callbacks a b``, in that order."""


class Reward(Spec):
    """A reward: ``(completions, **columns) -> list of float | None``; accept ``**columns``, new ones may come."""

    columns: tuple[str, ...] = ()
    """Dataset columns it cannot do without; checked before the run starts."""


class Engine(Spec):
    """An inference engine. Target: an ``Engine`` class. Selected by: ``--infer_backend``."""

    can: frozenset[str] = frozenset()
    """Capabilities: ``stream``, ``lora``, ``logprobs``, ``attach``, ..."""


class Launcher(Spec):
    """Starts the processes of a run, each with ``run.words``. Target: ``(run) -> exit status``. By: ``--launcher``."""


class Hub(Spec):
    """A hub. Target: a class with ``download`` and ``upload``. Selected by: ``--hub``, or as ``scheme::id``."""


KINDS: dict[str, type[Spec]] = {cls.kind: cls for cls in Spec.__subclasses__()}
