"""Talk to what was trained: from the checkpoint alone, over a dataset, merged, and through a pipe."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest
from tiny_jobs import QUICK, digests, record, words_of, write_rows

import martlet
from martlet_sdk.tiny import save_tiny_model

FACTS = {"Which bird never lands?": "The martlet.", "Where is it found?": "On coats of arms.", "Two?": "2"}


@pytest.fixture(scope="module")
def learnt(tiny_model, tmp_path_factory) -> dict[str, Path]:
    """Return what was trained until it answers: a LoRA run's checkpoint, the merged model, and the rows."""
    here = tmp_path_factory.mktemp("learnt")
    lines = [{"query": query, "response": response} for query, response in FACTS.items()]
    rows = write_rows(here / "facts.jsonl", lines)
    job = {**QUICK, "model": str(tiny_model), "dataset": [str(rows)], "output_dir": str(here / "run")}
    job |= {"per_device_train_batch_size": 3, "max_steps": 150, "save_steps": 150, "learning_rate": 1e-2}
    job |= {"lora_rank": 16, "modules_to_save": ["lm_head"], "logging_steps": 50, "lora_dropout": 0.0}
    result = martlet.run("sft", **job, system="You know birds.", lr_scheduler_type="constant")
    assert result.metrics["loss"] < 0.05
    merged = martlet.run("merge-lora", adapters=[str(result.checkpoint)])
    return {"adapters": result.checkpoint, "model": Path(merged), "rows": rows}


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("what", ["adapters", "model"])
def test_a_dataset_is_answered_from_the_checkpoint_alone(what, learnt, typed, tmp_path):
    """Model, system message, template and tuner come from its args.json."""
    place, before = learnt[what], digests(learnt[what])
    result = tmp_path / "answers.jsonl"
    words = ["--val_dataset", learnt["rows"], "--result_path", result, "--max_new_tokens", 24, "--temperature", 0]
    done = typed("infer", f"--{what}", place, *words)
    assert done.code == 0, done.err
    for line, (query, response) in zip(lines_of(result), FACTS.items(), strict=True):
        assert line["messages"] == [
            {"role": "user", "content": query},
            {"role": "assistant", "content": response},
        ]
        assert (line["response"], line["labels"], line["finish_reason"]) == (response, response, "stop")
    assert digests(place) == before
    again = typed("infer", f"--{what}", place, *words)
    assert again.code == 0 and f"{result} exists; the answers are added" in again.err
    assert lines_of(result)[:3] == lines_of(result)[3:]


def test_the_merged_model_answers_as_the_adapter_does(learnt, typed, tmp_path):
    files = {}
    for what in ("adapters", "model"):
        files[what] = tmp_path / f"{what}.jsonl"
        words = ["--dataset", learnt["rows"], "--result_path", files[what], "--logprobs", "true"]
        done = typed("infer", f"--{what}", learnt[what], *words, "--max_new_tokens", 12, "--temperature", 0)
        assert done.code == 0, done.err
    for one, other in zip(lines_of(files["adapters"]), lines_of(files["model"]), strict=True):
        assert (one["response"], one["token_ids"]) == (other["response"], other["token_ids"])
        assert one["logprobs"] == pytest.approx(other["logprobs"], abs=1e-3)


def test_results_lie_beside_the_checkpoint_unless_told_otherwise(learnt, typed):
    done = typed("infer", "--adapters", learnt["adapters"], "--dataset", f"{learnt['rows']}#1", "--max_new_tokens", 4)
    assert done.code == 0, done.err
    (file,) = (learnt["adapters"] / "infer_result").glob("*.jsonl")
    assert len(lines_of(file)) == 1 and str(file) in done.err
    file.unlink()
    file.parent.rmdir()


@pytest.fixture
def piped(typed, monkeypatch):
    """Return a function that types a command line and sends lines to its standard input."""

    def run(*words: object, lines: list[str]):
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        return typed(*words)

    return run


