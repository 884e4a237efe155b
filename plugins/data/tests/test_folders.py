"""Datasets that are folders: clones from a hub, and what a hub downloads."""

from __future__ import annotations

import pytest

from martlet import DataError
from martlet_data.api import load_rows


def chat(question, answer):
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


@pytest.fixture
def folder(tmp_path, write_jsonl):
    """Return a function that fills a folder: name -> text of the only answer in that file."""

    def make(names, readme=""):
        for name in names:
            path = tmp_path / "set" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            write_jsonl(path, [chat("which?", name)])
        if readme:
            (tmp_path / "set" / "README.md").write_text(readme)
        return str(tmp_path / "set")

    return make


def answers(run, reference, flag="--dataset"):
    return [row["messages"][1]["content"] for row in load_rows(run, [reference], flag=flag)]


def test_the_training_split_is_found_by_its_name(folder, data_run):
    place = folder(["data/train-00000-of-00002.jsonl", "data/train-00001-of-00002.jsonl", "data/test-00000.jsonl"])
    assert answers(data_run(), place) == ["data/train-00000-of-00002.jsonl", "data/train-00001-of-00002.jsonl"]


def test_the_validation_split_is_preferred_for_evaluation(folder, data_run):
    place = folder(["train.jsonl", "test.jsonl", "dev.jsonl"])
    assert answers(data_run(), place, "--val_dataset") == ["dev.jsonl"]


def test_files_without_a_split_in_their_name_are_training_data(folder, data_run):
    assert answers(data_run(), folder(["a.jsonl", "b.jsonl", "test.jsonl"])) == ["a.jsonl", "b.jsonl"]


def test_a_subset_is_a_folder(folder, data_run):
    place = folder(["en/train.jsonl", "zh/train.jsonl", "zh/test.jsonl"])
    assert answers(data_run(), place + ":zh") == ["zh/train.jsonl"]
    assert answers(data_run(), place + ":zh/en") == ["zh/train.jsonl", "en/train.jsonl"]


def test_an_unknown_subset_names_those_that_exist(folder, data_run):
    with pytest.raises(DataError, match=r"no subset 'fr'.*en, zh"):
        answers(data_run(), folder(["en/train.jsonl", "zh/train.jsonl"]) + ":fr")


def test_an_unknown_split_names_those_that_exist(folder, data_run):
    with pytest.raises(DataError, match=r"no split train\. Splits: test"):
        answers(data_run(), folder(["test.jsonl"]))


README = """---
configs:
- config_name: plain
  data_files:
  - split: train
    path: one/*.jsonl
  - split: test
    path: two.jsonl
- config_name: other
  data_files: two.jsonl
---
"""


def test_the_readme_names_subsets_and_files(folder, data_run):
    place = folder(["one/a.jsonl", "one/b.jsonl", "two.jsonl"], README)
    assert answers(data_run(), place + ":plain") == ["one/a.jsonl", "one/b.jsonl"]
    assert answers(data_run(), place + ":other") == ["two.jsonl"]
    assert answers(data_run(), place + ":all") == ["one/a.jsonl", "one/b.jsonl", "two.jsonl"]
    with pytest.raises(DataError, match=r"several subsets; name one: .*plain.*other"):
        answers(data_run(), place)


def test_a_readme_cannot_name_files_outside_the_folder(folder, data_run, tmp_path, write_jsonl):
    write_jsonl(tmp_path / "secret.jsonl", [chat("which?", "secret")])
    place = folder(["train.jsonl"], "---\nconfigs:\n- data_files: ../secret.jsonl\n---\n")
    assert answers(data_run(), place) == ["train.jsonl"]


def test_a_format_that_is_not_read_is_said(folder, data_run, tmp_path):
    place = folder(["a.jsonl", "b.jsonl"])
    (tmp_path / "set" / "c.csv").write_text("query,response\n1,2\n")
    run = data_run()
    assert answers(run, place) == ["a.jsonl", "b.jsonl"]
    assert any("c.csv" in text for text in run.record.warnings)


def test_a_folder_without_data_says_so(tmp_path, data_run):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "dataset_info.json").write_text("{}")
    with pytest.raises(DataError, match="no data file"):
        answers(data_run(), str(tmp_path / "set"))
