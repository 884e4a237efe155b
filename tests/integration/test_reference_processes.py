"""The reference model on two processes says what it says on one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_jobs import QUICK, conversation, digests, record, words_of, write_rows
from together import Together, run_together, same_logs, same_weights

from martlet.cli import main
from martlet_sdk.tiny import save_tiny_model

PLUGIN = Path(__file__).parents[2] / "plugins/train/tests/comparing.py"
EXACT: dict[str, Any] = {
    **QUICK,
    "rlhf_type": "compare",
    "external_plugins": [PLUGIN],
    "optim": "sgd",
    "learning_rate": 0.3,
    "logging_steps": 1,
    "num_train_epochs": 2,
    "lora_dropout": 0.0,
}
JOBS: dict[str, dict[str, Any]] = {
    "switched off": {"tuner_type": "lora", "gradient_checkpointing": True},
    "named": {"tuner_type": "lora", "ref_adapters": ["sft"], "padding_free": True},
    "second": {"tuner_type": "full"},
    "in advance": {"tuner_type": "full", "precompute_ref_log_probs": True, "eval_strategy": "epoch"},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reference")
    write_rows(folder / "rows.jsonl", [conversation(number) for number in range(13)])
    save_tiny_model(folder / "model")
    words = {**QUICK, "model": folder / "model", "dataset": folder / "rows.jsonl", "output_dir": folder / "run"}
    assert main(["sft", *words_of({**words, "max_steps": 1, "learning_rate": 1e-2})]) == 0
    (folder / "sft").symlink_to(folder / "run" / "checkpoint-1")
    return folder


def line_of(place: Path, job: str, number: str, rows: int) -> list[str]:
    settings = {**EXACT, **JOBS[job], "model": place / "model", "dataset": place / "rows.jsonl"}
    settings |= {"output_dir": place / number / job, "per_device_train_batch_size": rows}
    settings |= {"gradient_accumulation_steps": 2, "per_device_eval_batch_size": 4}
    if "ref_adapters" in settings:
        settings["ref_adapters"] = [place / name for name in settings["ref_adapters"]]
    if "eval_strategy" in settings:
        settings["val_dataset"] = place / "rows.jsonl"
    return ["rlhf", *words_of(settings)]


@pytest.fixture(scope="module")
def together(place: Path) -> Together:
    with pytest.MonkeyPatch.context() as shell:
        shell.setattr("martlet_train.curves.draw", lambda *args, **settings: [])
        shell.setenv("MODELSCOPE_CACHE", str(place / "cache-one"))
        for job in JOBS:
            assert main(line_of(place, job, "one", 4)) == 0
        shell.setenv("MODELSCOPE_CACHE", str(place / "cache-two"))
        (place / "lines").mkdir()
        return run_together(place / "lines", [line_of(place, job, "two", 2) for job in JOBS])


@pytest.mark.parametrize("job", JOBS)
def test_two_processes_compare_as_one_does(job: str, place: Path, together: Together) -> None:
    one, two = place / "one" / job, place / "two" / job
    same_logs(one, two)
    same_weights(one, two)
    assert record(one)["notes"]["reference"] == record(two)["notes"]["reference"]


def test_two_processes_share_the_work_in_advance(place: Path, together: Together) -> None:
    """Each runs half of the batches; one file is written for each dataset, with the numbers of one process."""
    assert digests(place / "cache-one") == digests(place / "cache-two")
    assert len(digests(place / "cache-two")) == 2
