"""What ``--model`` and the flags beside it load."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from martlet import CheckpointError, UsageError
from martlet_sdk.tiny import save_tiny_model

IDS = torch.arange(3, 23).view(2, 10)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


def copy(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to)
    return to


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize("architecture", ["qwen3", "llama", "gpt2", "qwen3_moe"])
def test_the_model_is_the_one_that_transformers_loads(architecture, tmp_path, prepare):
    folder = save_tiny_model(tmp_path / "model", architecture=architecture)
    run = prepare(model=str(folder))
    loaded = run.one("models").load(run)
    assert torch.equal(logits(loaded.model), logits(AutoModelForCausalLM.from_pretrained(folder)))
    assert loaded.path == folder
    assert not loaded.model.training


def tensors(model: Any) -> dict[str, Any]:
    named = (*model.named_parameters(), *model.named_buffers())
    return {name: (tensor.shape, tensor.dtype) for name, tensor in named}


@pytest.mark.parametrize("architecture", ["qwen3", "gpt2", "qwen3_moe"])
def test_the_skeleton_has_the_same_shapes_and_no_memory(architecture, tmp_path, prepare):
    folder = save_tiny_model(tmp_path / "model", architecture=architecture, tie_word_embeddings=True)
    run = prepare(model=str(folder))
    skeleton, model = run.one("models").skeleton(run), run.one("models").load(run).model
    assert tensors(skeleton) == tensors(model)
    assert {p.device.type for p in skeleton.parameters()} == {"meta"}


@pytest.mark.parametrize(
    ("architecture", "dtype"), [("gpt_oss", "float16"), ("gpt_oss", "bfloat16"), ("ernie4_5_moe", "bfloat16")]
)
def test_the_skeleton_keeps_wide_what_loading_keeps_wide(architecture, dtype, tmp_path, prepare):
    folder = save_tiny_model(tmp_path / "model", architecture=architecture, moe_num_experts=4, num_local_experts=4)
    run = prepare(model=str(folder), torch_dtype=dtype)
    skeleton, model = run.one("models").skeleton(run), run.one("models").load(run).model
    assert tensors(skeleton) == tensors(model)
    kinds = {p.dtype for p in model.parameters()}
    assert (torch.float32 in kinds) == ((architecture, dtype) != ("gpt_oss", "bfloat16"))


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_the_skeleton_has_the_stored_type_where_the_configuration_names_none(file, tiny_model, tmp_path, prepare):
    folder = copy(tiny_model, tmp_path / "model")
    AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16).save_pretrained(folder)
    if file.endswith(".bin"):
        torch.save(load_file(folder / "model.safetensors"), folder / file)
        (folder / "model.safetensors").unlink()
    edit(folder / "config.json", dtype=None)
    run = prepare(model=str(folder))
    assert run.one("models").load(run).model.dtype == run.one("models").skeleton(run).dtype == torch.bfloat16


def test_the_tokenizer_is_the_one_that_transformers_loads(tiny_model, prepare):
    run = prepare(model=str(tiny_model))
    text = "<|im_start|>user\nA bird, 3 times: naïve?<|im_end|>"
    ours, plain = run.one("models").load_processor(run), AutoTokenizer.from_pretrained(tiny_model)
    assert ours(text).input_ids == plain(text).input_ids
    assert ours.chat_template == plain.chat_template


def test_a_tokenizer_without_padding_pads_with_its_end_of_turn(tiny_model, tmp_path, prepare):
    folder = copy(tiny_model, tmp_path / "model")
    edit(folder / "tokenizer_config.json", pad_token=None)
    run = prepare(model=str(folder))
    assert run.one("models").load_processor(run).pad_token == "<|im_end|>"


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float32"])
def test_torch_dtype_wins_over_the_checkpoint(name, tiny_model, prepare):
    run = prepare(model=str(tiny_model), torch_dtype=name)
    assert run.one("models").load(run).model.dtype == getattr(torch, name)
    assert run.one("models").skeleton(run).dtype == getattr(torch, name)


def test_without_torch_dtype_the_checkpoint_decides(tiny_model, tmp_path, prepare):
    AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16).save_pretrained(tmp_path / "half")
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path / "half")
    run = prepare(model=str(tmp_path / "half"))
    assert run.one("models").load(run).model.dtype == torch.bfloat16


@pytest.mark.parametrize("given, used", [("eager", "eager"), ("sdpa", "sdpa"), (None, "sdpa")])
def test_attn_impl_is_used(given, used, tiny_model, prepare):
    run = prepare(model=str(tiny_model), attn_impl=given)
    assert run.one("models").load(run).model.config._attn_implementation == used


def test_an_allowed_attention_of_the_checkpoint_is_used(tiny_model, tmp_path, prepare):
    folder = copy(tiny_model, tmp_path / "model")
    edit(folder / "config.json", attn_implementation="eager")
    run = prepare(model=str(folder))
    assert run.one("models").load(run).model.config._attn_implementation == "eager"


@pytest.mark.skipif(torch.cuda.is_available(), reason="flash attention may be installed here")
def test_flash_attention_that_is_not_installed_is_refused_rather_than_downloaded(tiny_model, prepare):
    run = prepare(model=str(tiny_model), attn_impl="flash_attn")
    with pytest.raises(UsageError, match=r"--attn_impl flash_attn: flash_attention_2 needs .* flash-attn"):
        run.one("models").load(run)


def test_experts_impl_is_used_where_there_are_experts(tmp_path, prepare):
    run = prepare(model=str(save_tiny_model(tmp_path / "moe", architecture="qwen3_moe")), experts_impl="batched_mm")
    assert run.one("models").load(run).model.config._experts_implementation == "batched_mm"


def test_experts_impl_is_refused_where_there_are_none(tiny_model, prepare):
    run = prepare(model=str(tiny_model), experts_impl="eager")
    with pytest.raises(UsageError, match="a qwen3 model has no experts"):
        run.one("models").skeleton(run)


def test_model_kwargs_override_the_configuration(tiny_model, prepare):
    run = prepare(model=str(tiny_model), model_kwargs={"attention_dropout": 0.25})
    assert run.one("models").load(run).model.model.layers[0].self_attn.attention_dropout == 0.25


def test_model_kwargs_with_an_unknown_name_suggest_the_nearest(tiny_model, prepare):
    run = prepare(model=str(tiny_model), model_kwargs={"atention_dropout": 0.25})
    with pytest.raises(UsageError, match="Did you mean attention_dropout"):
        run.one("models").load(run)


def test_model_kwargs_of_the_wrong_type_are_refused(tiny_model, prepare):
    run = prepare(model=str(tiny_model), model_kwargs={"attention_dropout": "much"})
    with pytest.raises(UsageError, match="--model_kwargs: attention_dropout cannot be 'much'"):
        run.one("models").load(run)


@pytest.mark.parametrize("key", ["_attn_implementation", "auto_map", "quantization_config", "attn_implementation"])
def test_model_kwargs_cannot_choose_code(key, tiny_model, prepare):
    run = prepare(model=str(tiny_model), model_kwargs={key: "someone/kernel"})
    with pytest.raises(UsageError, match=f"{key} cannot be set here"):
        run.one("models").load(run)


def test_torch_files_are_read_where_there_is_no_safetensors(tiny_model, tmp_path, prepare):
    folder = copy(tiny_model, tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    run = prepare(model=str(folder))
    assert torch.equal(logits(run.one("models").load(run).model), logits(model))


def test_weights_in_several_parts_are_read(tiny_model, tmp_path, prepare):
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    folder = copy(tiny_model, tmp_path / "model")
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="100KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    run = prepare(model=str(folder))
    assert torch.equal(logits(run.one("models").load(run).model), logits(model))


@pytest.fixture
def incomplete(tiny_model, tmp_path):
    """Return a model folder whose files lack one matrix."""
    folder = copy(tiny_model, tmp_path / "model")
    state = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    del state["model.layers.1.mlp.up_proj.weight"]
    torch.save(state, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return folder


def test_missing_weights_are_never_filled_silently(incomplete, prepare):
    run = prepare(model=str(incomplete))
    with pytest.raises(CheckpointError, match=r"1 weights .* among them model\.layers\.1\.mlp\.up_proj\.weight"):
        run.one("models").load(run)


@pytest.mark.parametrize("strategy", ["zero", "orthogonal", "normal"])
def test_init_strategy_fills_missing_weights_and_says_so(strategy, incomplete, prepare):
    run = prepare(model=str(incomplete), init_strategy=strategy)
    weight = run.one("models").load(run).model.model.layers[1].mlp.up_proj.weight.detach()
    expected = {"zero": weight.abs().max() == 0, "normal": 0.01 < weight.std() < 0.03}
    expected["orthogonal"] = torch.allclose(weight.T @ weight, torch.eye(weight.shape[1]), atol=1e-4)
    assert expected[strategy]
    assert "up_proj" in run.record.warnings[0]


@pytest.mark.parametrize("value", ["cpu", {"": "cpu"}, "auto"])
def test_device_map_is_passed_on(value, tiny_model, prepare):
    run = prepare("patches", model=str(tiny_model), device_map=value, model_patches=["recorder"])
    model = run.one("models").load(run).model
    assert run.get("model_patches", "recorder").seen["device_map"] == value
    assert logits(model.to("cpu")).isfinite().all()


@pytest.mark.parametrize("number", [0, "0"])
def test_max_memory_reaches_transformers_with_device_numbers_and_bytes(number, tiny_model, prepare, monkeypatch):
    seen = {}

    def from_pretrained(folder: Path, **keywords: Any) -> Any:
        seen.update(keywords)
        raise UsageError("enough")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", from_pretrained)
    run = prepare(model=str(tiny_model), device_map="auto", max_memory={number: "20GB", "cpu": 7})
    with pytest.raises(UsageError, match="enough"):
        run.one("models").load(run)
    assert seen["max_memory"] == {0: 20 * 10**9, "cpu": 7}


def test_weights_that_do_not_fit_are_moved_to_the_disk_and_cannot_be_trained(tiny_model, prepare):
    limits = {"cpu": 200_000, "disk": "1GB"}
    run = prepare(model=str(tiny_model), device_map="auto", max_memory=limits)
    assert logits(run.one("models").load(run).model).isfinite().all()
    with pytest.raises(UsageError, match="--max_memory leave no memory for all of the weights"):
        run.one("models").load(run, for_training=True)


@pytest.mark.parametrize(
    ("value", "words"),
    [({"gpu": "1GB"}, "'gpu' is no device"), ({"cpu": "lots"}, "'lots' is no amount"), ({0: None}, "None is no")],
)
def test_a_memory_limit_that_is_none_is_refused(value, words, tiny_model, prepare):
    run = prepare(model=str(tiny_model), max_memory=value)
    with pytest.raises(UsageError, match=f"--max_memory: {words}"):
        run.one("models").load(run)


def test_device_map_may_be_a_file(tiny_model, tmp_path, prepare):
    (tmp_path / "map.json").write_text('{"": "cpu"}')
    file = str(tmp_path / "map.json")
    run = prepare("patches", model=str(tiny_model), device_map=file, model_patches=["recorder"])
    run.one("models").load(run)
    assert run.get("model_patches", "recorder").seen["device_map"] == {"": "cpu"}


@pytest.mark.parametrize("value", ["gpu7", "missing.json"])
def test_a_device_map_that_is_nothing_is_refused(value, tiny_model, prepare):
    run = prepare(model=str(tiny_model), device_map=value)
    with pytest.raises(UsageError, match=f"--device_map {value}"):
        run.one("models").load(run)
