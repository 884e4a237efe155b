"""The same job from code, from typed arguments, from the command line and from a notebook is the same job."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from tiny_jobs import QUICK, digests, logged, record, words_of

import martlet
from martlet.protocols import TrainResult

JOB: dict[str, Any] = {
    **QUICK,
    "max_steps": 4,
    "per_device_train_batch_size": 2,
    "lora_dropout": 0.1,
    "logging_steps": 1,
    "save_steps": 2,
    "split_dataset_ratio": 0.2,
    "lr_scheduler_kwargs": {"num_cycles": 0.4},
    "loss_scale": "last_round",
    "modules_to_save": ["lm_head"],
    "run_name": "same job",
}
"""A setting of every type: numbers, text, words, JSON, true and false."""


@pytest.fixture
def settings(tiny_model, rows, tmp_path, monkeypatch):
    """Return a function that gives the job's settings, writing into a folder of its own."""
    monkeypatch.setattr(sys, "argv", ["notebook", "--model", "another", "--no-such-flag"])

    def make(name: str, **more: Any) -> dict[str, Any]:
        paths = {"model": str(tiny_model), "dataset": [str(rows)], "output_dir": str(tmp_path / name)}
        return {**JOB, **paths, **more}

    return make


def comparable(folder: Path) -> dict[str, Any]:
    """Return ``run.json`` without times, origins and the folder's own name."""
    found = record(folder)
    del found["started"], found["ended"]["at"]
    found["settings"] = {name: row["value"] for name, row in found["settings"].items()}
    return renamed(found, str(folder))


def renamed(value: Any, folder: str) -> Any:
    if isinstance(value, dict):
        return {key: renamed(one, folder) for key, one in value.items()}
    if isinstance(value, list):
        return [renamed(one, folder) for one in value]
    return value.replace(folder, "FOLDER") if isinstance(value, str) else value


def weights(folder: Path) -> dict[str, str]:
    """Return the sums of what was trained and of the state it was trained with."""
    return {name: one for name, one in digests(folder / "checkpoint-4").items() if name.endswith(".safetensors")}


def test_code_words_and_typed_arguments_give_equal_weights_and_records(settings, typed, tmp_path):
    code, words, objects = (tmp_path / name for name in ("code", "words", "objects"))
    result = martlet.run("sft", **settings("code"))
    assert typed("sft", *words_of(settings("words"))).code == 0
    again = martlet.run(martlet.arguments("sft")(**settings("objects")))
    assert isinstance(result, TrainResult) and isinstance(again, TrainResult)
    assert result.checkpoint == code / "checkpoint-4" and result.metrics["eval_loss"] == again.metrics["eval_loss"]
    assert len(weights(code)) == 4
    assert weights(code) == weights(words) == weights(objects)
    assert logged(code) == logged(words) == logged(objects)
    assert comparable(code) == comparable(words) == comparable(objects)
    assert origins(code) == origins(objects)
    assert {origins(code)["max_steps"], origins(words)["max_steps"]} == {"code", "command line (--max_steps)"}
    assert origins(code)["lora_rank"] == origins(words)["lora_rank"] == "default (tuners 0.1.0)"


def test_a_file_beside_its_rows_is_the_same_job(settings, typed, rows, tmp_path):
    place = tmp_path / "jobs"
    place.mkdir()
    (place / "rows.jsonl").symlink_to(rows)
    job = {**settings("file"), "dataset": ["rows.jsonl"], "output_dir": str(tmp_path / "file")}
    (place / "run.yaml").write_text("command: sft\n" + "".join(f"{k}: {json.dumps(v)}\n" for k, v in job.items()))
    done = typed(place / "run.yaml")
    assert done.code == 0, done.err
    martlet.run("sft", **settings("code"))
    assert weights(tmp_path / "file") == weights(tmp_path / "code")
    assert (
        origins(tmp_path / "file")["max_steps"] == f"config ({place / 'run.yaml'}:{list(job).index('max_steps') + 2})"
    )


def origins(folder: Path) -> dict[str, str]:
    return {name: row["origin"] for name, row in record(folder)["settings"].items()}


def test_typed_arguments_are_documented_and_refuse_what_is_no_flag():
    shape = martlet.arguments("sft")
    fields = {field.name: field.type for field in dataclasses.fields(shape)}
    assert (fields["max_steps"], fields["dataset"], fields["packing"]) == (int, list[str], bool)
    assert "lora_rank: Rank of the adapter matrices" in shape.__doc__
    with pytest.raises(TypeError, match="modle"):
        shape(modle="x")


@pytest.mark.parametrize(
    ("changed", "error", "says"),
    [
        ({"modle": "x"}, martlet.UsageError, "Did you mean model"),
        ({"max_steps": "many"}, martlet.UsageError, "a whole number"),
        ({"tuner_type": "lroa"}, martlet.UnknownComponent, "Did you mean lora"),
        ({"dataset": ["row.jsonl"]}, martlet.UsageError, "--dataset row.jsonl"),
        ({"max_length": 5}, martlet.DataError, "--max_length 5"),
    ],
)
def test_code_gets_errors_and_never_an_exit(changed, error, says, settings):
    with pytest.raises(error, match=says) as caught:
        martlet.run("sft", **settings("refused", **changed))
    assert isinstance(caught.value, martlet.MartletError) and not isinstance(caught.value, SystemExit)


CELLS = """
import sys
import martlet
sys.argv  # of the kernel's process, with flags of its own
---
arguments = martlet.arguments("sft")(**{settings!r})
result = martlet.run(arguments)
---
print(result.checkpoint.name, sorted(result.ledger["totals"]["dropped"].items()), round(result.metrics["loss"], 4))
---
try:
    martlet.run("sft", modle="x")
except martlet.UsageError as error:
    print("refused:", error)
"""


def test_a_notebook_runs_one(settings, tmp_path):
    here = settings("here")
    result = martlet.run("sft", **here)
    sources = CELLS.replace("{settings!r}", repr(settings("notebook"))).split("---\n")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    shown = [
        "".join(out.get("text", "") for out in cell.outputs if out.get("name") == "stdout") for cell in notebook.cells
    ]
    assert shown[2].strip() == f"checkpoint-4 [] {round(result.metrics['loss'], 4)}"
    assert "refused: --modle" in shown[3]
    assert weights(tmp_path / "notebook") == weights(tmp_path / "here")
    assert comparable(tmp_path / "notebook") == comparable(tmp_path / "here")
