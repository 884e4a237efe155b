"""The reference model where the tuner knows none: a second model, or what it said in advance."""

from __future__ import annotations

import json
import shutil
import weakref
from pathlib import Path

import pytest
import torch

from martlet import MartletError
from martlet_sdk.tiny import save_tiny_model
from martlet_train import reference as service

HERE = Path(__file__).parent


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "martlet" / "reference"


@pytest.fixture
def compare(train, cache):
    """Return a function that trains with the comparing algorithm: ``(result, what was said of each batch)``."""

    def run(name: str = "compare", **settings):
        result = train("rlhf", rlhf_type=name, external_plugins=plugins(), **{"max_steps": 3, **settings})
        from martlet.external.comparing import Compare

        return result, list(Compare.said)

    return run


def plugins():
    return [str(HERE / name) for name in ("standins.py", "comparing.py")]


@pytest.fixture
def runs(monkeypatch):
    """Count the passes of reference models."""
    found = []
    plain = service.Reference.compute
    monkeypatch.setattr(service.Reference, "compute", lambda self, *args: found.append(1) or plain(self, *args))
    return found


def values(said):
    """Return what the reference said of each row, which must be the same each time."""
    found = {}
    for batch in said:
        for number, (its, _) in batch.items():
            assert torch.equal(found.setdefault(number, its), its)
    return found


def close(one, other):
    return one.keys() == other.keys() and all(torch.allclose(one[n], other[n], atol=1e-5) for n in one)


def weights(checkpoint):
    from safetensors.torch import load_file

    return load_file(checkpoint / "model.safetensors")


def equal(one, other):
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


ONE_BATCH = {"per_device_train_batch_size": 21, "gradient_accumulation_steps": 1, "train_dataloader_shuffle": False}


def test_full_training_compares_with_the_model_as_it_was(compare):
    result, said = compare(**ONE_BATCH)
    assert len(values(said)) == 21
    first, last = said[0], said[-1]
    assert all(torch.equal(its, mine) for its, mine in first.values()), "before the first step they are one model"
    assert not any(torch.equal(its, mine) for its, mine in last.values())
    noted = json.loads((result.folder / "run.json").read_text())["notes"]["reference"]
    assert noted["is"].startswith("a second model (--model ")


@pytest.mark.parametrize("layout", [{"padding_free": True}, {"packing": True, "packing_length": 256}], ids=str)
def test_layouts_agree(layout, compare):
    _, padded = compare(**ONE_BATCH)
    _, other = compare(**ONE_BATCH | layout)
    assert close(values(padded), values(other))


def test_another_model_is_loaded_where_it_is_named(compare, tmp_path):
    other = save_tiny_model(tmp_path / "other", architecture="qwen3", seed=1)
    plain, (result, said) = compare(**ONE_BATCH), compare(**ONE_BATCH, ref_model=str(other))
    assert not close(values(plain[1]), values(said))
    assert f"a second model (--ref_model {other})" in (result.folder / "run.json").read_text()


def test_another_tokenizer_is_refused_before_rows_are_read(prepare, tmp_path, tiny_model):
    other = tmp_path / "other"
    shutil.copytree(tiny_model, other)
    facts = json.loads((other / "tokenizer.json").read_text())
    facts["added_tokens"][0]["content"] = "<|wren|>"
    vocabulary = facts["model"]["vocab"]
    for old in [token for token, number in vocabulary.items() if number == facts["added_tokens"][0]["id"]]:
        vocabulary["<|wren|>"] = vocabulary.pop(old)
    (other / "tokenizer.json").write_text(json.dumps(facts))
    (tmp_path / "no-rows.jsonl").write_text("{}\n")
    settings = {"rlhf_type": "compare", "external_plugins": plugins(), "dataset": [str(tmp_path / "no-rows.jsonl")]}
    run = prepare("rlhf", **settings, ref_model=str(other))
    with pytest.raises(MartletError, match=f"--ref_model {other}: its tokenizer differs .* The first is '<.*>'"):
        run.execute()


