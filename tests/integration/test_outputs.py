"""The output folder: what PROMISES says is there, what the plan foretold, and a ledger that adds up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_jobs import QUICK, conversation, digests, losses, newest, record, words_of

from martlet_train.checkpoint import follow, verify

JOB: dict[str, Any] = {
    **QUICK,
    "add_version": True,
    "report_to": ["tensorboard"],
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "num_train_epochs": 2,
    "split_dataset_ratio": 0.25,
    "save_steps": 2,
    "logging_steps": 1,
}


@pytest.fixture
def made(typed, tiny_model, rows, tmp_path):
    """Return a function that types a command with the job's words, and the versioned folder it made."""

    def run(*command: str, **settings: Any) -> tuple[Any, Path | None]:
        base = {"model": tiny_model, "dataset": rows, "output_dir": tmp_path / "output"}
        more = ["--json"] if command[0] == "plan" else []
        done = typed(*command, *words_of({**base, **JOB, **settings}), *more)
        return done, next(iter(sorted((tmp_path / "output").glob("v*"))), None)

    return run


def test_the_folder_holds_what_is_promised_and_what_the_plan_foretold(made, pictures, rows, tiny_model):
    done, folder = made("plan", "sft")
    assert done.code == 0 and folder is None
    plan = json.loads(done.out)
    done, folder = made("sft")
    assert done.code == 0, done.err
    facts, ran = plan["facts"], record(folder)
    assert folder.name[:3] == "v0-"
    # What the plan said is what happened.
    steps = facts["steps"]
    assert ran["notes"]["training"]["steps"] == steps == max(losses(folder))
    trained = (facts["parameters"]["trained"], facts["parameters"]["total"])
    assert trained == (ran["notes"]["training"]["trainable_parameters"], ran["notes"]["training"]["parameters"])
    totals = json.loads((folder / "ledger.json").read_text())["totals"]
    assert facts["rows"] == {"train": totals["train"], "eval": totals["eval"]} == {"train": 10, "eval": 3}
    assert facts["rows_per_step"] == 4
    foretold = {Path(path).relative_to(folder.parent / "v0-DATE-TIME").parts[0] for path in facts["files"]}
    assert foretold == {path.name for path in folder.iterdir()}
    assert {name: row["value"] for name, row in plan["settings"].items()} == {
        name: row["value"] for name, row in ran["settings"].items() if not row["origin"].startswith("default")
    }
    assert {row["name"] for row in plan["plugins"]} <= {row["name"] for row in ran["plugins"]}
    chosen = {(row["kind"], row["name"]) for row in plan["components"] if row["kind"] != "hubs"}  # a folder needs none
    assert chosen <= {(row["kind"], row["name"]) for row in ran["components"]}
    # What is there is what it should be.
    last = f"checkpoint-{steps}"
    assert {path.name for path in folder.glob("checkpoint-*")} == {f"checkpoint-{n}" for n in (2, 4, steps)}
    for checkpoint in folder.glob("checkpoint-*"):
        assert verify(checkpoint)["facts"]["step"] == int(checkpoint.name.partition("-")[2])
        assert json.loads((checkpoint / "args.json").read_text()) == json.loads((folder / "args.json").read_text())
    assert follow(folder / "last") == folder / last
    by_step = losses(folder, "eval_loss")
    assert list(by_step) == [2, 4, steps]
    assert follow(folder / "best") == folder / f"checkpoint-{min(by_step, key=by_step.get)}"
    names = {path.name for path in (folder / "images").iterdir()}
    assert names >= {"loss.png", "learning_rate.png", "grad_norm.png", "token_acc.png", "overview.png"}
    for picture in (folder / "images").iterdir():
        drawn(picture)
    assert scalars(folder / "runs")["train/loss"] == pytest.approx(losses(folder))
    lines = [json.loads(line) for line in (folder / "logging.jsonl").read_text().splitlines()]
    asked_for = {"loss", "grad_norm", "learning_rate", "token_acc", "epoch", "global_step/max_steps", "memory_gib"}
    asked_for |= {"elapsed_seconds", "remaining_seconds", "steps_per_second"}
    assert all(line.keys() >= asked_for for line in lines if "loss" in line)
    said = [line for line in done.out.splitlines() if line.startswith(f"step 1/{steps}  loss ")]
    for word in ("grad_norm", "learning_rate", "token_acc", "epoch", "elapsed", "remaining", "memory", "speed"):
        assert f" {word} " in said[0]
    assert "⟦" in done.err and "are trained on" in done.err
    assert not [path for path in folder.rglob("*") if path.name.startswith(".") or path.suffix == ".partial"]


