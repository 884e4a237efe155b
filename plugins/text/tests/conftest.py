"""Tokenizers, templates that are bound to them, and what is supervised in a row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import pytest

import martlet
from martlet.protocols import BoundTemplate, Encoded, Refused
from martlet_sdk.tiny import tiny_tokenizer


@pytest.fixture(scope="session")
def tokenizer_for() -> Callable[..., Any]:
    """Return a function that makes a tokenizer with a chat template and more special tokens."""

    def make(template: str | None, special: Sequence[str] = (), **names: str) -> Any:
        tokenizer = tiny_tokenizer(template)
        tokenizer.add_special_tokens({"additional_special_tokens": list(special)})
        for name, token in names.items():
            setattr(tokenizer, name, token)
        return tokenizer

    return make


@pytest.fixture(scope="session")
def bind() -> Callable[..., BoundTemplate]:
    """Return a function that binds the template that the settings choose."""

    def make(tokenizer: Any, **settings: Any) -> BoundTemplate:
        run = martlet.prepare(roles=("template", "preview"), **settings)
        bound: BoundTemplate = run.one("templates").bind(tokenizer, run)
        return bound

    return make


def runs_of(tokenizer: Any, encoded: Encoded) -> list[str]:
    """Return the text of each run of supervised tokens."""
    pairs = groupby(encoded.labels, key=lambda label: label != -100)
    return [tokenizer.decode(list(labels)) for kept, labels in pairs if kept]


@pytest.fixture(scope="session")
def supervised() -> Callable[[BoundTemplate, dict[str, Any]], list[str]]:
    """Return a function that encodes a row and returns the text of each run of supervised tokens."""

    def texts(bound: Any, row: dict[str, Any]) -> list[str]:
        (encoded,) = bound.encode_batch([row])
        assert isinstance(encoded, Encoded), encoded
        return runs_of(bound.tokenizer, encoded)

    return texts


@pytest.fixture(scope="session")
def refusal() -> Callable[[BoundTemplate, dict[str, Any]], Refused]:
    """Return a function that encodes a row which has to be refused."""

    def refused(bound: BoundTemplate, row: dict[str, Any]) -> Refused:
        (found,) = bound.encode_batch([row])
        assert isinstance(found, Refused), found
        return found

    return refused
