"""A run on two processes is the same run: losses, gradients, weights, metrics, ledgers, files."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_jobs import conversation, digests, losses, record, write_rows
from together import EXACT, Jobs, Together, line_of, play, run_together, same_logs, same_weights, split

from martlet.cli import main
from martlet_sdk.tiny import save_tiny_model

STRANGER = Path(__file__).parent / "strangers" / "rare_words.py"
LORA = {"tuner_type": "lora", "lora_dropout": 0.0}

JOBS: Jobs = {
    "padded, evaluated": ({"eval_strategy": "epoch", "report_to": ["tensorboard"]}, split(4, 2), split(2, 2)),
    "packed": ({"packing": True, "packing_length": 128}, split(2, 2), split(1, 2)),
    "padding_free, by channel, checkpointed": (
        {"padding_free": True, "enable_channel_loss": True, "gradient_checkpointing": True},
        split(8, 1),
        split(1, 4),
    ),
    "lora, streamed": ({**LORA, "streaming": True, "max_steps": 4}, split(4, 2), split(2, 2)),
    "lazy, weighted": (
        {
            "lazy_tokenize": True,
            "loss_scale": "last_round+rare_words",
            "external_plugins": [STRANGER],
            "max_length": 98,
            "logging_steps": 3,
        },
        split(2, 4),
        split(4, 1),
    ),
}
"""Settings, and how a step is split on one process and on each of two."""
LONG: Jobs = {
    "lora, checkpointed, packed": (
        {**LORA, "gradient_checkpointing": True, "packing": True, "packing_length": 128},
        split(1, 4),
        split(1, 2),
    ),
    "dft, on the left, smoothed": (
        {"loss_type": "dft", "padding_side": "left", "label_smoothing_factor": 0.1},
        split(4, 2),
        split(1, 4),
    ),
    "grouped, the rest dropped": (
        {"group_by_length": True, "dataloader_drop_last": True, "dataloader_num_workers": 2},
        split(4, 1),
        split(2, 1),
    ),
    "other settings of the wrapper": (
        {"ddp_find_unused_parameters": False, "ddp_broadcast_buffers": False, "ddp_bucket_cap_mb": 1},
        split(8, 1),
        split(4, 1),
    ),
    "deterministic, streamed packs": (
        {"full_determinism": True, "streaming": True, "packing": True, "packing_length": 128, "max_length": 128}
        | {"max_steps": 3},
        split(2, 1),
        split(1, 1),
    ),
}

RESUMED: dict[str, Any] = {
    **{name: value for name, value in EXACT.items() if name != "save_only_model"},
    "max_steps": 6,
    "save_steps": 2,
    "logging_steps": 3,
    "packing": True,
    "packing_length": 128,
    **split(1, 1),
}
DROPOUT: dict[str, Any] = {**RESUMED, "dataloader_num_workers": 1, "optim": "adamw_torch_fused"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with rows and two models, one of which draws random numbers."""
    folder = tmp_path_factory.mktemp("processes")
    rows = [{**conversation(number), "channel": "ab"[number % 2]} for number in range(13)]
    write_rows(folder / "rows.jsonl", rows)
    save_tiny_model(folder / "model")
    save_tiny_model(folder / "dropout", architecture="gpt2", resid_pdrop=0.3, embd_pdrop=0.3, attn_pdrop=0.3)
    return folder


@pytest.fixture(scope="module")
def together(place: Path) -> Together:
    """Return what two processes did with all jobs, and with a run that is resumed."""
    checkpoint = {"resume_from_checkpoint": place / "whole" / "checkpoint-4", "model": place / "dropout"}
    assert main(line_of(place, "alone", RESUMED, per_device_train_batch_size=2)) == 0
    further = [
        line_of(place, "whole", DROPOUT, model=place / "dropout"),
        line_of(place, "resumed", DROPOUT, **checkpoint),
        line_of(place, "pair", RESUMED),
        line_of(place, "pair from one", RESUMED, resume_from_checkpoint=place / "alone" / "checkpoint-4"),
    ]
    return play(place, "default", JOBS, further)


@pytest.mark.parametrize("job", JOBS)
def test_two_processes_do_what_one_does(job: str, place: Path, together: Together) -> None:
    same_logs(place / "one" / job, place / "two" / job)
    same_weights(place / "one" / job, place / "two" / job)


@pytest.mark.long
def test_so_they_do_with_rarer_settings(place: Path) -> None:
    play(place, "long", LONG)
    for job in LONG:
        same_logs(place / "one" / job, place / "two" / job)
        same_weights(place / "one" / job, place / "two" / job)