def drawn(picture: Path) -> None:
    """Check that a file is a PNG of some size that shows more than one colour."""
    from matplotlib.image import imread

    assert picture.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    image = imread(picture)
    assert image.shape[0] > 200 and image.shape[1] > 400
    assert image[..., :3].std() > 0.01


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    """Return what TensorBoard reads: tag -> step -> value."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return {tag: {one.step: one.value for one in events.Scalars(tag)} for tag in events.Tags()["scalars"]}


def test_the_record_says_who_did_what_and_why(made, rows, tiny_model, tmp_path, monkeypatch):
    config = tmp_path / "run.yaml"
    config.write_text("lora_rank: 4\nsave_strategy: 'no'\neval_strategy: 'no'\n")
    monkeypatch.setenv("LOG_LEVEL", "warning")
    done, folder = made("sft", config=config, max_steps=1, report_to=["none"])
    assert done.code == 0 and "INFO" not in done.err
    found = record(folder)
    origins = {name: row["origin"] for name, row in found["settings"].items()}
    assert origins["lora_rank"] == f"config ({config}:1)"
    assert origins["max_steps"] == "command line (--max_steps)"
    assert origins["log_level"] == "environment (LOG_LEVEL)"
    assert origins["lora_alpha"] == "default (tuners 0.1.0)"
    assert origins["dataloader_prefetch_factor"].startswith("default")
    assert origins["metric_for_best_model"] == "chosen (the evaluation loss)"
    assert found["command"] == "sft" and found["ended"]["outcome"] == "completed"
    assert {"torch", "transformers", "peft"} <= found["libraries"].keys()
    used = {(row["kind"], row["name"], row["plugin"]) for row in found["components"]}
    assert {("tuners", "lora", "tuners"), ("losses", "cross_entropy", "train"), ("templates", "auto", "text")} <= used
    assert len(found["notes"]["data"]["fingerprint"]) == 64
    assert json.loads((folder / "args.json").read_text())["lora_rank"] == 4


BROKEN = ['{"messages": [', "[]", '{"a": 1}', '{"query": "", "response": "x"}', '{"query": "q", "response": 5}']
BROKEN_REASONS = {
    "malformed JSON": 1,
    "not an object": 1,
    "unknown layout": 1,
    "empty content": 1,
    "bad content": 1,
    "too long": 1,
}


@pytest.fixture
def broken(tmp_path) -> Path:
    good = [json.dumps(conversation(number)) for number in range(1, 6)]
    long = json.dumps({"query": "q", "response": "word " * 300})
    path = tmp_path / "broken.jsonl"
    path.write_text("\n".join([good[0], BROKEN[0], *good[1:3], *BROKEN[1:], good[3], long, good[4]]) + "\n")
    return path


def test_the_ledger_of_broken_rows_adds_up(made, broken, rows):
    settings = {"dataset": [f"{broken}#22", rows], "max_length": 200, "report_to": ["none"], "max_steps": 1}
    settings |= {"split_dataset_ratio": 0}
    done, folder = made("sft", **settings, max_dropped=0.6)
    assert done.code == 0, done.err
    ledger = json.loads((folder / "ledger.json").read_text())
    for one in [*ledger["datasets"], ledger["totals"]]:
        assert one["read"] + one["repeated"] == one["selected"] + one["not_sampled"]
        assert one["selected"] + one["made"] == one["train"] + one["eval"] + sum(one["dropped"].values())
        assert one["supervised_share"] == pytest.approx(one["supervised_tokens"] / one["tokens"], abs=1e-6)
    bad, good = ledger["datasets"]
    assert (bad["read"], bad["selected"], good["dropped"]) == (11, bad["train"] + bad["eval"] + 12, {})
    assert {reason: count // 2 for reason, count in bad["dropped"].items()} == BROKEN_REASONS
    lines = [json.loads(line) for line in (folder / "dropped.jsonl").read_text().splitlines()]
    assert {(line["line"], line["reason"]) for line in lines} == set(
        zip((2, 5, 6, 7, 8, 10), BROKEN_REASONS, strict=True)
    )
    assert {line["file"] for line in lines} == {str(broken)} and {line["times"] for line in lines} == {2}
    assert ledger["totals"] == record(folder)["notes"]["data"]["totals"]
    for reason in BROKEN_REASONS:
        assert f"dropped 2 of {broken}" in done.err and f": {reason}, such as {broken}:" in done.err


def test_more_dropped_rows_than_allowed_abort(made, broken, rows):
    done, folder = made("sft", dataset=[broken, rows], max_length=200, max_dropped=0.5)
    assert done.code == 1
    for part in (f"{broken}: 6 of 11 rows (54.5%)", "--max_dropped 0.5", f"{broken}:2", str(folder / "dropped.jsonl")):
        assert part in done.error
    assert len((folder / "dropped.jsonl").read_text().splitlines()) == 6
    assert record(folder)["ended"]["outcome"].startswith("DataError")
    assert not list(folder.glob("checkpoint-*"))


def test_old_checkpoints_go_and_the_best_and_the_last_stay(made):
    settings = {"save_steps": 1, "max_steps": 6, "save_total_limit": 2, "learning_rate": 0.3, "optim": "sgd"}
    done, folder = made("sft", **settings, lr_scheduler_type="constant", report_to=["none"])
    assert done.code == 0, done.err
    by_step = losses(folder, "eval_loss")
    best = min(by_step, key=by_step.get)
    kept = {path.name for path in folder.glob("checkpoint-*")}
    assert kept == {f"checkpoint-{best}", "checkpoint-6"} if best != 6 else kept == {"checkpoint-5", "checkpoint-6"}
    assert follow(folder / "best").name == f"checkpoint-{best}" and follow(folder / "last").name == "checkpoint-6"


def test_a_second_run_takes_a_folder_of_its_own(made, tmp_path):
    settings = {"max_steps": 1, "save_strategy": "no", "eval_strategy": "no", "report_to": ["none"]}
    _, first = made("sft", **settings)
    before = digests(first)
    assert made("sft", **settings)[0].code == 0
    assert [path.name[:3] for path in sorted((tmp_path / "output").iterdir())] == ["v0-", "v1-"]
    assert digests(first) == before


def test_by_default_it_is_named_after_the_model(typed, tiny_model, rows, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = {**JOB, "model": tiny_model, "dataset": rows, "max_steps": 1, "report_to": ["none"]}
    assert typed("sft", *words_of(settings)).code == 0
    (folder,) = (tmp_path / "output" / tiny_model.name).iterdir()
    assert newest(folder).name == "checkpoint-1" and (folder / "last").is_symlink()


def test_flags_that_an_adapter_decides_are_told_where_training_goes_on_with_it(typed, tiny_model, rows, tmp_path):
    base = {**QUICK, "model": tiny_model, "dataset": rows, "max_steps": 1}
    assert typed("sft", *words_of({**base, "output_dir": tmp_path / "one"})).code == 0
    again = {**base, "output_dir": tmp_path / "two", "adapters": newest(tmp_path / "one")}
    done = typed("sft", *words_of({**again, "lora_rank": 4, "lorap_lr_ratio": 2}))
    assert done.code == 0, done.err
    warnings = record(tmp_path / "two")["warnings"]
    assert [text for text in warnings if "has no effect" in text] == [
        f"--lora_rank has no effect: training goes on with the adapter in {newest(tmp_path / 'one')} as it is."
    ]
