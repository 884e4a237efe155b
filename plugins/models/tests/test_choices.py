"""Hubs, adapters, model types and patches."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from martlet import AmbiguousComponent, MartletError, UsageError
from martlet_sdk.tiny import save_tiny_model


@pytest.fixture
def shelved(tiny_model, shelf):
    """Put the tiny model onto the shelf as birds/wren."""
    shutil.copytree(tiny_model, shelf / "birds" / "wren")
    return shelf / "birds" / "wren"


# Hubs


def test_an_id_is_downloaded_once_at_its_revision(shelved, prepare):
    run = prepare(model="birds/wren", model_revision="v2")
    loader = run.one("models")
    assert loader.load(run).path == shelved
    loader.load_processor(run)
    assert run.one("hubs").downloads == [("birds/wren", "v2")]


def test_a_folder_has_no_revision(tiny_model, prepare):
    run = prepare(model=str(tiny_model), model_revision="v2")
    with pytest.raises(UsageError, match=r"--model_revision v2: .* is a folder"):
        run.one("models").load(run)


def test_a_model_from_a_hub_is_called_by_its_id(shelved, prepare):
    run = prepare(model="shelf::birds/wren")
    assert run.one("models").load(run).model.name_or_path == "birds/wren"


def test_a_model_from_a_folder_is_called_by_its_absolute_path(tiny_model, prepare, monkeypatch):
    monkeypatch.chdir(tiny_model.parent)
    run = prepare(model=tiny_model.name)
    assert run.one("models").load(run).model.name_or_path == str(tiny_model)


def test_a_folder_wins_over_the_hub(shelved, tiny_model, tmp_path, prepare, monkeypatch):
    shutil.copytree(tiny_model, tmp_path / "here" / "birds" / "wren")
    monkeypatch.chdir(tmp_path / "here")
    run = prepare(model="birds/wren")
    assert run.one("models").load(run).path == tmp_path / "here" / "birds" / "wren"
    assert run.one("hubs").downloads == []


def test_an_id_that_the_hub_lacks_suggests_folders_of_that_name(shelf, tiny_model, tmp_path, prepare, monkeypatch):
    (tmp_path / "wren-small").mkdir()
    monkeypatch.chdir(tmp_path)
    run = prepare(model="wren-smal")
    with pytest.raises(MartletError, match=r"no such folder here, and the shelf has no wren-smal.*Did you mean"):
        run.one("models").load(run)


def test_a_skeleton_downloads_nothing(shelved, prepare):
    run = prepare(model="birds/wren")
    with pytest.raises(MartletError, match="not on this machine yet"):
        run.one("models").skeleton(run)
    assert run.one("hubs").downloads == []


# Adapters


def test_adapters_get_names_and_are_not_applied(tiny_model, tmp_path, shelf, prepare):
    for name in ("a/v1.0", "b/v1.0", "third"):
        (tmp_path / name).mkdir(parents=True)
    (shelf / "birds" / "song").mkdir(parents=True)
    entries = [str(tmp_path / "a/v1.0"), str(tmp_path / "b/v1.0"), f"mine={tmp_path}/third", "birds/song"]
    run = prepare(model=str(tiny_model), adapters=entries)
    loaded = run.one("models").load(run)
    folders = [tmp_path / "a/v1.0", tmp_path / "b/v1.0", tmp_path / "third", shelf / "birds/song"]
    assert loaded.adapters == list(zip(["v1_0", "v1_0-2", "mine", "song"], folders, strict=True))
    assert type(loaded.model).__name__ == "Qwen3ForCausalLM"


def test_two_adapters_of_one_given_name_are_refused(tiny_model, tmp_path, prepare):
    run = prepare(model=str(tiny_model), adapters=[f"a={tmp_path}", f"a={tmp_path}"])
    with pytest.raises(UsageError, match="the name 'a' is used twice"):
        run.one("models").load(run)


def test_an_adapter_says_which_model_it_needs(tiny_model, tmp_path, prepare):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(tiny_model)}))
    run = prepare(adapters=[f"mine={tmp_path}"])
    assert run.config.value("model") == str(tiny_model)
    assert "adapter_config.json says so" in str(run.config.origin("model"))


def test_a_model_that_is_given_is_not_replaced_by_the_adapters(tiny_model, tmp_path, prepare):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "birds/other"}))
    run = prepare(model=str(tiny_model), adapters=[str(tmp_path)])
    assert run.config.value("model") == str(tiny_model)


# Model types


def test_a_checkpoint_goes_to_the_family_that_claims_its_id(shelved, prepare):
    run = prepare("families", model="birds/Wren".lower())
    assert run.one("models").load_processor(run) == "the tokenizer of wren"


def test_a_folder_goes_to_the_family_that_claims_its_name(tiny_model, tmp_path, prepare):
    shutil.copytree(tiny_model, tmp_path / "Wren-7B")
    run = prepare("families", model=str(tmp_path / "Wren-7B") + "/")
    assert run.one("models").load_processor(run) == "the tokenizer of wren"
    assert run.one("models").facts(run).template == "chatml"


def test_a_checkpoint_goes_to_the_family_of_its_architecture(tiny_model, prepare):
    run = prepare("families", model=str(tiny_model))
    assert run.one("models").load_processor(run) == "the tokenizer of qwen"
    assert run.one("models").load(run).model.config.model_type == "qwen3"
    assert {"kind": "models", "name": "qwen", "plugin": "families"} in run.record.components


def test_model_type_wins(tiny_model, prepare):
    run = prepare("families", model=str(tiny_model), model_type="wren")
    assert run.one("models").load_processor(run) == "the tokenizer of wren"


def test_a_family_without_a_loader_uses_the_default_one(tmp_path, prepare):
    folder = save_tiny_model(tmp_path / "llama", architecture="llama")
    run = prepare("plain_family", model=str(folder))
    assert run.one("models").load(run).model.config.model_type == "llama"
    assert run.one("models").facts(run).template == "chatml"


def test_two_families_that_claim_alike_are_an_error_that_names_both(tiny_model, prepare):
    run = prepare("families", "rival_family", model=str(tiny_model))
    with pytest.raises(AmbiguousComponent, match="--model_type families::qwen or --model_type rival_family::qwen-too"):
        run.one("models").load(run)


# Patches


def test_patches_act_in_the_order_that_the_user_wrote(tiny_model, prepare):
    bare = prepare(model=str(tiny_model))
    plain = bare.one("models").load(bare).model.lm_head.weight.detach().clone()
    run = prepare("patches", model=str(tiny_model), model_patches=["shifted", "doubled"])
    model = run.one("models").load(run).model
    assert torch.equal(model.lm_head.weight, (plain + 1) * 2)
    assert model.config.use_cache is False


def test_patches_that_conflict_are_refused(tiny_model, prepare):
    with pytest.raises(UsageError, match="cannot be used together"):
        prepare("patches", model=str(tiny_model), model_patches=["shifted", "rival"])
