"""Nothing in a model folder runs, whatever the folder says."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from martlet import CheckpointError, MartletError, UsageError
from martlet_models import attention

CODE = """
from pathlib import Path
Path({marker!r}).touch()
from transformers import PreTrainedConfig, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM
class Config(Qwen3Config):
    model_type = "trap"
class Model(Qwen3ForCausalLM):
    config_class = Config
class Tokenizer(PreTrainedTokenizerFast):
    pass
"""


class Trap:
    """Unpickling it creates a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple[str, int]]:
        return os.mkdir, (str(self.marker), 0o755)


@pytest.fixture
def trapped(tiny_model, tmp_path):
    """Return a model folder full of things that must not run, and the path whose existence would prove it did."""
    folder, marker = tmp_path / "model", tmp_path / "marker"
    shutil.copytree(tiny_model, folder)
    (folder / "trap.py").write_text(CODE.format(marker=str(marker)))
    for name in ("training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth", "cache.pkl", ".metadata"):
        (folder / name).write_bytes(pickle.dumps(Trap(marker)))
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text(CODE.format(marker=str(marker)))
    return folder, marker


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


MAP = {"AutoConfig": "trap.Config", "AutoModelForCausalLM": "trap.Model", "AutoTokenizer": ["trap.Tokenizer", None]}


def test_code_of_a_known_architecture_is_left_alone(trapped, prepare):
    folder, marker = trapped
    edit(folder / "config.json", auto_map=MAP)
    run = prepare(model=str(folder))
    assert type(run.one("models").load(run).model).__name__ == "Qwen3ForCausalLM"
    assert not marker.exists()


def test_an_architecture_of_its_own_is_refused(trapped, prepare):
    folder, marker = trapped
    edit(folder / "config.json", auto_map=MAP, model_type="trap")
    run = prepare(model=str(folder))
    for step in (run.one("models").load, run.one("models").load_processor, run.one("models").skeleton):
        with pytest.raises(UsageError, match=r"runs Python code of its own .* --trust_remote_code true"):
            step(run)
    assert not marker.exists()


def test_trust_remote_code_runs_it(trapped, prepare, monkeypatch, tmp_path):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder, marker = trapped
    edit(folder / "config.json", auto_map=MAP, model_type="trap")
    run = prepare(model=str(folder), trust_remote_code=True)
    assert type(run.one("models").skeleton(run)).__name__ == "Model"
    assert marker.exists()


def test_a_checkpoint_cannot_switch_it_on(tiny_model, prepare, tmp_path):
    recorded = {"model": str(tiny_model), "torch_dtype": "bfloat16", "trust_remote_code": True}
    (tmp_path / "args.json").write_text(json.dumps(recorded))
    (tmp_path / "adapter_config.json").write_text("{}")
    config = prepare(adapters=[str(tmp_path)], load_args=True).config
    assert config.value("torch_dtype") == "bfloat16"  # the file was read
    assert config.value("trust_remote_code") is False


def test_a_tokenizer_of_its_own_never_runs(trapped, prepare):
    folder, marker = trapped
    edit(folder / "tokenizer_config.json", auto_map=MAP, tokenizer_class="Tokenizer")
    run = prepare(model=str(folder))
    try:
        run.one("models").load_processor(run)
    except MartletError as error:
        assert "tokenizer" in str(error)
    assert not marker.exists()


@pytest.mark.parametrize("typed", [True, False])
def test_a_pickle_among_the_weights_is_refused(trapped, prepare, typed):
    """Where config.json names no number type, transformers opens the file a first time to find it out."""
    folder, marker = trapped
    if not typed:
        edit(folder / "config.json", dtype=None, torch_dtype=None)
    state = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    torch.save(state | {"extra": Trap(marker)}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    run = prepare(model=str(folder))
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin.*more than tensors"):
        run.one("models").load(run)
    assert not marker.exists()


def test_a_bare_pickle_named_like_weights_is_refused(trapped, prepare):
    folder, marker = trapped
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(marker)))
    (folder / "model.safetensors").unlink()
    run = prepare(model=str(folder))
    with pytest.raises(CheckpointError):
        run.one("models").load(run)
    assert not marker.exists()


KERNEL = "someone/kernel@main:attention"


@pytest.mark.parametrize(
    "change",
    [
        {"attn_implementation": KERNEL},
        {"_attn_implementation": KERNEL},
        {"_attn_implementation_internal": KERNEL},
        {"attn_implementation": {"": "sdpa", "text_config": KERNEL}},
        {"text_config": {"_attn_implementation": KERNEL}},
        {"parts": [{"deep": {"attn_implementation": KERNEL}}]},
        {"attn_implementation": "paged|sdpa"},
    ],
)
def test_a_kernel_named_in_the_configuration_is_refused(change, trapped, prepare, monkeypatch):
    folder, _ = trapped
    edit(folder / "config.json", **change)
    asked: list[str] = []
    monkeypatch.setattr("transformers.modeling_utils.lazy_import_flash_attention", lambda name, **_: asked.append(name))
    run = prepare(model=str(folder))
    for step in (run.one("models").load, run.one("models").skeleton, run.one("models").load_processor):
        with pytest.raises(CheckpointError, match=r"config\.json: it asks for the attention implementation"):
            step(run)
    assert asked == []


def test_the_flag_overrides_a_kernel_named_in_the_configuration(trapped, prepare):
    folder, _ = trapped
    edit(folder / "config.json", _attn_implementation=KERNEL, parts=[{"attn_implementation": KERNEL}])
    run = prepare(model=str(folder), attn_impl="sdpa")
    assert run.one("models").load(run).model.config._attn_implementation == "sdpa"


def test_an_expert_implementation_that_is_unknown_is_refused(trapped, prepare):
    folder, _ = trapped
    edit(folder / "config.json", experts_implementation=KERNEL)
    run = prepare(model=str(folder))
    with pytest.raises(CheckpointError, match="expert implementation"):
        run.one("models").load(run)


def test_an_adapter_in_the_model_folder_is_not_applied(trapped, prepare):
    folder, _ = trapped
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "someone/else", "peft_type": "LORA"}')
    run = prepare(model=str(folder))
    with pytest.raises(UsageError, match="both a model and an adapter"):
        run.one("models").load(run)


def test_an_index_cannot_point_outside_its_folder(trapped, prepare):
    folder, _ = trapped
    (folder / "model.safetensors").rename(folder.parent / "elsewhere.safetensors")
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../elsewhere.safetensors"}}')
    run = prepare(model=str(folder))
    with pytest.raises(CheckpointError, match="not a file beside it"):
        run.one("models").load(run)


def test_every_implementation_of_the_list_is_one_that_transformers_has():
    from transformers import AttentionInterface

    known = {"eager", *AttentionInterface().valid_keys()}
    assert set(attention.ALLOWED) <= known
    assert not any("/" in name for name in attention.ALLOWED)
