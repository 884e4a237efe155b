"""Runs with the hub flags alone, and an environment in which no real hub, token or cache is in reach."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import martlet
from martlet import Run

sys.path.insert(0, str(Path(__file__).parent))
from standins import HuggingFaceStandIn, ModelScopeStandIn

sys.path.pop(0)

VARIABLES = (
    *("HF_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_CACHE", "USE_HF"),
    *("MODELSCOPE_ENDPOINT", "MODELSCOPE_DOMAIN", "MODELSCOPE_API_TOKEN"),
)


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point every cache and every address into the test's own folder."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "ms"))
    monkeypatch.setenv("MODELSCOPE_HOME", str(tmp_path / "ms-home"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def prepare(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    """Return ``prepare(**flags)``: a run that looks models up."""

    def make(**flags: Any) -> Run:
        return martlet.prepare(roles=("model",), **flags)

    return make


@pytest.fixture
def huggingface(monkeypatch: pytest.MonkeyPatch) -> Iterator[HuggingFaceStandIn]:
    """A server on the loopback that answers as Hugging Face does; HF_ENDPOINT names it."""
    with HuggingFaceStandIn() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        yield server


@pytest.fixture
def modelscope(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelScopeStandIn]:
    """A server on the loopback that answers as ModelScope does; MODELSCOPE_ENDPOINT names it."""
    with ModelScopeStandIn() as server:
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", server.address)
        yield server
