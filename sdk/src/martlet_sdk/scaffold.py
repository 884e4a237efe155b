"""Write a new plugin: one file, or a package that pip installs."""

from __future__ import annotations

import builtins
import keyword
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from importlib.resources import files
from pathlib import Path
from string import Template

from martlet.errors import UsageError, suggest
from martlet.manager import KERNEL, PluginManager, kinds
from martlet.specs import DatasetSource, Hub, Spec

NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")
PLACEHOLDER = re.compile(r"MyName|my_name|my-name")


@dataclass(frozen=True)
class Kind:
    """What a scaffold of one kind needs beside its files."""

    description: str
    use: str
    """A command that uses the component."""
    siblings: tuple[str, ...] = ()
    """Distributions of ours that the package requires."""
    libraries: tuple[str, ...] = ()
    """Other requirements of the package."""


TRAIN = "martlet sft --model MODEL --dataset DATASET"
SCAFFOLDS: dict[str, Kind] = {
    "template": Kind("Plain headers in square brackets.", f"{TRAIN} --template my-name", ("martlet-text",)),
    "agent_template": Kind(
        "A line of JSON behind the word CALL.", f"{TRAIN} --agent_template my-name", ("martlet-text",)
    ),
    "dataset": Kind("Three questions about birds.", "martlet sft --model MODEL --dataset my-name", ("martlet-data",)),
    "preprocessor": Kind("Rows with the columns question, answer and context.", TRAIN, ("martlet-data",)),
    "loss": Kind("Cross entropy with label smoothing.", f"{TRAIN} --loss_type my-name", (), ("torch>=2.6",)),
    "loss_scale": Kind("Numbers weigh twice as much as other text.", f"{TRAIN} --loss_scale my-name"),
    "callback": Kind("Prints each new lowest loss.", f"{TRAIN} --callbacks my-name", (), ("transformers>=5.20,<6",)),
    "tuner": Kind(
        "Trains normalisation layers and biases only.",
        f"{TRAIN} --tuner_type my-name",
        (),
        ("safetensors>=0.5", "torch>=2.6"),
    ),
    "launcher": Kind(
        "Starts processes on this machine.", f"NPROC_PER_NODE=2 {TRAIN} --launcher my-name", ("martlet-launch",)
    ),
    "reward": Kind("Prefers short answers.", "martlet plugin show my-name"),
}


def scaffold(kind: str, name: str, folder: Path, *, package: bool, manager: PluginManager) -> list[Path]:
    """Write the plugin ``name`` into ``folder`` and return the files, the one to edit first.

    Raises ``UsageError`` for a name that cannot be used and where a file exists already; then nothing is written.
    """
    label = _label(kind)
    _check_name(label, name, manager)
    made = _package(label, name) if package else _one_file(label, name)
    targets = {folder / path: text for path, text in made.items()}
    taken = [path for path in targets if path.exists()]
    root = folder / f"martlet-{_hyphens(name)}"
    if package and root.exists():
        taken = [root]
    if taken:
        raise UsageError(f"{taken[0]} exists already and is not overwritten; choose another name or --folder.")
    written: list[Path] = []
    try:
        for path, text in targets.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as file:
                written.append(path)
                file.write(text)
    except OSError as error:
        for path in written:
            path.unlink(missing_ok=True)
        raise UsageError(f"--folder {folder}: cannot be written ({error.strerror or error}).") from error
    return written


def use(label: str, name: str, file: Path | None) -> str:
    """Return a command that uses the new component; ``file``: the plugin, where it is not a package."""
    command = _named(SCAFFOLDS[label].use, name)
    return f"{command} --external_plugins {os.path.relpath(file)}" if file else command


def _label(kind: str) -> str:
    known = [*SCAFFOLDS, *(kinds(label).kind for label in SCAFFOLDS)]
    wanted = kind.replace("-", "_")
    if wanted not in known:
        raise UsageError(f"plugin new {kind}: no scaffold of this kind. {suggest(wanted, SCAFFOLDS, listed='Kinds')}")
    return kinds(wanted).label


