"""A wrong ``--model`` is refused at once, in a sentence that says what to do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from martlet import CheckpointError, ConfigError, MartletError, UsageError
from martlet_models import source
from martlet_models.adapters import split_name


@pytest.fixture
def refused(prepare):
    """Return ``refused(error, match, **settings)``: ``on_config`` raises that, and soon."""

    def check(error: type[Exception], match: str, **settings: Any) -> None:
        run = prepare(**settings)
        start = time.perf_counter()
        with pytest.raises(error, match=match):
            run.emit("on_config", config=run.config)
        assert time.perf_counter() - start < 10

    return check


@pytest.fixture
def folder(tiny_model, tmp_path):
    shutil.copytree(tiny_model, tmp_path / "wren")
    return tmp_path / "wren"


def test_no_model(refused):
    refused(UsageError, "--model is missing")


def test_a_misspelt_folder_suggests_its_neighbour(refused, folder):
    refused(UsageError, f"there is no such folder. Did you mean {folder}", model=str(folder.parent / "wrenn"))


def test_a_misspelt_folder_above_it_is_named(refused, folder):
    refused(UsageError, f"Did you mean {folder}", model=f"{folder.parent}/wrem/checkpoint-10")


def test_a_path_below_nothing_says_where_the_way_ends(refused, tmp_path):
    refused(UsageError, f"{tmp_path} has no folder zzz", model=f"{tmp_path}/zzz/model")


def test_a_file(refused, folder):
    refused(UsageError, f"this is a file; name the folder it is in: {folder}", model=str(folder / "config.json"))


def test_a_folder_without_configuration(refused, tmp_path):
    refused(UsageError, "no config.json in it, so it is not the folder of a model", model=str(tmp_path))


def test_the_folder_above_checkpoints_suggests_the_newest(refused, folder, tmp_path):
    newest = tmp_path / "checkpoint-20"
    shutil.copytree(folder, newest)
    os.utime(folder, (1, 1))
    refused(UsageError, f"did you mean {newest}", model=str(tmp_path))


def test_an_adapter(refused, tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    refused(UsageError, "this is an adapter, not a model; name it with --adapters", model=str(tmp_path))


def test_a_configuration_that_is_no_json(refused, folder):
    (folder / "config.json").write_text("{")
    refused(CheckpointError, r"config\.json: not a readable JSON file", model=str(folder))


def test_no_weights(refused, folder):
    (folder / "model.safetensors").rename(folder / "model.gguf")
    refused(UsageError, r"no weights in it \(it holds model\.gguf\); model\.safetensors", model=str(folder))


def test_a_missing_part(refused, folder):
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(CheckpointError, "model-00001-of-00002.safetensors is missing", model=str(folder))


def test_a_git_lfs_pointer(refused, folder):
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    refused(CheckpointError, "Git LFS pointer", model=str(folder))


@given(st.data())
def test_weights_cut_short_anywhere(data):
    whole = _whole()
    cut = data.draw(st.integers(0, len(whole) - 1))
    _check_bytes(whole[:cut])


@given(st.integers(0, 7), st.integers(1, 255))
def test_weights_with_a_wrong_length_in_front(place, change):
    whole = bytearray(_whole())
    whole[place] ^= change
    _check_bytes(bytes(whole))


def _whole() -> bytes:
    header = json.dumps({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(16)


def _check_bytes(data: bytes) -> None:
    import tempfile

    from martlet_models.check import check_weights

    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "model.safetensors").write_bytes(data)
        with pytest.raises(CheckpointError, match=r"model\.safetensors"):
            check_weights(Path(name))


def test_whole_weights_pass(folder):
    from martlet_models.check import check_weights

    check_weights(folder)
    assert load_file(folder / "model.safetensors")


def test_weights_that_break_only_inside_are_refused_by_the_loader(folder, prepare):
    data = bytearray((folder / "model.safetensors").read_bytes())
    length = int.from_bytes(data[:8], "little")
    data[8 : 8 + length] = data[8 : 8 + length].replace(b'"F32"', b'"F99"')
    (folder / "model.safetensors").write_bytes(bytes(data))
    run = prepare(model=str(folder))
    with pytest.raises(CheckpointError, match="not whole safetensors files"):
        run.one("models").load(run)


def test_a_model_type_that_transformers_lacks(folder, prepare):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "qwenn3"}))
    run = prepare(model=str(folder))
    with pytest.raises(MartletError, match=r"'qwenn3' is not known to transformers .* Did you mean qwen3"):
        run.one("models").skeleton(run)


def test_a_configuration_value_of_a_wrong_type(folder, prepare):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": "two"}))
    run = prepare(model=str(folder))
    with pytest.raises(MartletError) as caught:
        run.one("models").load(run)
    assert str(caught.value) == (
        f"{folder}/config.json: transformers cannot read it: Field 'num_hidden_layers' expected int, got str "
        "(value: 'two'). Mend it, or download it again."
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"eos_token_id": "y"}', "eos_token_id is 'y' and has to be the number of a token"),
        ('{"pad_token_id": 1.5}', "pad_token_id is 1.5"),
        ('{"eos_token_id": [1, null]}', r"eos_token_id is \[1, None\]"),
        ("[]", "must hold one JSON object"),
        ("{", "not a readable JSON file"),
    ],
)
def test_a_generation_configuration_that_would_fail_after_the_training(refused, folder, text, words):
    (folder / "generation_config.json").write_text(text)
    refused(CheckpointError, rf"generation_config\.json: .*{words}.* remove the file", model=str(folder))


def test_a_model_that_is_no_language_model(folder, prepare):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "vit"}))
    run = prepare(model=str(folder))
    with pytest.raises(MartletError, match="a vit model is not a causal language model"):
        run.one("models").skeleton(run)


def test_weights_of_another_size(folder, prepare):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 96}))
    run = prepare(model=str(folder))
    with pytest.raises(MartletError, match=r"--model .* transformers cannot load it"):
        run.one("models").load(run)


def test_a_folder_without_tokenizer(folder, prepare):
    for file in folder.glob("*token*"):
        file.unlink()
    run = prepare(model=str(folder))
    with pytest.raises(UsageError, match=r"there is no tokenizer in it \(tokenizer\.json\)"):
        run.one("models").load_processor(run)


def test_a_misspelt_adapter(refused, folder, tmp_path):
    (tmp_path / "adapter").mkdir()
    settings = {"model": str(folder), "adapters": [f"mine={tmp_path}/adaptor"]}
    refused(UsageError, f"--adapters {tmp_path}/adaptor: there is no such folder. Did you mean", **settings)


def test_a_tuner_library_that_nobody_provides(refused, folder):
    settings = {"model": str(folder), "tuner_backend": "unsloth"}
    refused(ConfigError, "--tuner_backend unsloth: no installed plugin provides it", **settings)


def test_the_check_imports_no_torch(tmp_path):
    code = (
        "import sys, pathlib, types\n"
        "from martlet_models.args import LoadingArguments, ModelArguments\n"
        "from martlet_models.check import check_settings\n"
        "try:\n"
        f"    check_settings(ModelArguments(model={str(tmp_path / 'nothing')!r}), LoadingArguments())\n"
        "except Exception as error:\n"
        "    print(type(error).__name__, 'torch' in sys.modules, 'transformers' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["UsageError", "False", "False"]


def test_an_adapter_that_is_not_there_is_blamed_and_not_the_model(refused, tmp_path):
    for text in ("nope", str(tmp_path / "nope")):
        refused(UsageError, rf"^--adapters {text}: there is no such folder", adapters=[text])


def test_an_adapter_without_its_model_is_blamed(refused, tmp_path):
    refused(UsageError, "--adapters .*does not say which model it belongs to", adapters=[str(tmp_path)])


def test_the_folder_of_a_run_leads_to_its_last_checkpoint(refused, tiny_model, tmp_path):
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / "last").mkdir()
    refused(UsageError, f"last checkpoint is {tmp_path / 'last'}$", model=str(tiny_model), adapters=[str(tmp_path)])


@given(st.text(min_size=1, max_size=30))
def test_any_text_is_a_folder_an_id_or_a_usage_error(text):
    if source.local(text) is None:
        try:
            assert source.check(text, "--model") is None
        except UsageError as error:
            assert "--model" in str(error)


@pytest.mark.parametrize(
    "entry, expected",
    [
        ("a=b/c", ("a", "b/c")),
        ("org/name", ("", "org/name")),
        ("/x/lr=1e-4/ckpt", ("", "/x/lr=1e-4/ckpt")),
        ("hf::org/name", ("", "hf::org/name")),
        ("mine=hf::org/name", ("mine", "hf::org/name")),
    ],
)
def test_an_adapter_may_have_a_name(entry, expected):
    assert split_name(entry) == expected
