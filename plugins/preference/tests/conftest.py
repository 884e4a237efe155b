from __future__ import annotations

import os
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import martlet
from martlet import Run
from martlet import external_plugins as external
from martlet_preference.cpo import Cpo, Simpo
from martlet_preference.dpo import Dpo
from martlet_preference.orpo import Orpo

sys.path.insert(0, str(Path(__file__).parent))  # stepping.py
os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads that wait for one another take longer than these models
ALGORITHMS = {"dpo": Dpo, "orpo": Orpo, "cpo": Cpo, "simpo": Simpo}


@pytest.fixture
def resolve(monkeypatch, tmp_path):
    """Return a function that resolves ``rlhf`` with the given flags, for one row of data and no model."""
    monkeypatch.setenv(external.VARIABLE, "")
    file = tmp_path / "pairs.jsonl"
    file.write_text('{"query": "Can you land?", "response": "No.", "rejected_response": "Yes."}\n')
    others = sorted({entry.name for entry in entry_points(group="martlet")} - {"data", "train", "preference"})

    def make(rlhf_type: str = "dpo", **flags) -> Run:
        flags = {"rlhf_type": rlhf_type, "dataset": [str(file)], "disable_plugins": others} | flags
        return martlet.prepare("rlhf", **flags)

    return make


@pytest.fixture
def algorithm(resolve):
    """Return a function that builds the algorithm of ``--rlhf_type``."""
    return lambda rlhf_type="dpo", **flags: ALGORITHMS[rlhf_type](resolve(rlhf_type, **flags))
