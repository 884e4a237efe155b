"""A second model of a run (``--ref_model`` ...), loaded by the same code as ``--model`` and under its own flags' names.

A loader reads ``--model``, ``--adapters`` and their companions from the run that it is handed. So a second model needs
no interface of its own: the loader gets a run in which those flags have the values of ``--ref_model``,
``--ref_adapters`` and so on, and what it complains of is told in their names.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from martlet import AmbiguousComponent, Config, MartletError, Model, Run, UnknownComponent, UsageError
from martlet.protocols import LoadedModel

MODEL = ("model", "model_type", "model_revision")
"""Flags that say which model. A second model has them with a prefix, and ``adapters``."""


@dataclass(frozen=True)
class AnotherModel:
    """What the flags with a prefix say. Where they name no model, it is ``--model`` itself, without ``--adapters``."""

    run: Run
    prefix: str

    @property
    def named(self) -> bool:
        """It is another model than ``--model``."""
        return any(self._given(name) for name in MODEL) and self._place() != tuple(map(self.policy, MODEL))

    @property
    def adapters(self) -> list[str]:
        return list(self._given("adapters") or ())

    def load(self, **settings: Any) -> LoadedModel:
        """Read weights, tokenizer and adapters' places. ``settings``: flags that have other values for this model."""
        with self._told():
            loaded: LoadedModel = self._loader().load(self._view(settings), for_training=True)
        return loaded

    def load_processor(self) -> Any:
        """Read its tokenizer alone."""
        with self._told():
            return self._loader().load_processor(self._view({}))

    def folder(self) -> Path | None:
        """Return the folder it is read from, where its loader knows that before reading."""
        find = getattr(self._loader(), "folder", None)
        with self._told():
            return find(self._view({})) if find else None

    def find_adapters(self) -> list[tuple[str, Path]]:
        """Return name and folder of its adapters, fetched where they are on a hub."""
        find = getattr(self._loader(), "find_adapters", None)
        if find is None:
            return [(Path(entry).name, Path(entry)) for entry in self.adapters]
        with self._told():
            found: list[tuple[str, Path]] = find(self._view({}))
        return found

    def __str__(self) -> str:
        """Say which model it is as the command line would."""
        return f"--{self.prefix}model {self._place()[0]}" if self.named else f"--model {self.policy('model')}"

    def _place(self) -> tuple[Any, ...]:
        """Return its (model, type, revision)."""
        given = [self._given(name) for name in MODEL]
        if _same(given[0] or self.policy("model"), self.policy("model")):  # its own revision or type, perhaps
            return tuple(mine or self.policy(name) for mine, name in zip([None, *given[1:]], MODEL, strict=True))
        return tuple(given)

    def _given(self, name: str) -> Any:
        return self._value(self.prefix + name)

    def policy(self, name: str) -> Any:
        """Return what a flag says of the model in training; None where the command has no such flag."""
        return self._value(name)

    def _value(self, name: str) -> Any:
        known = {flag.name for flag in self.run.config.flags}
        return self.run.config.value(name) if name in known else None

    def _loader(self) -> Any:
        name = self._given("model_type")
        try:
            return self.run.get(Model, name) if name else self.run.one(Model)
        except (UnknownComponent, AmbiguousComponent) as error:
            raise type(error)(f"--{self.prefix}model_type {name}: {error}") from error

    def _view(self, settings: dict[str, Any]) -> Run:
        """Return the run as a loader should see it."""
        found = dict(zip(MODEL, self._place(), strict=True)) if self.named else {}
        return with_settings(self.run, **found, adapters=self.adapters, **settings)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Name this model's flags where an error names those of ``--model``."""
        names = [*(MODEL if self.named else ()), "adapters"]
        try:
            yield
        except MartletError as error:
            text = re.sub(rf"--({'|'.join(names)})\b", rf"--{self.prefix}\1", str(error))
            error.args = (text,)
            raise


def _same(one: str | None, other: str | None) -> bool:
    return one == other or os.path.realpath(one or "") == os.path.realpath(other or "")


def with_settings(run: Run, **settings: Any) -> Run:
    """Return ``run`` with other values of flags, for who only reads them; flags that the command lacks are left out.

    Components, records and warnings stay those of the run.
    """
    mine, config = run.config, Config(run.config.command, run.config.manager, run.config.flags)
    changed = {flag.key: settings[flag.name] for flag in mine.flags if flag.name in settings}
    config.values, config.origins = mine.values | changed, mine.origins
    config.options, config.selections, config.missing = mine.options, mine.selections, mine.missing
    view = copy(run)
    view.config = config
    return view


def check_same_tokenizer(another: AnotherModel, processor: Any) -> None:
    """Refuse a model that reads token ids otherwise than ``--model``, naming the first token that differs."""
    mine, its = _vocabulary(processor), _vocabulary(another.load_processor())
    differ = sorted(
        (token for token in mine.keys() | its.keys() if mine.get(token) != its.get(token)),
        key=lambda token: (mine.get(token, len(mine)), its.get(token, len(its)), token),
    )
    if not differ:
        return
    token = differ[0]
    here, there = (f"{ids[token]}" if token in ids else "missing" for ids in (mine, its))
    raise UsageError(
        f"{another}: its tokenizer differs from that of --model in {len(differ)} of {len(mine)} tokens. The first is "
        f"{token!r}: {here} in --model, {there} in the other. Both models have to read the same token ids; choose one "
        "that shares the tokenizer of --model."
    )


def _vocabulary(processor: Any) -> dict[str, int]:
    """Return token to id, special and added tokens included."""
    found: dict[str, int] = getattr(processor, "tokenizer", processor).get_vocab()
    return found
