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
from typing import Any, ClassVar

from .errors import UsageError, suggest

Ref = str | Callable[..., Any]
"""An object, or ``"package.module:attribute"``."""


def load(ref: Ref) -> Any:
    """Import a ``"module:attribute"`` reference; return anything else as it is."""
    if not isinstance(ref, str):
        return ref
    module, _, attribute = ref.partition(":")
    return attrgetter(attribute)(import_module(module))


@dataclass(frozen=True)
class Spec:
    """A named component. Everything but ``target`` is known without importing it."""

    kind: ClassVar[str] = ""
    """Plural; the hook that provides it is ``provide_{kind}``."""
    label: ClassVar[str] = ""
    """Singular; what ``--set LABEL.NAME.OPTION=value`` and messages call it."""

    def __init_subclass__(cls, kind: str = "", label: str = "", **more: Any) -> None:
        super().__init_subclass__(**more)
        cls.label = label or re.sub(r"(?<=.)(?=[A-Z])", "_", cls.__name__).lower()
        cls.kind = kind or f"{cls.label}s"

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
            given = ", ".join(options)
            raise UsageError(f"{self.label} {self.name!r} takes no options (given: {given}).")
        arguments: dict[str, Any] = {"spec": self} if "spec" in wanted else {}
        if "options" in wanted:
            arguments["options"] = self._options(options or {})
        return found(**arguments) if inspect.isclass(found) else found

    def _options(self, given: Mapping[str, Any]) -> Any:
        from .fields import fields_of, parse

        shape = load(self.options) if self.options else dict
        known = {f.name: f for f in fields_of(shape)} if self.options else {}
        where = f"--set {self.label}.{self.name}"
        for name in given.keys() - known.keys() if self.options else ():
            raise UsageError(f"{where}.{name}: no such option. {suggest(name, known, listed='Options')}")
        return shape(**{n: parse(known[n], v, f"{where}.{n}") if known else v for n, v in given.items()})


@dataclass(frozen=True, kw_only=True)
class Command(Spec):
    """A subcommand; a name may have two words.

    Target: ``(run: Run) -> result``. An int is the exit status; anything else is what ``martlet.run`` returns.
    Selected by: the first words of the command line.
    """

    roles: tuple[str, ...] = ()
    """Which argument groups it takes; ``base`` is always among them."""
    plan: Ref | None = None
    """``(run) -> dict``: what ``martlet plan`` prints beside the settings; loads no weights."""
    raw: bool = False
    """Hand the words after the command over unparsed, in ``run.words``."""
    positional: str = ""
    """A field that takes the words before the first flag: ``plugin show NAME``."""


@dataclass(frozen=True, kw_only=True)
class Arguments(Spec, kind="arguments", label="group"):
    """A group of flags.

    Target: a dataclass. Each field is a flag, its annotation the parser, the literal behind it the help. ``metadata``
    keys: ``component`` (kind whose names are its values), ``unset`` (name used for None), ``separator``, ``choices``,
    ``ge``, ``gt``, ``le``, ``lt``, ``env``, ``path``, ``checkpoint``, ``restore``, ``secret``, ``important``.
    Selected by: a command that takes one of its roles.
    """

    roles: tuple[str, ...] = ()
    """Opaque words; a command that lists one of them takes this group."""
    resolve: Ref | None = None
    """``(config) -> iterable of (flag, value, reason)``: settings left at None that are chosen for the user."""
    restored_by: str = ""
    """The bool flag under which a checkpoint's ``args.json`` gives this group's values (``load_args``)."""
    only_for: tuple[tuple[str, str], ...] = ()
    """``(kind, name)`` of the components that read it; a warning says when none of them is used."""


@dataclass(frozen=True, kw_only=True)
class Model(Spec):
    """A model family. Target: a ``ModelLoader`` class, or None for the ``default`` loader with these facts.

    Selected by: ``--model_type``, else by checkpoint id, else by ``config.json``.
    """

    template: str = ""
    """Name of the template that its checkpoints use, where they carry none themselves."""
    checkpoints: tuple[str, ...] = ()
    """Hub ids or last parts of a path, as ``fnmatch`` patterns."""
    architectures: tuple[str, ...] = ()
    """Class names, as ``config.json`` lists them."""


@dataclass(frozen=True, kw_only=True)
class ModelPatch(Spec, kind="model_patches"):
    """A change to a model around its loading.

    Target: an object with ``before_load(config, kwargs, run)`` and ``after_load(model, processor, run)``.
    Selected by: ``--model_patches a b``, applied in that order, or a flag (``enabled_by``).
    """


