"""Two processes whose state DeepSpeed divides do what one process does, and write what one process writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("deepspeed", reason="needs DeepSpeed, which `tox -e deepspeed` installs")

from tiny_jobs import QUICK, conversation, digests, losses, words_of, write_rows
from together import Together, run_together, same_logs, same_weights

from martlet.cli import main
from martlet_sdk.tiny import save_tiny_model

SETTINGS: dict[str, Any] = {**QUICK, "logging_steps": 1, "num_train_epochs": 2, "tuner_type": "full"}
EXACT = {**SETTINGS, "optim": "sgd", "learning_rate": 0.3, "lr_scheduler_type": "constant", "max_grad_norm": 0.5}
"""Plain gradient descent, so that rounding stays rounding, and clipped in every step; 13 rows, 8 a step."""
PACKED = {"packing": True, "packing_length": 128, "tuner_type": "lora", "lora_dropout": 0.0}
WAYS: dict[str, tuple[dict[str, Any], tuple[int, int], tuple[int, int]]] = {
    "full": ({**EXACT, "eval_strategy": "epoch"}, (4, 2), (2, 2)),
    "packed": ({**EXACT, **PACKED}, (1, 4), (1, 2)),
    "checkpointed": ({**EXACT, "gradient_checkpointing": True, "padding_free": True}, (8, 1), (1, 4)),
}
"""Settings, and rows of a batch and batches of a step: on one process, and on each of two."""
ALIGNED = {**EXACT, "learning_rate": 0.1, "max_dropped": 0.5}
ALIGNING: dict[str, dict[str, Any]] = {
    "dpo, a second model": {**ALIGNED, "rlhf_type": "dpo"},
    "dpo, packed, adapter off": {**ALIGNED, **PACKED, "packing_length": 256, "rlhf_type": "dpo"},
    "dpo, adapter off, in advance": {
        **ALIGNED,
        **PACKED,
        "packing_length": 256,
        "rlhf_type": "dpo",
        "precompute_ref_log_probs": True,
    },
    "orpo": {**ALIGNED, "rlhf_type": "orpo"},
    "cpo": {**ALIGNED, "rlhf_type": "cpo"},
    "simpo, packed": {**ALIGNED, **PACKED, "packing_length": 256, "rlhf_type": "simpo"},
    "kto": {**ALIGNED, "rlhf_type": "kto", "tuner_type": "lora", "lora_dropout": 0.0},
    "rm, a new head": {**ALIGNED, "rlhf_type": "rm", "tuner_type": "lora", "lora_dropout": 0.0},
}
"""Run with one row a batch on each of two processes and two on one; packed, two batches and four."""
RESUMED: dict[str, Any] = {**SETTINGS, "max_steps": 4, "save_steps": 2, "learning_rate": 1e-2, "weight_decay": 0.1}
STAGES = ("zero2", "zero3")


def split(way: tuple[int, int]) -> dict[str, Any]:
    return {"per_device_train_batch_size": way[0], "gradient_accumulation_steps": way[1]}


class Jobs:
    """Command lines on one model and its rows, collected to be run in one go."""

    def __init__(self, place: Path) -> None:
        self.place, self.lines = place, []
        rows = [conversation(number) for number in range(13)]
        write_rows(place / "rows.jsonl", rows)
        write_rows(place / "pairs.jsonl", [{**row, "rejected_response": f"No {n}."} for n, row in enumerate(rows[:9])])
        write_rows(place / "labels.jsonl", [{**row, "label": n % 2 > 0} for n, row in enumerate(rows[:9])])
        save_tiny_model(place / "model", hidden=60)
        save_tiny_model(place / "dropout", architecture="gpt2", resid_pdrop=0.3, embd_pdrop=0.3, attn_pdrop=0.3)

    def line(self, output: str, settings: dict[str, Any], **more: Any) -> list[str]:
        base = {"model": self.place / "model", "dataset": self.place / "rows.jsonl", "output_dir": self.place / output}
        if settings.get("eval_strategy"):
            base["val_dataset"] = self.place / "rows.jsonl"
        kind = settings.get("rlhf_type")
        if kind:
            base["dataset"] = self.place / ("labels.jsonl" if kind == "kto" else "pairs.jsonl")
        return ["rlhf" if kind else "sft", *words_of({**base, **settings, **more})]

    def add(self, output: str, settings: dict[str, Any], **more: Any) -> None:
        self.lines.append(self.line(output, settings, **more))

    def alone(self, output: str, settings: dict[str, Any], **more: Any) -> Path:
        """Run one on one process, now; return its folder."""
        assert main(self.line(output, settings, **more)) == 0
        return self.place / output


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Jobs:
    return Jobs(tmp_path_factory.mktemp("deepspeed"))


@pytest.fixture(scope="module")
def together(jobs: Jobs) -> Together:
    """Run everything that needs two processes, in one group of them."""
    draw = pytest.MonkeyPatch()
    draw.setattr("martlet_train.curves.draw", lambda *args, **settings: [])
    draw.setenv("MODELSCOPE_CACHE", str(jobs.place / "cache"))
    before = jobs.alone("before", RESUMED, **split((2, 1)))
    for stage in STAGES:
        for name, (settings, _, way) in WAYS.items():
            jobs.add(f"{stage}-{name}", settings, **split(way), deepspeed=stage)
        for name, model in ("dropout", {"model": jobs.place / "dropout"}), ("half", {"torch_dtype": "bfloat16"}):
            more = {**split((1, 1)), **model, "deepspeed": stage}
            jobs.add(f"{stage}-{name}", RESUMED, **more)
            last = jobs.place / f"{stage}-{name}" / "checkpoint-2"
            jobs.add(f"{stage}-{name}-on", RESUMED, **more, resume_from_checkpoint=last)
        jobs.add(f"{stage}-whole", RESUMED, **split((1, 1)), deepspeed=stage)
        last = before / "checkpoint-2"
        jobs.add(f"{stage}-taken-up", RESUMED, **split((1, 1)), deepspeed=stage, resume_from_checkpoint=last)
    for name, settings in ALIGNING.items():
        jobs.add(f"zero3-{name}", settings, **split((1, 2)), deepspeed="zero3")
    last = jobs.place / "zero3-whole" / "checkpoint-2"
    jobs.add("plain", RESUMED, **split((1, 1)), resume_from_checkpoint=last)
    done = run_together(jobs.place, jobs.lines)
    draw.undo()
    return done


@pytest.mark.parametrize("name", WAYS)
def test_the_run_is_that_of_one_process(jobs, together, name):
    settings, way, _ = WAYS[name]
    alone = jobs.alone(f"alone-{name}", settings, **split(way))
    for stage in STAGES:
        same_logs(alone, jobs.place / f"{stage}-{name}")
        same_weights(alone, jobs.place / f"{stage}-{name}")


@pytest.mark.parametrize("name", ALIGNING)
def test_alignment_with_a_divided_model_and_reference_is_that_of_one_process(jobs, together, name):
    settings = ALIGNING[name]
    alone = jobs.alone(f"alone-{name}", settings, **split((1, 4) if settings.get("packing") else (2, 2)))
    same_logs(alone, jobs.place / f"zero3-{name}")
    same_weights(alone, jobs.place / f"zero3-{name}")


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", ["dropout", "half"])
def test_a_resumed_run_is_the_uninterrupted_one_to_the_bit(jobs, together, stage, name):
    through, resumed = (jobs.place / folder / "checkpoint-4" for folder in (f"{stage}-{name}", f"{stage}-{name}-on"))
    expected = {file: sum_ for file, sum_ in digests(through).items() if file.endswith(".safetensors")}
    assert {"model.safetensors", "optimizer.safetensors", "random_state_1.safetensors"} <= expected.keys()
    assert {file: digests(resumed)[file] for file in expected} == expected


@pytest.mark.parametrize("stage", STAGES)
def test_a_checkpoint_holds_what_that_of_one_process_holds(jobs, together, stage):
    before, divided = (jobs.place / folder / "checkpoint-4" for folder in ("before", f"{stage}-whole"))
    from martlet_train.state import load_state

    one, two = load_state(before / "optimizer.safetensors"), load_state(divided / "optimizer.safetensors")
    assert one["parameters"] == two["parameters"]
    assert one["optimizer"]["param_groups"] == two["optimizer"]["param_groups"]
    for number, state in one["optimizer"]["state"].items():
        assert {k: v.shape for k, v in state.items()} == {
            k: v.shape for k, v in two["optimizer"]["state"][number].items()
        }
    assert sorted(set(digests(before)) ^ set(digests(divided))) == [
        *("random_state.safetensors", "random_state_0.safetensors", "random_state_1.safetensors")
    ]


def test_any_number_of_processes_goes_on_from_the_checkpoint_of_any_other(jobs, together):
    expected = losses(jobs.place / "before")
    divided = jobs.place / "zero3-whole" / "checkpoint-2"
    alone = jobs.alone("on-one", RESUMED, **split((2, 1)), resume_from_checkpoint=divided)
    for folder in ("zero2-whole", "zero3-whole", "zero2-taken-up", "zero3-taken-up", "plain", alone):
        found = losses(jobs.place / folder)
        assert found == pytest.approx({step: expected[step] for step in found}, rel=1e-4) and 4 in found, folder


def test_nothing_but_martlet_writes_to_the_screen(together):
    theirs = [
        line
        for line in together.err.splitlines()
        if line.startswith("[20") or "FutureWarning" in line or "mismatch" in line
    ]
    assert not theirs


def test_a_type_that_the_configuration_contradicts_is_told(jobs, together, tmp_path):
    asked = {"zero_optimization": {"stage": 2}, "bf16": {"enabled": True}}
    line = jobs.line("contradiction", SETTINGS, deepspeed=json.dumps(asked))
    result = run_together(tmp_path, [line], fails=True)
    assert [process[0]["status"] for process in result.done] == [2, 2]
    assert "Loading weights" not in result.err
    assert '"bf16" is enabled in its configuration, and the weights to train are float32' in result.err
