"""Each algorithm moves the held-out margin of the recorded task in the right direction."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

RECORDED: dict[str, Any] = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks" / "alignment.py"))
STEPS, FASTER = 8, 4
"""Fewer steps than in the recorded run, with higher learning rates."""


@pytest.fixture(scope="module")
def begun(tmp_path_factory) -> tuple[Path, Path, float]:
    """Return the folder of the rows, a model that was trained on rejected answers, and its margin."""
    folder = tmp_path_factory.mktemp("task")
    model = RECORDED["begin"](folder, steps=40)
    return folder, model, RECORDED["preference"](model, RECORDED["held_out"](folder, 40))[0]


@pytest.mark.parametrize("name", [name for name in RECORDED["RATES"] if name != "rm"])
def test_the_chosen_answers_of_held_out_pairs_become_likelier_than_the_rejected(name, begun):
    folder, model, before = begun
    rate = FASTER * RECORDED["RATES"][name]
    output = RECORDED["align"](name, model, folder, STEPS, learning_rate=rate, eval_strategy="no", eval_on_start=False)
    after = RECORDED["preference"](output / "last", RECORDED["held_out"](folder, 40))[0]
    assert after > before + 2


def test_a_reward_model_scores_the_chosen_answers_of_held_out_pairs_higher(begun):
    folder, model, _ = begun
    output = RECORDED["align"]("rm", model, folder, STEPS, learning_rate=FASTER * RECORDED["RATES"]["rm"])
    (before, _), *_, (after, accuracy) = RECORDED["scores"](output)
    assert after > before + 1 and accuracy > 0.9
