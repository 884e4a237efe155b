"""Where values come from: words of a command line, YAML files, a checkpoint's ``args.json``."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import ConfigError, UsageError
from .fields import Field


@dataclass(frozen=True)
class Origin:
    """Who gave a value."""

    source: str
    """``default``, ``command``, ``component``, ``chosen``, ``args.json``, ``config``, ``environment``, ``command line`` or ``code``."""
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.source} ({self.detail})" if self.detail else self.source

    @property
    def given(self) -> bool:
        """The user gave it, here or when the checkpoint was made."""
        return self.source in ("args.json", "config", "environment", "command line", "code")


Raw = dict[str, tuple[Any, Origin]]
"""Flag to the value as it was written, and where."""


def read_yaml(path: Path) -> dict[str, tuple[Any, int]]:
    """Return key -> (value, line). Safe loader only; a fault is a ``ConfigError`` with file and line."""
    import yaml

    try:
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
        node = loader.get_single_node()
        if node is None:
            return {}
        if not isinstance(node, yaml.MappingNode):
            raise ConfigError(f"{path}: it must hold `flag: value` lines.")
        loader.flatten_mapping(node)
        found: dict[str, tuple[Any, int]] = {}
        for key_node, value_node in node.value:
            key, line = str(loader.construct_object(key_node, deep=True)), key_node.start_mark.line + 1
            if key in found:
                raise ConfigError(f"{path}:{line}: {key!r} stands twice (first in line {found[key][1]}); remove one.")
            found[key] = (loader.construct_object(value_node, deep=True), line)
        return found
    except OSError as error:
        raise ConfigError(f"--config {path}: cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start}).") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise ConfigError(f"{path}:{mark.line + 1 if mark else '?'}: not valid YAML: {_yaml_fault(error)}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error


def _yaml_fault(error: Any) -> str:
    problem = str(error.problem or error)
    if "\\t" in problem:
        return "a tab; indent with spaces."
    if "could not determine a constructor" in problem:
        tag = re.search(r"tag '([^']+)'", problem)
        return f"the tag {tag[1] if tag else ''} is not allowed; only plain values are read."
    return f"{problem}."


def relative_to(base: Path, field: Field, value: Any) -> Any:
    """Make a path that exists beside ``base`` absolute; leave ids and other words alone."""
    if isinstance(value, list):
        return [relative_to(base, field, item) for item in value]
    if not field.metadata.get("path") or not isinstance(value, str) or not value:
        return value
    path, rest = split_reference(value, lambda part: (base / part).exists())
    return f"{(base / path).resolve()}{rest}" if (base / path).exists() else value


def split_reference(value: str, exists: Callable[[str], bool]) -> tuple[str, str]:
    """Split ``path:subset#count`` into the longest part that exists, and the rest."""
    if exists(value):
        return value, ""
    for match in reversed(list(re.finditer(r"[:#]", value))):
        if exists(value[: match.start()]):
            return value[: match.start()], value[match.start() :]
    return value, ""


def read_args_json(folder: Path) -> Mapping[str, Any]:
    """Return the settings recorded beside a checkpoint, or in the run folder above it; {} where there are none."""
    for place in (folder, folder.parent):
        file = place / "args.json"
        if not file.is_file():
            continue
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{file}: not a readable JSON file ({error}); use --load_args false to do without.") from error
        if not isinstance(values, dict):
            raise ConfigError(f"{file}: it must hold one JSON object; use --load_args false to do without.")
        return values
    return {}


def read_words(words: Sequence[str], fields: Mapping[str, Field], positional: str = "") -> tuple[dict[str, Any], list[str]]:
    """Parse ``--flag value ...``; return flag -> raw value, and the words that belong to no flag.

    A flag may be written ``--flag=value`` and with hyphens. Never a prefix match.
    """
    import argparse

    class Parser(argparse.ArgumentParser):
        def error(self, message: str) -> Any:
            message = message.removeprefix("argument ")
            raise UsageError(f"{message[:1].upper() + message[1:]}. See --help.")

    parser = Parser(add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    for name, field in fields.items():
        form: dict[str, Any] = {}
        if field.admits(list):
            form = {"nargs": "*"} if not field.admits(bool) else {"nargs": "*", "default": argparse.SUPPRESS}
        elif field.admits(bool):
            form = {"nargs": "?", "const": True}
        if name == positional:
            parser.add_argument(name, nargs="*", default=argparse.SUPPRESS)
            continue
        spellings = dict.fromkeys([f"--{name}", f"--{name.replace('_', '-')}"])
        action = "extend" if name in ("set", "config", "external_plugins") else "store"
        parser.add_argument(*spellings, dest=name, action=action, **form)
    known, unknown = parser.parse_known_args(list(words))
    values = vars(known)
    if positional and not values.get(positional):
        values.pop(positional, None)
    return values, unknown