def test_a_chat_through_a_pipe(learnt, piped):
    first, second, _ = FACTS
    lines = [first, "/reset", second, "/system You know nothing.", "/system", "/nonsense", "/exit", "never sent"]
    done = piped("infer", "--adapters", learnt["adapters"], "--temperature", 0, "--max_new_tokens", 24, lines=lines)
    assert done.code == 0, done.err
    assert done.out.splitlines()[:2] == [FACTS[first], FACTS[second]]
    for said in ("starts over", "System message: You know nothing.", "there is no command /nonsense"):
        assert said in done.err
    assert "Traceback" not in done.err


def test_a_chat_remembers_and_takes_several_lines(learnt, piped):
    first = next(iter(FACTS))
    start = ["infer", "--model", learnt["model"], "--temperature", 0, "--max_new_tokens", 24]
    alone = piped(*start, lines=["Two?"])
    later = piped(*start, lines=["/multiline", first, "", "Two?", ""])
    assert alone.code == later.code == 0
    assert alone.out.splitlines()[0] == "2"
    assert later.out.splitlines()[0] == FACTS[first]
    assert piped(*start, "--stream", "false", lines=["Two?"]).out == alone.out


def test_a_base_model_that_moved_is_asked_for(learnt, typed, tmp_path, tiny_model):
    place = Path(shutil.copytree(learnt["adapters"], tmp_path / "checkpoint-1"))
    args = json.loads((place / "args.json").read_text())
    (place / "args.json").write_text(json.dumps({**args, "model": "/no/such/model"}))
    words = ["infer", "--adapters", place, "--dataset", learnt["rows"], "--max_new_tokens", 24, "--temperature", 0]
    done = typed(*words)
    assert done.code == 2
    for part in ("--model /no/such/model", "no such folder", str(place / "args.json"), "give --model"):
        assert part in done.error
    found = tmp_path / "found.jsonl"
    assert typed(*words, "--model", tiny_model, "--result_path", found).code == 0
    assert [line["response"] for line in lines_of(found)] == list(FACTS.values())


def test_an_adapter_of_another_model_is_refused(learnt, typed, tmp_path):
    other = save_tiny_model(tmp_path / "other", hidden=32)
    done = typed("merge-lora", "--model", other, "--adapters", learnt["adapters"], "--output_dir", tmp_path / "merged")
    assert done.code == 1
    assert str(learnt["adapters"]) in done.error and "does not fit this model: size mismatch for" in done.error
    assert not list(tmp_path.glob("*merged*"))


def test_merging_keeps_what_is_there(learnt, typed):
    done = typed("merge-lora", "--adapters", learnt["adapters"])
    assert done.code == 2
    for part in ("--output_dir", str(learnt["model"]), "--exist_ok"):
        assert part in done.error
    assert learnt["model"].name == f"{learnt['adapters'].name}-merged"


def test_a_file_in_the_way_of_the_answers_is_told_before_the_model_is_loaded(learnt, typed):
    done = typed(
        *("infer", "--adapters", learnt["adapters"], "--dataset", learnt["rows"]),
        *("--result_path", learnt["rows"] / "answers.jsonl"),
    )
    assert done.code == 2
    assert "--result_path" in done.error and "cannot be written" in done.error
    assert "Loading weights" not in done.err


def test_a_trained_model_can_be_trained_on(learnt, typed, tmp_path):
    """The adapter goes on as an adapter; the merged model is a model like any other."""
    for what, more in (("adapters", []), ("model", ["--tuner_type", "full"])):
        place = [f"--{what}", learnt[what], *(["--model", record_of(learnt)] if what == "adapters" else [])]
        job = {**QUICK, "dataset": learnt["rows"], "output_dir": tmp_path / what, "max_steps": 1, "logging_steps": 1}
        done = typed("sft", *place, *words_of(job), *more, "--system", "You know birds.")
        assert done.code == 0, done.err
        assert json.loads((tmp_path / what / "logging.jsonl").read_text().splitlines()[0])["loss"] < 0.5


def record_of(learnt: dict[str, Path]) -> str:
    return str(record(learnt["adapters"].parent)["settings"]["model"]["value"])