def test_resuming_goes_on_to_the_bit(compare):
    whole, _ = compare(max_steps=4, save_steps=2)
    again, _ = compare(max_steps=4, save_steps=2, resume_from_checkpoint=str(whole.folder / "checkpoint-2"))
    assert equal(weights(whole.checkpoint), weights(again.checkpoint))


def test_resuming_with_another_reference_is_told(compare, tmp_path):
    whole, _ = compare(max_steps=2, save_steps=1)
    other = save_tiny_model(tmp_path / "other", architecture="qwen3", seed=1)
    again, _ = compare(
        max_steps=2, save_steps=1, resume_from_checkpoint=str(whole.folder / "checkpoint-1"), ref_model=str(other)
    )
    warnings = json.loads((again.folder / "run.json").read_text())["warnings"]
    assert any(f"ref_model (None then, {other} now)" in text for text in warnings)


# Computed in advance


def test_in_advance_is_what_it_says_while_training(compare):
    _, now = compare(**ONE_BATCH, num_train_epochs=2)
    _, before = compare(**ONE_BATCH, num_train_epochs=2, precompute_ref_log_probs=True)
    assert close(values(now), values(before))


def test_in_advance_is_the_same_to_the_bit_in_the_same_batches(compare, rows, tmp_path):
    """One row at a time, so that the batches are those of the training."""
    one = {"max_steps": 21, "gradient_accumulation_steps": 1}
    _, now = compare(**one)
    _, before = compare(**one, precompute_ref_log_probs=True)
    now, before = values(now), values(before)
    assert now.keys() == before.keys() and equal(now, before)


@pytest.mark.parametrize("layout", [{"padding_free": True}, {"packing": True, "packing_length": 256}], ids=str)
def test_in_advance_in_other_layouts(layout, compare):
    _, now = compare(**ONE_BATCH)
    _, before = compare(**ONE_BATCH | layout, precompute_ref_log_probs=True)
    assert close(values(now), values(before))


def test_a_second_run_finds_what_the_first_has_kept(compare, cache, runs):
    one, _ = compare(precompute_ref_log_probs=True, per_device_eval_batch_size=4)
    assert len(runs) == 6  # batches of 4 rows
    (file,) = cache.iterdir()
    written = file.read_bytes()
    other, _ = compare(precompute_ref_log_probs=True, per_device_eval_batch_size=4)
    assert len(runs) == 6
    assert file.read_bytes() == written
    assert equal(weights(one.checkpoint), weights(other.checkpoint))


@pytest.mark.parametrize("change", ["rows", "weights", "flags"])
def test_what_the_numbers_depend_on_is_part_of_the_place(change, compare, cache, rows, tmp_path, tiny_model):
    compare(precompute_ref_log_probs=True)
    settings = {}
    if change == "rows":
        settings["dataset"] = [str(tmp_path / "fewer.jsonl")]
        (tmp_path / "fewer.jsonl").write_text("".join(rows.open().readlines()[:-1]))
    elif change == "weights":
        settings["ref_model"] = str(save_tiny_model(tmp_path / "other", architecture="qwen3", seed=1))
    else:
        settings["attn_impl"] = "eager"
    compare(precompute_ref_log_probs=True, **settings)
    assert len(list(cache.iterdir())) == 2


def test_a_damaged_file_is_computed_anew(compare, cache, runs):
    compare(precompute_ref_log_probs=True)
    (file,) = cache.iterdir()
    whole, count = file.read_bytes(), len(runs)
    file.write_bytes(whole[:-7])
    result, _ = compare(precompute_ref_log_probs=True)
    assert len(runs) == 2 * count
    assert file.read_bytes() == whole
    assert f"{file} cannot be read" in (result.folder / "run.json").read_text()