@dataclass(frozen=True, kw_only=True)
class Template(Spec):
    """A chat template. Target: a ``Template`` class; most need only the declarative fields.

    They are text in which ``{content}``, ``{system}`` and ``{bos}`` are replaced.
    Selected by: ``--template``, else by the model.
    """

    prefix: str = ""
    """Before everything."""
    system: str = ""
    default_system: str | None = None
    prompt: str = ""
    """One user turn, up to where the model starts to write."""
    separator: str = ""
    """Between an answer's end-of-turn token and the next turn."""
    suffix: str = ""
    """The end-of-turn text that the model writes."""
    stop_words: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class LossScale(Spec):
    """A rule that weights the tokens of a conversation in the loss.

    Target: ``(messages, spans) -> one weight a span``, or pieces ``(text, weight)`` that join to its text.
    Selected by: ``--loss_scale a+b``; chained left to right, weights multiply.
    """

    base: bool = False
    """Decides which spans are trained on at all; a chain without one begins with ``default``."""


@dataclass(frozen=True, kw_only=True)
class Dataset(Spec):
    """A named dataset. Target: ``(row) -> row | list of rows | None`` (None drops it); no target: by its columns.

    Selected by: ``--dataset name[:subset][#count]``.
    """

    source: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Scheme to id or path: ``{"hf": "org/name", "ms": "org/name"}`` or ``{"file": "/abs/rows.jsonl"}``."""
    subsets: tuple[str, ...] = ("default",)
    split: str = "train"


@dataclass(frozen=True, kw_only=True)
class DatasetSource(Spec):
    """A place rows come from. Target: ``(path, *, subset, split, run) -> iterable of rows``.

    A row may carry ``__line__``, from 1. Selected by: its name, the scheme in ``scheme::path``, or the file's ending.
    """

    suffixes: tuple[str, ...] = ()
    """File endings it reads, with the dot."""


@dataclass(frozen=True, kw_only=True)
class Preprocessor(Spec):
    """A row converter that recognises a layout. Target: ``(row) -> row | list of rows | None``, pure."""

    columns: tuple[frozenset[str], ...] = ()
    """Selected by: rows that have all columns of one of these sets."""


@dataclass(frozen=True, kw_only=True)
class Trainer(Spec):
    """A training loop, readable from top to bottom. Target: ``(run) -> TrainResult``. Selected by: its command."""

    contracts: tuple[str, ...] = ("token",)
    """Which losses ``--loss_type`` may name."""


@dataclass(frozen=True, kw_only=True)
class Tuner(Spec):
    """A way to choose what is trained. Selected by: ``--tuner_type``.

    Target: a class with ``apply(model, run)``, ``save(model, path)``, ``load(model, path)`` and maybe ``merge(model)``.
    """

    mergeable: bool = False


@dataclass(frozen=True, kw_only=True)
class Loss(Spec, kind="losses"):
    """A loss function. Selected by: ``--loss_type``.

    Target, contract ``token``: ``(logits (N, V), labels (N,)) -> (N,)``, one loss a token, 0 where the label is -100.
    The trainer weights, sums and divides by the supervised tokens of the whole optimizer step.
    """

    contract: str = "token"
    """``token``, ``pair``, ``policy`` or ``embedding``."""


@dataclass(frozen=True, kw_only=True)
class Callback(Spec):
    """A class shaped like ``transformers.TrainerCallback``. Selected by: ``--callbacks a b``, in that order."""


@dataclass(frozen=True, kw_only=True)
class Reward(Spec):
    """A reward function. Target: ``(completions: list[str], **columns) -> list[float | None]``.

    ``columns`` are the dataset's; accept ``**columns``, so that new ones never break it.
    """

    columns: tuple[str, ...] = ()
    """Dataset columns it cannot do without; checked before the run starts."""


@dataclass(frozen=True, kw_only=True)
class Engine(Spec):
    """An inference engine. Target: an ``Engine`` class. Selected by: ``--infer_backend``."""

    can: frozenset[str] = frozenset()
    """Capabilities: ``stream``, ``lora``, ``logprobs``, ``attach``, ..."""


@dataclass(frozen=True, kw_only=True)
class Hub(Spec):
    """A model and dataset hub. Selected by: ``--hub``, or its name as the scheme in ``scheme::id``.

    Target: a class with ``download(id, kind, revision, run)`` and ``upload(folder, id, ...)``.
    """


KINDS: dict[str, type[Spec]] = {cls.kind: cls for cls in Spec.__subclasses__()}
"""Every kind by its plural name."""
