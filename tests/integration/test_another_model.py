"""A second model of a run: loaded as the first is, and blamed by its own flags."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import torch

import martlet
from martlet import MartletError, UsageError
from martlet_sdk.tiny import save_tiny_model, tiny_tokenizer
from martlet_train.another_model import AnotherModel, check_same_tokenizer, with_settings


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """Return the folder of a model of the same size and tokenizer with other weights."""
    return save_tiny_model(tmp_path_factory.mktemp("other") / "model", architecture="qwen3", seed=1)


@pytest.fixture
def another(tiny_model):
    """Return a function from flags to the reference that they name."""
    return lambda **flags: AnotherModel(martlet.prepare("rlhf", **{"model": str(tiny_model), **flags}), "ref_")


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def equal(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def plain(folder):
    from transformers import AutoModelForCausalLM

    return weights(AutoModelForCausalLM.from_pretrained(folder))


def test_without_a_name_it_is_the_model_itself(another, tiny_model):
    found = another()
    assert not found.named
    assert str(found) == f"--model {tiny_model}"
    assert equal(weights(found.load().model), plain(tiny_model))


def test_a_named_one_is_loaded(another, other, tiny_model):
    found = another(ref_model=str(other))
    assert found.named
    assert found.folder() == other
    loaded = found.load()
    assert loaded.path == other
    assert equal(weights(loaded.model), plain(other))
    run = found.run
    assert equal(weights(run.one("models").load(run).model), plain(tiny_model)), "its own is as ever"


def test_the_model_itself_may_be_named(another, tiny_model, monkeypatch):
    monkeypatch.chdir(tiny_model.parent)
    assert not another(ref_model=str(tiny_model)).named
    assert not another(ref_model=tiny_model.name).named
    assert another(ref_model=str(tiny_model), ref_model_revision="v2").named
    assert another(ref_model_revision="v2").named
    assert not another(ref_model_revision="v2", model_revision="v2").named


def test_a_folder_has_no_revision(another, other):
    with pytest.raises(UsageError, match=r"--ref_model_revision v2: .* is a folder"):
        another(ref_model=str(other), ref_model_revision="v2").load()


def test_its_family_is_found_as_that_of_any_model(another, tmp_path):
    gpt2 = save_tiny_model(tmp_path / "gpt2", architecture="gpt2")
    assert type(another(ref_model=str(gpt2)).load().model).__name__ == "GPT2LMHeadModel"
    assert type(another(ref_model=str(gpt2), ref_model_type="default").load().model).__name__ == "GPT2LMHeadModel"


def test_it_may_have_another_number_type(another, other):
    assert another(ref_model=str(other)).load(torch_dtype="bfloat16").model.dtype == torch.bfloat16


def test_its_adapters_are_its_own(another, tiny_model, tmp_path):
    folder = tmp_path / "sft"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(tiny_model)}))
    found = another(ref_adapters=[str(folder)])
    assert found.find_adapters() == found.load().adapters == [("sft", folder)]
    assert another().find_adapters() == another().load().adapters == []


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"ref_model": "{here}/nothing"}, "--ref_model {here}/nothing: there is no such folder."),
        ({"ref_model": "{here}/empty"}, "--ref_model {here}/empty: there is no config.json in it"),
        ({"ref_model": "{here}/file"}, "--ref_model {here}/file: this is a file; name the folder it is in"),
        ({"ref_model": "{here}/bare"}, "--ref_model {here}/bare: there are no weights in it"),
        ({"ref_model": "{here}/adapter"}, "name it with --ref_adapters, and the model it belongs to with --ref_model"),
        ({"ref_adapters": ["{here}/nothing"]}, "--ref_adapters {here}/nothing: there is no such folder."),
        ({"ref_model_type": "wren", "ref_model": "{here}/bare"}, "--ref_model_type wren: "),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_wrong_is_told_by_its_own_flags(flags, words, another, tiny_model, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    shutil.copytree(tiny_model, tmp_path / "bare", ignore=shutil.ignore_patterns("*.safetensors"))
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")

    def put(text):
        return [put(one) for one in text] if isinstance(text, list) else text.replace("{here}", str(tmp_path))

    found = another(**{name: put(value) for name, value in flags.items()})
    with pytest.raises(MartletError, match=re.escape(put(words))) as caught:
        found.load()
    assert not re.search(r"--(model|adapters)\b", str(caught.value))


def test_an_id_that_no_hub_has_is_told_by_its_own_flag(another, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(MartletError, match=r"--ref_model nobody/nothing: there is no such folder here, and "):
        another(ref_model="nobody/nothing", use_hf=True).load_processor()


def test_errors_about_the_model_itself_keep_their_flag(another, tmp_path, tiny_model):
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    found = another(model=str(folder))
    (folder / "model.safetensors").unlink()
    with pytest.raises(MartletError, match=r"--model .* there are no weights in it"):
        found.load()


def test_the_same_tokenizer_passes_whatever_the_size_of_the_head(another, tmp_path, tiny_model):
    wide = save_tiny_model(tmp_path / "wide", architecture="qwen3", hidden=32)
    found = another(ref_model=str(wide))
    check_same_tokenizer(found, martlet.prepare("rlhf", model=str(tiny_model)).one("models").load_processor(found.run))


def test_another_tokenizer_is_refused_with_the_first_token_that_differs(another, tmp_path, tiny_model):
    folder = tmp_path / "other"
    shutil.copytree(tiny_model, folder)
    file = folder / "tokenizer.json"
    facts = json.loads(file.read_text())
    names = {number: token for token, number in facts["model"]["vocab"].items()}
    facts["model"]["vocab"] |= {names[100]: 101, names[101]: 100}
    file.write_text(json.dumps(facts))
    found = another(ref_model=str(folder))
    words = f"--ref_model {folder}: its tokenizer differs from that of --model in 2 of "
    with pytest.raises(MartletError, match=re.escape(words)) as caught:
        check_same_tokenizer(found, found.run.one("models").load_processor(found.run))
    assert f"The first is {names[100]!r}: 100 in --model, 101 in the other." in str(caught.value)


def test_a_token_that_one_of_them_lacks_is_named(another, tmp_path, tiny_model):
    folder = tmp_path / "other"
    shutil.copytree(tiny_model, folder)
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|wren|>"]})
    tokenizer.save_pretrained(folder)
    found = another(ref_model=str(folder))
    with pytest.raises(MartletError, match=r"The first is '<\|wren\|>': missing in --model, \d+ in the other"):
        check_same_tokenizer(found, found.run.one("models").load_processor(found.run))


def test_a_run_with_other_settings_changes_nothing_in_the_first(tiny_model):
    run = martlet.prepare("rlhf", model=str(tiny_model))
    view = with_settings(run, model="another", no_such_flag=1)
    assert view.config.value("model") == "another"
    assert run.config.value("model") == str(tiny_model)
    assert view.seed == run.seed
