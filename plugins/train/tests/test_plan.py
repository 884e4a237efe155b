"""``martlet plan`` says what a run would do, without loading weights."""

from __future__ import annotations

import pytest

from martlet_train.plan import plan


def test_steps_parameters_and_files_are_those_of_the_run(prepare, train, tmp_path):
    settings = {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 2}
    settings |= {"num_train_epochs": 2, "save_steps": 3}
    facts = plan(prepare(**settings))
    assert not (tmp_path / "out").exists()
    assert facts["rows"] == {"train": 21, "eval": 0}
    assert facts["rows_per_step"] == 6
    result = train(**settings)
    assert facts["steps"] == result.metrics["step"] == 8
    assert facts["parameters"]["trained"] == facts["parameters"]["total"] > 0
    planned = {path.rsplit("v0-DATE-TIME/", 1)[1].rstrip("/") for path in facts["files"]}
    written = {path.name for path in result.folder.iterdir()}
    assert planned - {"images"} <= written  # the pictures are not drawn in these tests
    assert {"checkpoint-3", "checkpoint-6", "checkpoint-8"} <= planned


def test_what_is_not_known_says_why(prepare):
    facts = plan(prepare(packing=True, packing_length=64))
    assert "lengths" in facts["steps"]["unknown"]
    assert facts["memory"]["unknown"]
    facts = plan(prepare(dataset=["someone/far-away"]))
    assert "nothing is downloaded" in facts["rows"]["unknown"]


@pytest.mark.parametrize("settings", [{"max_steps": 3}, {"max_epochs": 1, "num_train_epochs": 5}])
def test_a_shorter_run_is_planned_as_one(prepare, train, settings):
    assert plan(prepare(**settings))["steps"] == train(**settings, save_strategy="no").metrics["step"]
