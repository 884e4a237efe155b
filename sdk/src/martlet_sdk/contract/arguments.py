"""Argument groups: dataclasses whose fields are flags."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import subprocess
import sys

from martlet.errors import MartletError, suggest
from martlet.fields import Field, fields_of, parse
from martlet.specs import KINDS, Arguments, load
from martlet_sdk.inspection import json_schema

from .base import Broken, Skipped, require
from .kit import Kit
from .probe import HEAVY

METADATA = (
    *("component", "unset", "owner", "separator", "files", "choices", "ge", "gt", "le", "lt"),
    *("env", "path", "checkpoint", "restore", "secret", "important", "local", "help"),
)


def _fields(kit: Kit, spec: Arguments) -> tuple[Field, ...]:
    group = load(kit.manager.target(spec))
    where = f"{getattr(group, '__qualname__', group)}"
    require(inspect.isclass(group) and dataclasses.is_dataclass(group), f"{where} is not a dataclass.")
    try:
        return fields_of(group)
    except MartletError as error:
        raise Broken(str(error)) from error
    except Exception as error:
        raise Broken(f"the annotations of {where} cannot be read ({type(error).__name__}: {error}).") from error


def _name(field: Field) -> str:
    return f"{field.owner.__qualname__}.{field.name}"


def check_fields(kit: Kit, spec: Arguments) -> None:
    """It is a dataclass whose every field has a default and a lower-case name."""
    fields = _fields(kit, spec)
    require(fields, "it has no field.")
    for field in fields:
        require(re.fullmatch(r"[a-z][a-z0-9_]*", field.name), f"{_name(field)}: write flags in lower case with '_'.")


def check_roles(kit: Kit, spec: Arguments) -> None:
    """It joins a command: it names a role."""
    good = isinstance(spec.roles, tuple) and spec.roles and all(isinstance(role, str) and role for role in spec.roles)
    require(good, f"roles is {spec.roles!r}; name the roles whose commands take these flags, as in ('train',).")


def check_help(kit: Kit, spec: Arguments) -> None:
    """Every field is followed by a docstring, which is its help."""
    for field in _fields(kit, spec):
        require(field.help.strip(), f"{_name(field)} has no help; write a docstring on the line below it.")


def check_metadata(kit: Kit, spec: Arguments) -> None:
    """Metadata has the keys that the kernel reads, and names kinds that exist."""
    for field in _fields(kit, spec):
        for key in field.metadata:
            require(key in METADATA, f"{_name(field)}: unknown metadata {key!r}. {suggest(key, METADATA)}")
        kind = field.kind
        require(not kind or kind in KINDS, f"{_name(field)}: there is no kind {kind!r}. {suggest(kind, KINDS)}")


def check_defaults(kit: Kit, spec: Arguments) -> None:
    """Every annotation is one that the kernel parses, and the default is a value that the flag itself would take."""
    for field in _fields(kit, spec):
        try:
            value = parse(field, field.default, f"the default of {_name(field)}")
        except MartletError as error:
            raise Broken(str(error)) from error
        except Exception as error:
            raise Broken(f"{_name(field)}: the annotation {field.type} is not supported ({error}).") from error
        same = value == field.default
        require(same, f"{_name(field)}: its default {field.default!r} is read back as {value!r}.")


def check_schema(kit: Kit, spec: Arguments) -> None:
    """A JSON Schema can be made of every flag."""
    for field in _fields(kit, spec):
        try:
            json.dumps(json_schema(field))
        except Exception as error:
            raise Broken(f"{_name(field)}: no JSON Schema can be made of {field.type} ({error}).") from error


def check_light(kit: Kit, spec: Arguments) -> None:
    """The module of the group imports nothing heavy: ``--help`` has to be quick."""
    if not isinstance(spec.target, str):
        raise Skipped("the group stands in the plugin's own file, whose listing is checked.")
    module = spec.target.partition(":")[0]
    code = f"import sys, {module}; print(*(name for name in {HEAVY!r} if name in sys.modules))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=kit.environment)
    require(not done.returncode, f"{module} cannot be imported by itself: {(done.stderr.splitlines() or [''])[-1]}")
    heavy = ", ".join(done.stdout.split())
    require(not heavy, f"{module} imports {heavy}; keep it to the standard library.")


def check_resolve(kit: Kit, spec: Arguments) -> None:
    """``resolve``, where it has one, takes the configuration."""
    if spec.resolve is None:
        return
    try:
        inspect.signature(load(spec.resolve)).bind(object())
    except TypeError as error:
        raise Broken(f"resolve cannot be called as resolve(config): {error}.") from error


CHECKS = (
    check_fields,
    check_roles,
    check_help,
    check_metadata,
    check_defaults,
    check_schema,
    check_light,
    check_resolve,
)