@pytest.mark.parametrize("job", [0, 1, 2])
def test_each_row_is_seen_once_an_epoch(job: int, together: Together) -> None:
    assert Counter(together.seen(job)) == dict.fromkeys(range(13), 2)


def test_one_process_writes_and_speaks(place: Path, together: Together) -> None:
    folder = place / "two" / "padded, evaluated"
    names = {path.name for path in folder.iterdir()}
    assert names >= {"args.json", "run.json", "logging.jsonl", "ledger.json", "checkpoint-4", "last", "runs"}
    assert record(folder)["world_size"] == 2
    assert together.out.count("  eval_loss ") == len(losses(folder, "eval_loss")) == 2
    assert together.err.count(f"The last checkpoint is {folder}/checkpoint-4") == 1


def test_tensorboard_looks_the_same(place: Path, together: Together) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def scalars(folder: Path) -> dict[str, list[int]]:
        board = EventAccumulator(str(folder / "padded, evaluated" / "runs"))
        board.Reload()
        return {tag: [event.step for event in board.Scalars(tag)] for tag in board.Tags()["scalars"]}

    found = scalars(place / "two")
    assert found == scalars(place / "one") and found["train/loss"] == [1, 2, 3, 4]


@pytest.mark.parametrize("job", JOBS)
def test_the_ledger_counts_the_rows_of_all(job: str, place: Path, together: Together) -> None:
    """Also rows that one process alone found to be too long, while it was training."""
    for name in ("ledger.json", "dropped.jsonl"):
        one, two = (place / number / job / name for number in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()
    dropped = json.loads((place / "two" / job / "ledger.json").read_text())["totals"]["dropped"]
    assert bool(dropped) == (job == "lazy, weighted")


def test_resuming_on_two_is_exact_to_the_bit(place: Path, together: Together) -> None:
    whole, resumed = (place / name / "checkpoint-6" for name in ("whole", "resumed"))
    known = {name: digest for name, digest in digests(whole).items() if name.endswith(".safetensors")}
    assert known.keys() >= {"model.safetensors", "optimizer.safetensors", "random_state_1.safetensors"}
    assert known.items() <= digests(resumed).items()
    assert known["random_state_0.safetensors"] != known["random_state_1.safetensors"]
    assert losses(place / "resumed") == {step: loss for step, loss in losses(place / "whole").items() if step > 4}


def test_a_checkpoint_of_two_goes_on_in_one_and_the_other_way(place: Path, together: Together) -> None:
    checkpoint = place / "pair" / "checkpoint-4"
    line = line_of(place, "one from pair", RESUMED, per_device_train_batch_size=2, resume_from_checkpoint=checkpoint)
    assert main(line) == 0
    expected = losses(place / "alone")
    assert losses(place / "pair") == pytest.approx(expected, rel=1e-5)
    for name in ("one from pair", "pair from one"):
        assert losses(place / name) == pytest.approx({6: expected[6]}, rel=1e-5), name
        same_weights(place / "alone", place / name)


@pytest.mark.long
def test_each_process_may_divide_by_its_own_count(place: Path) -> None:
    """``--average_tokens_across_devices false``: the mean of the two means."""
    short, long = conversation(9), conversation(3)
    once = {"max_steps": 1, "num_train_epochs": 1, "max_grad_norm": 0.0, "weight_decay": 0.0, **split(1, 1)}
    order = {"dataset_shuffle": False, "train_dataloader_shuffle": False, "average_tokens_across_devices": False}
    for name, rows in (("short", [short]), ("long", [long]), ("each", [short, long])):
        write_rows(place / f"{name}.jsonl", rows)
    lines = {
        name: line_of(place, f"mean/{name}", {**EXACT, **once, **order}, dataset=place / f"{name}.jsonl")
        for name in ("short", "long", "each")
    }
    assert main(lines["short"]) == main(lines["long"]) == 0
    (place / "mean-of-means").mkdir()
    run_together(place / "mean-of-means", [lines["each"]])
    found = {name: losses(place / "mean" / name)[1] for name in lines}
    assert found["each"] == pytest.approx((found["short"] + found["long"]) / 2, rel=1e-6)
    assert abs(found["short"] - found["long"]) > 1e-3
    weights = {name: load_file(place / "mean" / name / "checkpoint-1" / "model.safetensors") for name in lines}
    for key, tensor in weights["each"].items():
        torch.testing.assert_close(tensor, (weights["short"][key] + weights["long"][key]) / 2, rtol=1e-4, atol=2e-6)
