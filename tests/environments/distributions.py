"""The distributions of this repository: name to folder."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def distributions() -> dict[str, Path]:
    """Return distribution name -> folder, the meta-distribution included."""
    found = {}
    for file in sorted(
        [ROOT / "pyproject.toml", *ROOT.glob("*/pyproject.toml"), *ROOT.glob("plugins*/*/pyproject.toml")]
    ):
        found[tomllib.loads(file.read_text(encoding="utf-8"))["project"]["name"]] = file.parent
    return found
