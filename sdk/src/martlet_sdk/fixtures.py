"""Fixtures for tests of plugins: ``pytest_plugins = ["martlet_sdk.fixtures"]``.

Nothing here is loaded unless a test project asks for it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from martlet import PluginManager


@pytest.fixture(scope="session", name="tiny_tokenizer")
def _tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Return a byte-level tokenizer with the ChatML template; treat it as read-only."""
    from .tiny import tiny_tokenizer

    return tiny_tokenizer()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a two-layer Qwen 3 with random weights; treat it as read-only."""
    from .tiny import save_tiny_model

    return save_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def lonely_manager() -> PluginManager:
    """Return a manager that sees only what the test loads: it refuses to discover installed plugins."""
    from .lonely import LonelyManager

    return LonelyManager()
