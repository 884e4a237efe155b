from __future__ import annotations

import json
import os
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import martlet
from martlet import external_plugins as external

os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads that wait for one another take longer than these models
HERE = Path(__file__).parent
SENTENCE = "the small bird leaves its cliff at dawn and comes back when it is late"


@pytest.fixture(scope="session")
def rows(tmp_path_factory) -> Path:
    """Write 21 short rows of different lengths; no number of rows here divides another."""
    file = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    lines, words = [], SENTENCE.split()
    for number in range(21):
        query = " ".join(words[number % 5 : number % 5 + 2 + number % 4])
        response = " ".join(words[(number * 7 + k) % len(words)] for k in range(1 + number * 5 % 9))
        lines.append(json.dumps({"query": query, "response": response, "channel": "odd" if number % 2 else "even"}))
    file.write_text("\n".join(lines) + "\n")
    return file


@pytest.fixture
def prepare(tiny_model, rows, tmp_path, monkeypatch):
    """Return a function that resolves a training command on the tiny model and the short rows.

    It sees martlet-data, martlet-train and the stand-ins, whatever else is installed.
    """
    monkeypatch.setenv(external.VARIABLE, "")
    monkeypatch.setattr("martlet_train.curves.draw", lambda *args, **settings: [])  # takes longer than the training
    others = sorted({entry.name for entry in entry_points(group="martlet")} - {"data", "train"})

    def make(command: str = "sft", **settings):
        quick = {
            "model": str(tiny_model),
            "dataset": [str(rows)],
            "output_dir": str(tmp_path / "out"),
            "report_to": ["none"],
            "gradient_checkpointing": False,
            "dataloader_num_workers": 0,
            "learning_rate": 1e-3,
            "use_cpu": True,
            "disable_plugins": others,
            "external_plugins": [str(HERE / "standins.py")],
        }
        return martlet.prepare(command, **{**quick, **settings})

    return make


@pytest.fixture
def train(prepare):
    """Return a function that runs a training command and returns its ``TrainResult``."""
    return lambda command="sft", **settings: prepare(command, **settings).execute()
