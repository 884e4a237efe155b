"""Each algorithm of ``martlet rlhf`` on two processes is the same run: losses, gradients, metrics, weights."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from tiny_jobs import conversation, logged, write_rows
from together import Jobs, Together, play, same_logs, same_weights, split

from martlet_sdk.tiny import save_tiny_model

PACKED = {"packing": True, "packing_length": 256, "num_train_epochs": 1}
LORA = {"tuner_type": "lora", "lora_dropout": 0.0}
GENTLE = {"learning_rate": 0.03}
"""Scores that run away from one another take rounding with them."""
JOBS: Jobs = {
    "dpo": ({**LORA, "rlhf_type": "dpo", "eval_strategy": "epoch"}, split(4, 1), split(1, 2)),
    "dpo, several losses, packed": (
        {**PACKED, "rlhf_type": "dpo", "loss_type": ["sigmoid", "sft"], "loss_weights": [0.8, 0.2]},
        split(2, 2),
        split(1, 2),
    ),
    "orpo": ({"rlhf_type": "orpo", "padding_free": True}, split(2, 2), split(2, 1)),
    "cpo": ({**PACKED, "rlhf_type": "cpo"}, split(2, 1), split(1, 1)),
    "simpo": ({"rlhf_type": "simpo"}, split(2, 2), split(2, 1)),
    "kto": ({**LORA, "rlhf_type": "kto", "eval_strategy": "epoch"}, split(2, 2), split(1, 2)),
    "rm": ({**GENTLE, "rlhf_type": "rm", "padding_free": True}, split(4, 1), split(2, 1)),
}
LONG: Jobs = {
    "dpo, streamed": ({**LORA, "rlhf_type": "dpo", "streaming": True, "max_steps": 3}, split(4, 1), split(1, 2)),
    "dpo, precomputed": ({"rlhf_type": "dpo", "precompute_ref_log_probs": True}, split(2, 2), split(1, 2)),
    "orpo, packed": ({**PACKED, "rlhf_type": "orpo"}, split(2, 1), split(1, 1)),
    "simpo, packed, checkpointed": (
        {**PACKED, **LORA, "rlhf_type": "simpo", "gradient_checkpointing": True},
        split(2, 1),
        split(1, 1),
    ),
    "kto, packed": ({**PACKED, **LORA, "rlhf_type": "kto"}, split(2, 1), split(1, 1)),
    "rm, packed": ({**PACKED, **GENTLE, "rlhf_type": "rm"}, split(2, 1), split(1, 1)),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a model and rows that are pairs, and labelled as well."""
    folder = tmp_path_factory.mktemp("preferences")
    rows = [
        {
            "messages": conversation(number)["messages"],
            "rejected_response": f"No, {'no, ' * (number % 4)}not {number}.",
            "label": number % 3 > 0,
            "margin": number % 2,
        }
        for number in range(11)
    ]
    write_rows(folder / "rows.jsonl", rows)
    save_tiny_model(folder / "model")
    return folder


@pytest.fixture(scope="module")
def together(place: Path) -> Together:
    return play(place, "default", JOBS, command="rlhf")


@pytest.mark.parametrize("job", JOBS)
def test_two_processes_do_what_one_does(job: str, place: Path, together: Together) -> None:
    same_logs(place / "one" / job, place / "two" / job)
    same_weights(place / "one" / job, place / "two" / job)
    assert any("rewards/margins" in line for line in logged(place / "two" / job))


def test_the_sides_of_a_pair_stay_together(together: Together) -> None:
    batches = [batch for process in together.done for batch in process[0]["seen"]]
    assert Counter(together.seen(0)) == dict.fromkeys(range(22), 2)
    assert all(len(batch) in (0, 2) and batch == sorted(batch) for batch in batches)


@pytest.mark.long
def test_so_they_do_with_rarer_settings(place: Path) -> None:
    play(place, "long", LONG, command="rlhf")
    for job in LONG:
        same_logs(place / "one" / job, place / "two" / job)
        same_weights(place / "one" / job, place / "two" / job)
