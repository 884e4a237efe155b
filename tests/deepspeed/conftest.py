"""Tests that need DeepSpeed, which the default environment lacks: ``tox -e deepspeed``."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "integration"))