def test_a_folder_that_cannot_be_written_costs_no_run(compare, cache, runs):
    cache.parent.mkdir(parents=True)
    cache.write_text("a file in its place")
    result, said = compare(precompute_ref_log_probs=True)
    assert values(said)
    assert "cannot be written" in (result.folder / "run.json").read_text()


def test_a_signal_before_the_first_step_ends_the_run(compare, cache, monkeypatch):
    plain = service.Reference.compute

    def signalled(self, *args):
        self.trainer.job.interruption.signal = 15
        return plain(self, *args)

    monkeypatch.setattr(service.Reference, "compute", signalled)
    with pytest.raises(MartletError, match="Stopped by SIGTERM before the first step; nothing was trained") as caught:
        compare(precompute_ref_log_probs=True)
    assert caught.value.exit_code == 128 + 15
    assert not cache.exists()


def test_the_second_model_is_freed_before_the_first_step(compare, monkeypatch):
    loaded, seen = [], []
    load, says = service.Reference.load, service.Reference.training

    def watched(self):
        load(self)
        loaded.extend(weakref.ref(parameter) for parameter in self.model.parameters())

    def training(self, *args):
        seen.append([weight() for weight in loaded if weight() is not None])
        return says(self, *args)

    monkeypatch.setattr(service.Reference, "load", watched)
    monkeypatch.setattr(service.Reference, "training", training)
    compare(precompute_ref_log_probs=True)
    assert loaded and seen and not any(seen)


def test_evaluation_has_numbers_of_its_own(compare, cache, rows):
    settings = {"val_dataset": [str(rows)], "max_steps": 2, "eval_strategy": "steps", "eval_steps": 1}
    now, _ = compare(**settings)
    before, _ = compare(**settings, precompute_ref_log_probs=True)
    assert len(list(cache.iterdir())) == 2, "the same rows in another order"
    assert before.metrics["eval_gap"] == pytest.approx(now.metrics["eval_gap"], abs=1e-5)


def test_resuming_reads_what_was_computed_in_advance(compare, runs):
    settings = {"max_steps": 4, "save_steps": 2, "precompute_ref_log_probs": True}
    whole, _ = compare(**settings)
    count = len(runs)
    again, _ = compare(**settings, resume_from_checkpoint=str(whole.folder / "checkpoint-2"))
    assert len(runs) == count
    assert equal(weights(whole.checkpoint), weights(again.checkpoint))


@pytest.mark.parametrize("flag", ["streaming", "lazy_tokenize"])
def test_rows_that_are_not_known_before_training_are_refused(flag, compare):
    with pytest.raises(MartletError, match=f"--precompute_ref_log_probs true .* with --{flag} true the rows are not"):
        compare(precompute_ref_log_probs=True, **{flag: True})


def test_more_than_log_probabilities_is_not_there_in_advance(compare):
    compare("asking")
    with pytest.raises(MartletError, match="keeps log-probabilities alone"):
        compare("asking", precompute_ref_log_probs=True)


def test_an_algorithm_without_a_reference_loads_none_and_says_so(compare, tmp_path, monkeypatch):
    monkeypatch.setattr(service.Reference, "load", None)
    result, _ = compare("alone", ref_model=str(tmp_path / "nothing"), precompute_ref_log_probs=True)
    warnings = json.loads((result.folder / "run.json").read_text())["warnings"]
    assert [text for text in warnings if "ref_" in text] == [
        f"--{name} has no effect: this algorithm compares with no reference model."
        for name in ("ref_model", "precompute_ref_log_probs")
    ]


def test_two_reference_adapters_are_refused(compare):
    with pytest.raises(MartletError, match="--ref_adapters: a reference has one adapter; name one"):
        compare(ref_adapters=["one", "two"])


def test_an_adapter_that_no_tuner_can_load_is_refused(compare, tmp_path):
    (tmp_path / "adapter").mkdir()
    with pytest.raises(MartletError, match=r"--ref_adapters .*adapter: no installed tuner loads adapters"):
        compare(ref_adapters=[str(tmp_path / "adapter")])
