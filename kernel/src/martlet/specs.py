"""What plugins yield: a name, a target, and facts that need no import.

``target`` is the object itself or ``"package.module:attribute"``, imported when first used. A function is
used as it is. A class is built once, with whichever of the keyword arguments ``spec`` and ``options`` its
constructor declares; run-time objects (the model, the run) are arguments of its methods. One rule for every kind.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from importlib import import_module
from typing import Any, ClassVar

from .errors import UsageError

Ref = str | Callable[..., Any]
"""An object, or ``"package.module:attribute"``."""


def load(ref: Ref) -> Any:
    """Import a ``"module:attribute"`` reference; return anything else as it is."""
    if not isinstance(ref, str):
        return ref
    module, _, attribute = ref.partition(":")
    found: Any = import_module(module)
    for part in attribute.split("."):
        found = getattr(found, part)
    return found


@dataclass(frozen=True)
class Spec:
    """A named component. Everything but ``target`` is known without importing it."""

    kind: ClassVar[str] = ""
    """Plural; the hook that provides it is ``provide_{kind}``."""
    label: ClassVar[str] = ""
    """Singular; what ``--set LABEL.NAME.OPTION=value`` and messages call it."""

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
        """Return ``target`` as it is or, if it is a class, one instance of it.

        ``target`` is this spec's own, or that of the kind's ``default`` where the spec has none.
        """
        found = load(target)
        if not inspect.isclass(found):
            if options:
                given = ", ".join(options)
                raise UsageError(f"{self.label} {self.name!r} is a function and takes no options (given: {given}).")
            return found
        wanted = inspect.signature(found).parameters
        arguments: dict[str, Any] = {}
        if "spec" in wanted:
            arguments["spec"] = self
        if "options" in wanted:
            arguments["options"] = self._options(options or {})
        elif options:
            given = ", ".join(options)
            raise UsageError(f"{self.label} {self.name!r} takes no options (given: {given}).")
        return found(**arguments)

    def _options(self, given: Mapping[str, Any]) -> Any:
        if self.options is None:
            return dict(given)
        from .fields import fields_of, parse
        from .errors import suggest

        shape = load(self.options)
        known = {f.name: f for f in fields_of(shape)}
        values = {}
        for name, value in given.items():
            where = f"--set {self.label}.{self.name}.{name}"
            if name not in known:
                raise UsageError(f"{where}: no such option. {suggest(name, known, listed='Options')}")
            values[name] = parse(known[name], value, where)
        return shape(**values)


@dataclass(frozen=True)
class Command(Spec):
    kind = "commands"
    label = "command"
    _: KW_ONLY
    roles: tuple[str, ...] = ()
    """Which argument groups it takes; ``base`` is always among them."""
    plan: Ref | None = None
    """``(run) -> dict``: what ``martlet plan`` prints beside the settings; loads no weights."""
    raw: bool = False
    """Hand the words after the command over unparsed, in ``run.words`` (for commands about commands)."""
    positional: str = ""
    """A field that takes the words before the first flag: ``plugin show NAME``."""
    distributed: bool = False
    """May be started on several processes by a launcher."""


@dataclass(frozen=True)
class Arguments(Spec):
    kind = "arguments"
    label = "group"
    _: KW_ONLY
    roles: tuple[str, ...] = ()
    """Opaque words; a command that lists one of them takes this group."""
    resolve: Ref | None = None
    """``(config) -> iterable of (flag, value, reason)``: settings left at None that are chosen for the user."""
    restored_by: str = ""
    """The bool flag under which a checkpoint's ``args.json`` gives this group's values (``load_args``)."""
    only_for: tuple[tuple[str, str], ...] = ()
    """``(kind, name)`` of the components that read it; a warning says when none of them is used."""


@dataclass(frozen=True)
class Model(Spec):
    kind = "models"
    label = "model"
    _: KW_ONLY
    template: str = ""
    """Name of the template that its checkpoints use, where they carry none themselves."""
    checkpoints: tuple[str, ...] = ()
    """Hub ids or last parts of a path, as ``fnmatch`` patterns."""
    architectures: tuple[str, ...] = ()
    """Class names, as ``config.json`` lists them."""
    modalities: tuple[str, ...] = ("text",)


@dataclass(frozen=True)
class ModelPatch(Spec):
    kind = "model_patches"
    label = "model_patch"


@dataclass(frozen=True)
class Template(Spec):
    """A chat template. The declarative fields hold text in which ``{content}`` and ``{system}`` are replaced."""

    kind = "templates"
    label = "template"
    _: KW_ONLY
    prefix: str = ""
    """Before everything; ``{bos}`` is the tokenizer's own."""
    system: str = ""
    """The system message."""
    default_system: str | None = None
    prompt: str = ""
    """One user turn, up to where the model starts to write."""
    separator: str = ""
    """Between an answer's end-of-turn token and the next turn."""
    suffix: str = ""
    """The end-of-turn text that the model writes."""
    stop_words: tuple[str, ...] = ()
    agent_template: str = ""
    thinking: bool = False


@dataclass(frozen=True)
class LossScale(Spec):
    kind = "loss_scales"
    label = "loss_scale"
    _: KW_ONLY
    base: bool = False
    """Decides which spans are trained on at all; a chain without one begins with ``default``."""


@dataclass(frozen=True)
class Dataset(Spec):
    kind = "datasets"
    label = "dataset"
    _: KW_ONLY
    source: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Scheme to id or path: ``{"hf": "org/name", "ms": "org/name"}`` or ``{"file": "/abs/rows.jsonl"}``."""
    subsets: tuple[str, ...] = ("default",)
    split: str = "train"
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class DatasetSource(Spec):
    kind = "dataset_sources"
    label = "dataset_source"
    _: KW_ONLY
    suffixes: tuple[str, ...] = ()
    """File endings it reads, with the dot."""


@dataclass(frozen=True)
class Preprocessor(Spec):
    kind = "preprocessors"
    label = "preprocessor"
    _: KW_ONLY
    columns: tuple[frozenset[str], ...] = ()
    """It recognises rows that have all columns of one of these sets."""


@dataclass(frozen=True)
class Trainer(Spec):
    kind = "trainers"
    label = "trainer"
    _: KW_ONLY
    contracts: tuple[str, ...] = ("token",)
    """Which losses ``--loss_type`` may name."""


@dataclass(frozen=True)
class Tuner(Spec):
    kind = "tuners"
    label = "tuner"
    _: KW_ONLY
    mergeable: bool = False


@dataclass(frozen=True)
class Loss(Spec):
    kind = "losses"
    label = "loss"
    _: KW_ONLY
    contract: str = "token"
    """``token``, ``pair``, ``policy`` or ``embedding``."""


@dataclass(frozen=True)
class Callback(Spec):
    kind = "callbacks"
    label = "callback"


@dataclass(frozen=True)
class Reward(Spec):
    kind = "rewards"
    label = "reward"
    _: KW_ONLY
    columns: tuple[str, ...] = ()
    """Dataset columns it cannot do without; checked before the run starts."""


@dataclass(frozen=True)
class Engine(Spec):
    kind = "engines"
    label = "engine"
    _: KW_ONLY
    can: frozenset[str] = frozenset()
    """Capabilities: ``stream``, ``lora``, ``logprobs``, ``attach``, ..."""


@dataclass(frozen=True)
class Hub(Spec):
    kind = "hubs"
    label = "hub"


KINDS: dict[str, type[Spec]] = {cls.kind: cls for cls in Spec.__subclasses__()}
"""Every kind by its plural name."""