def _check_name(label: str, name: str, manager: PluginManager) -> None:
    identifier = name.replace("-", "_")
    if not NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot name a plugin; use lower-case letters and digits, with '-' or '_' between words."
        )
    if (
        keyword.iskeyword(identifier)
        or hasattr(builtins, identifier)
        or identifier in ("martlet", "hookimpl", "my_name")
    ):
        raise UsageError(f"{name!r} cannot name a plugin: Python or Martlet use the word; choose another.")
    schemes = {spec.name for kind in (DatasetSource, Hub) for _, spec in manager.specs(kind)}
    if name in schemes:
        raise UsageError(f"{name!r} is the name of a dataset source or hub, which no plugin may have; choose another.")
    entries = {_hyphens(entry.name) for entry in metadata.entry_points(group="martlet")}
    if _hyphens(name) in entries | {"kernel"}:
        raise UsageError(f"a plugin named {name!r} is installed; choose another name.")
    owners = [plugin for plugin, spec in manager.specs(_kind(label)) if spec.name == name]
    if owners:
        raise UsageError(f"plugin {owners[0]!r} has a {label} named {name!r}; choose another name.")


def _kind(label: str) -> type[Spec]:
    return kinds(label)


def _one_file(label: str, name: str) -> dict[Path, str]:
    stem = name.replace("-", "_")
    made = {Path(f"{stem}.py"): _named(_read("files", f"{label}.py"), name)}
    if label == "dataset":
        made[Path(f"{stem}.jsonl")] = _read("files", "dataset.jsonl")
    return made


def _package(label: str, name: str) -> dict[Path, str]:
    root = Path(f"martlet-{_hyphens(name)}")
    source = root / "src" / f"martlet_{name.replace('-', '_')}"
    values = _values(label)
    made: dict[Path, str] = {}
    declarative = label == "template"  # all of it is data: the one file serves as the package's plugin
    if not declarative:
        made[source / f"{label}.py"] = _read("components", f"{label}.py")
    made |= {
        source / "plugin.py": _read("files" if declarative else "plugins", f"{label}.py"),
        source / "__init__.py": _filled("init.py.txt", values),
        source / "py.typed": "",
        root / "pyproject.toml": _filled("pyproject.toml.txt", values),
        root / "README.md": _filled("README.md.txt", values),
        root / "CHANGELOG.md": _filled("CHANGELOG.md.txt", values),
        root / "tests" / "test_contract.py": _filled("test_contract.py.txt", values),
    }
    if label == "dataset":
        made[source / f"{name.replace('-', '_')}.jsonl"] = _read("files", "dataset.jsonl")
    return {path: _named(text, name) for path, text in made.items()}


def _values(label: str) -> Mapping[str, str]:
    kind = SCAFFOLDS[label]
    ours = [bounded(name) for name in (KERNEL, *kind.siblings)]
    return {
        "label": label.replace("_", " "),
        "description": kind.description,
        "use": kind.use,
        "sdk": bounded("martlet-sdk"),
        "dependencies": "".join(f'    "{line}",\n' for line in [*ours, *kind.libraries]),
    }


def bounded(distribution: str) -> str:
    """Return a requirement with both bounds: the installed release and what is compatible with it (SemVer)."""
    try:
        version = metadata.version(distribution)
    except metadata.PackageNotFoundError:
        version = metadata.version(KERNEL)
    major, minor = (int(part) for part in version.split(".")[:2])
    ceiling = f"{major + 1}" if major else f"0.{minor + 1}"
    return f"{distribution}>={major}.{minor},<{ceiling}"


def _read(folder: str, name: str) -> str:
    text = files(__package__).joinpath("scaffolds", folder, name).read_text(encoding="utf-8")
    first, _, rest = text.partition("\n")
    return rest if first.startswith("# mypy:") else text


def _filled(name: str, values: Mapping[str, str]) -> str:
    return Template(_read("package", name)).substitute(values)


def _named(text: str, name: str) -> str:
    identifier = name.replace("-", "_")
    words = {
        "my-name": name,
        "my_name": identifier,
        "MyName": "".join(word.capitalize() for word in identifier.split("_")),
    }
    return PLACEHOLDER.sub(lambda match: words[match[0]], text)


def _hyphens(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name)
