"""Rows that are encoded before a run, kept from an earlier one, or encoded while training train the same model."""

from __future__ import annotations

import hashlib
import json

import pytest

from martlet import CheckpointError, ConfigError, DataError
from martlet_data.api import write_cached_dataset

FILES = ("model.safetensors", "optimizer.safetensors")
SHORT = {"max_steps": 3, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "save_steps": 2}


def digest(folder):
    return [hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in FILES]


@pytest.fixture
def cached(prepare, tmp_path):
    """Return a function that encodes the rows of a run into a folder."""

    def make(**settings):
        run = prepare(**settings)
        template = run.one("templates").bind(run.one("models").load_processor(run), run)
        (tmp_path / "cached").mkdir()
        write_cached_dataset(run, template, tmp_path / "cached", "train")
        return tmp_path / "cached"

    return make


def test_a_cached_dataset_trains_the_same_model(train, cached):
    folder = cached(split_dataset_ratio=0.2)
    flags = {**SHORT, "dataset": [], "cached_dataset": [f"{folder}/train"], "cached_val_dataset": [f"{folder}/val"]}
    late = train(**SHORT, split_dataset_ratio=0.2)
    ahead = train(**flags)
    assert digest(ahead.checkpoint) == digest(late.checkpoint)
    assert ahead.metrics["eval_loss"] == late.metrics["eval_loss"]
    assert ahead.ledger["totals"]["tokens"] == late.ledger["totals"]["tokens"]


@pytest.mark.parametrize(
    "more", [{"packing": True, "packing_length": 48}, {"group_by_length": True}, {"max_length": 14}]
)
def test_length_flags_work_on_a_cached_dataset(more, train, cached):
    folder = cached()
    flags = {**SHORT, "max_steps": 2, "max_dropped": 0.9, **more}
    late = train(**flags)
    assert digest(train(**flags, dataset=[], cached_dataset=[f"{folder}/train"]).checkpoint) == digest(late.checkpoint)


def test_pre_training_takes_a_cached_dataset_too(train, cached):
    settings = {"command": "pt", "use_chat_template": False, "loss_scale": "all"}
    folder = cached(**settings)
    late = train(**SHORT, command="pt")
    assert digest(train("pt", **SHORT, dataset=[], cached_dataset=[f"{folder}/train"]).checkpoint) == digest(
        late.checkpoint
    )


def test_a_run_is_resumed_on_the_cached_form_of_its_rows(train, cached):
    whole = train(**SHORT)
    resumed = train(
        **{**SHORT, "dataset": [], "cached_dataset": [f"{cached()}/train"]},
        resume_from_checkpoint=str(whole.folder / "checkpoint-2"),
    )
    assert digest(resumed.checkpoint) == digest(whole.checkpoint)


def test_a_second_run_from_the_cache_trains_the_same_model(train, tmp_path, monkeypatch):
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "cache"))
    first, second = (train(**SHORT, load_from_cache_file=True) for _ in range(2))
    assert len(list((tmp_path / "cache" / "martlet" / "encoded").iterdir())) == 1
    assert digest(first.checkpoint) == digest(second.checkpoint)


@pytest.mark.parametrize("workers", [0, 2])
def test_rows_encoded_while_training_train_the_same_model(workers, train, rows):
    flags = {**SHORT, "val_dataset": [str(rows)], "max_steps": 6}
    late = train(**flags, lazy_tokenize=True, dataloader_num_workers=workers)
    early = train(**flags)
    assert digest(late.checkpoint) == digest(early.checkpoint)
    assert late.metrics["eval_loss"] == early.metrics["eval_loss"]
    assert late.ledger == early.ledger
    assert json.loads((late.folder / "ledger.json").read_text()) == late.ledger


def test_a_run_with_lazy_rows_is_resumed_to_the_bit(train):
    flags = {**SHORT, "lazy_tokenize": True, "max_length": 14, "max_dropped": 0.9, "dataloader_num_workers": 1}
    whole = train(**flags)
    resumed = train(**flags, resume_from_checkpoint=str(whole.folder / "checkpoint-2"))
    assert digest(resumed.checkpoint) == digest(whole.checkpoint)
    for name in ("ledger.json", "dropped.jsonl"):
        assert sorted((resumed.folder / name).read_text().splitlines()) == sorted(
            (whole.folder / name).read_text().splitlines()
        )
    assert whole.ledger["totals"]["dropped"]["too long"] > 0
    dropped = (whole.folder / "dropped.jsonl").read_text().splitlines()
    assert len(dropped) == whole.ledger["totals"]["dropped"]["too long"]


def test_a_lazy_row_that_ends_the_run_is_told_in_one_sentence(train):
    flags = {**SHORT, "lazy_tokenize": True, "max_length": 14, "strict": True, "dataloader_num_workers": 1}
    with pytest.raises(DataError) as caught:
        train(**flags, num_train_epochs=1)
    assert "too long" in str(caught.value)
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"packing": True}, "--packing true needs the length of every row"),
        ({"group_by_length": True}, "--group_by_length true needs the length of every row"),
        ({"streaming": True, "max_steps": 3}, "--streaming true encodes rows while training"),
    ],
)
def test_what_needs_lengths_does_not_go_with_lazy_rows(other, said, train, tmp_path):
    with pytest.raises(ConfigError, match=f"{said}.*--lazy_tokenize true"):
        train(lazy_tokenize=True, **other)
    assert not (tmp_path / "out").exists()


def test_cached_rows_do_not_go_with_lazy_ones(train, cached):
    with pytest.raises(ConfigError, match="--cached_dataset holds rows that are encoded already"):
        train(lazy_tokenize=True, dataset=[], cached_dataset=[f"{cached()}/train"])


def test_flags_without_a_reader_are_told_of(prepare):
    run = prepare(lazy_tokenize=True, load_from_cache_file=True, packing_num_proc=2)
    said = " ".join(run.record.warnings)
    assert "--load_from_cache_file has no effect here" in said
    assert "--packing_num_proc has no effect here" in said
    assert prepare().config.value("lazy_tokenize") is False


@pytest.mark.parametrize("changed", [{"packing_num_proc": 2}, {"packing_length": 201}])
def test_other_packs_are_refused_on_resume_also_if_as_many(changed, train):
    flags = {"packing": True, "packing_length": 200, "max_steps": 2, "save_steps": 1}
    first = train(**flags)
    with pytest.raises(CheckpointError, match=r"the order of the rows .*--packing_num_proc"):
        train(**{**flags, **changed}, resume_from_checkpoint=str(first.folder / "checkpoint-1"))


def test_a_row_that_fits_no_pack_is_named(train, rows):
    with pytest.raises(DataError, match=r"rows\.jsonl:\d+ has \d+ tokens, too many for a pack of 8"):
        train(packing=True, packing_length=8, max_steps=1)


def test_packs_follow_the_number_of_processes(train):
    flags = {"packing": True, "packing_length": 48, "max_steps": 1}
    packs = [
        json.loads((train(**flags, packing_num_proc=number).folder / "run.json").read_text())["notes"]["packing"]
        for number in (1, 3, 3)
    ]
    assert packs[1] == packs[2]
    assert packs[1]["fill"] <= packs[0]["fill"]
