"""A loss of pairs that a stranger wrote in a file of fifteen lines trains; what it does wrong is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_jobs import QUICK, losses, record, words_of, write_rows

LAZY = Path(__file__).parent / "strangers" / "lazy.py"
ROWS = [
    {"query": f"Say {word}.", "response": f"{word}, of course", "rejected_response": "no"}
    for word in ("bird", "cliff", "dawn", "back")
]


@pytest.fixture
def words(tiny_model, tmp_path):
    """Return the words of a run with the stranger's loss, or with a changed one."""

    def make(plugin: Path = LAZY, **more) -> list[str]:
        rows = write_rows(tmp_path / "pairs.jsonl", ROWS)
        settings = {"model": tiny_model, "dataset": rows, "output_dir": tmp_path / "output", **QUICK}
        settings |= {
            "external_plugins": plugin,
            "loss_type": "lazy",
            "max_steps": 4,
            "logging_steps": 1,
            "learning_rate": 1e-2,
        }
        return ["rlhf", *words_of({**settings, "per_device_train_batch_size": 4, **more})]

    return make


def test_the_file_is_short_and_keeps_its_contract(typed):
    assert len(LAZY.read_text().splitlines()) <= 15
    done = typed("plugin", "check", LAZY)
    assert done.code == 0 and " 0 failed" in done.out.splitlines()[-1], done.out


@pytest.mark.parametrize("algorithm", ["dpo", "cpo"])
def test_it_trains(algorithm, typed, words, tmp_path):
    done = typed(*words(rlhf_type=algorithm))
    assert done.code == 0, done.err
    margins = losses(tmp_path / "output", "rewards/margins")
    assert margins[4] > margins[1]
    used = {(row["kind"], row["name"], row["plugin"]) for row in record(tmp_path / "output")["components"]}
    assert ("losses", "lazy", "lazy") in used


def test_it_trains_beside_one_of_ours(typed, words, tmp_path):
    done = typed(*words(loss_type=["lazy", "sigmoid"], loss_weights=[0.3, 1.0]))
    assert done.code == 0, done.err
    found = [losses(tmp_path / "output", name) for name in ("loss", "loss_lazy", "loss_sigmoid")]
    for step in range(1, 5):
        assert found[0][step] == pytest.approx(0.3 * found[1][step] + found[2][step], rel=1e-5)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return (chosen - rejected).mean()", "--loss_type lazy returned a tensor of shape () for 2 pairs"),
        ("return chosen / nothing", "--loss_type lazy failed: NameError: name 'nothing' is not defined"),
    ],
)
def test_its_mistakes_are_its_own_and_told_before_training(body, said, typed, words, tmp_path):
    text = LAZY.read_text()
    wrong = tmp_path / "lazy.py"
    wrong.write_text(text.replace("return (1 - beta * (chosen - rejected)).relu()", body))
    done = typed(*words(wrong))
    assert done.code in (1, 2) and said in done.error
    assert not (tmp_path / "output").exists()


def test_an_unknown_loss_lists_those_of_pairs(typed, words):
    said = typed(*words(loss_type="sigmiod")).error
    assert "sigmiod" in said and "Did you mean sigmoid" in said
