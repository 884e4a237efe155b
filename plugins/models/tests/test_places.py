"""Where a loader says that a model and its adapters lie, without reading the model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from martlet import UsageError


def test_the_folder_of_a_model_on_this_machine(tiny_model: Path, prepare) -> None:
    run = prepare(model=str(tiny_model))
    assert run.one("models").folder(run) == tiny_model


def test_the_folder_of_an_id_is_where_its_hub_put_it(shelf: Path, prepare) -> None:
    folder = shelf / "birds" / "wren"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    run = prepare(model="birds/wren")
    assert run.one("models").folder(run) == folder


def test_adapters_are_found_without_the_model(tiny_model: Path, tmp_path: Path, prepare) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter_config.json").write_text(json.dumps({}))
    run = prepare(model=str(tiny_model), adapters=[str(tmp_path / "one"), f"mine={tmp_path / 'two'}"])
    assert run.one("models").find_adapters(run) == [("one", tmp_path / "one"), ("mine", tmp_path / "two")]


def test_an_adapter_that_is_not_there_is_refused(tiny_model: Path, tmp_path: Path, prepare) -> None:
    run = prepare(model=str(tiny_model), adapters=[str(tmp_path / "nothing")])
    with pytest.raises(UsageError, match=r"--adapters .*nothing: there is no such folder"):
        run.one("models").find_adapters(run)
