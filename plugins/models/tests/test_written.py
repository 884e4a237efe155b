"""Weights that changed since training wrote them are refused, by the checkpoint index beside them."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from martlet import CheckpointError
from martlet_models.written import check_as_written


def seal(folder: Path) -> None:
    """Write the index that training leaves in a checkpoint."""
    files = {
        file.name: {"size": file.stat().st_size, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
        for file in folder.iterdir()
    }
    index = {"format": "martlet-checkpoint", "version": 2, "sequence": 1, "facts": {"step": 1}, "files": files}
    (folder / "checkpoint.json").write_text(json.dumps(index))


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny_model, tmp_path / "checkpoint-1")
    seal(tmp_path / "checkpoint-1")
    return tmp_path / "checkpoint-1"


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint-2"
    folder.mkdir()
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    (folder / "adapter_model.safetensors").write_bytes(bytes(64))
    seal(folder)
    return folder


def test_one_flipped_byte_in_an_adapter_is_refused(tiny_model, adapter, prepare):
    run = prepare(model=str(tiny_model), adapters=[str(adapter)])
    loader = run.one("models")
    assert loader.load(run).adapters == [("checkpoint-2", adapter)]
    flip(adapter / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match=r"checkpoint-2/adapter_model\.safetensors: altered .* another copy"):
        loader.load(run)


def test_weights_of_another_size_are_refused_before_anything_is_read(model, prepare):
    from safetensors.torch import load_file, save_file

    tensors = load_file(model / "model.safetensors")
    tensors.popitem()
    save_file(tensors, model / "model.safetensors", {"format": "pt"})
    run = prepare(model=str(model))
    with pytest.raises(CheckpointError, match=r"model\.safetensors: altered .* bytes, and checkpoint\.json beside it"):
        run.emit("on_config", config=run.config)


def test_the_content_of_a_whole_model_is_compared_where_it_is_asked_for(model):
    weights = [model / "model.safetensors"]
    flip(weights[0])
    check_as_written(model, weights, sums=False)
    with pytest.raises(CheckpointError, match="its content is not what"):
        check_as_written(model, weights, sums=True)


def test_other_files_of_a_checkpoint_may_change_or_go(model, prepare):
    (model / "generation_config.json").write_text('{"temperature": 0.5}')
    (model / "tokenizer_config.json").touch()
    run = prepare(model=str(model))
    assert run.one("models").load(run).path == model


@pytest.mark.parametrize("text", ['{"format": "of another program", "files": {}}', "[]"])
def test_an_index_of_another_program_says_nothing(model, text):
    (model / "checkpoint.json").write_text(text)
    check_as_written(model, [model / "model.safetensors"], sums=True)


@pytest.mark.parametrize("text", ['{"format": "mart', '{"format": "martlet-checkpoint"}'])
def test_an_altered_index_is_refused(model, text):
    (model / "checkpoint.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"checkpoint\.json: .* use another copy of the checkpoint"):
        check_as_written(model, [model / "model.safetensors"], sums=False)
