"""The flags of the training commands against the parameter catalogue that lies beside the checkout."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CHECKER = Path(__file__).parents[3] / "shared" / "spec" / "check_parameters.py"
VISION = {"freeze_llm", "freeze_vit", "freeze_aligner"}


@pytest.mark.skipif(not CHECKER.is_file(), reason=f"the parameter catalogue is not at {CHECKER}")
def test_nothing_but_vision_flags_is_missing():
    program = str(Path(sys.executable).with_name("martlet"))
    groups = ["--groups", "base", "tuner", "tuner.full", "tuner.lora", "--commands", "pt", "sft"]
    words = [sys.executable, str(CHECKER), *groups, "--program", program]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    *named, summary = done.stdout.splitlines()
    assert summary.endswith("0 different"), done.stdout
    assert int(summary.split()[0]) > 50
    for line in named:
        kind, _, flag, *_ = line.split()
        assert kind == "missing" and flag.removeprefix("--") in VISION, line
