"""Adapter folders: PEFT reads what we write, we read what PEFT writes, and nothing else gets in."""

from __future__ import annotations

import json
import os
import pickle
import socket

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from martlet import CheckpointError, UsageError
from martlet_sdk.tiny import save_tiny_model
from martlet_tuners.lora import LoraTuner

VARIANTS = [
    {},
    {"use_dora": True},
    {"use_rslora": True},
    {"lora_bias": "all"},
    {"modules_to_save": ["embed_tokens", "lm_head"]},
    {"target_modules": ["q_proj", "embed_tokens"]},
    {"target_regex": r".*1.*up_proj"},
    {"init_weights": False},
    {"init_weights": "pissa"},
    {"init_weights": "pissa_niter_2"},
    {"init_weights": "pissa_niter_2", "use_rslora": True, "modules_to_save": ["lm_head"]},
    {"init_weights": "olora", "use_dora": True},
    {"init_weights": "orthogonal"},
]


@pytest.fixture(params=[False, True], ids=["untied", "tied"])
def folder(request, tmp_path):
    return save_tiny_model(tmp_path / "base", architecture="qwen2", hidden=32, tie_word_embeddings=request.param)


def check_round_trip(folder, path, bench, flags):
    """Save, load with plain PEFT and with ours, merge: the same logits each time."""
    model = bench.move(bench.apply("lora", bench.model(folder), **flags))
    wanted = bench.logits(model)
    LoraTuner().save(model, path)
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder), path)
    assert torch.allclose(bench.logits(plain), wanted, atol=2e-5), "plain PEFT"
    ours = LoraTuner().load(bench.model(folder), path)
    assert torch.allclose(bench.logits(ours), wanted, atol=2e-5), "load"
    assert bench.trained(ours) == set()
    merged = LoraTuner().merge(ours)
    assert torch.allclose(bench.logits(merged), wanted, atol=1e-4), "merge of what was loaded"
    assert torch.allclose(bench.logits(LoraTuner().merge(model)), wanted, atol=1e-4), "merge of what was trained"
    merged.save_pretrained(path / "merged")
    again = AutoModelForCausalLM.from_pretrained(path / "merged")
    assert torch.allclose(bench.logits(again), wanted, atol=1e-4), "merged and saved"


@pytest.mark.parametrize("flags", VARIANTS, ids=lambda flags: " ".join(f"{k}={v}" for k, v in flags.items()) or "plain")
def test_logits_survive_saving_loading_and_merging(flags, folder, tmp_path, bench):
    check_round_trip(folder, tmp_path / "adapter", bench, flags)


@pytest.mark.parametrize("flags", [{}, {"target_modules": ["q_proj"]}], ids=str)
def test_logits_survive_with_experts(flags, tmp_path, bench):
    moe = save_tiny_model(tmp_path / "moe", architecture="qwen3_moe", hidden=32)
    check_round_trip(moe, tmp_path / "adapter", bench, flags)


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rank=st.integers(1, 12),
    alpha=st.integers(1, 64),
    dora=st.booleans(),
    rslora=st.booleans(),
    start=st.sampled_from([True, "gaussian", "pissa_niter_1", "olora"]),
)
def test_any_size_survives_saving_loading_and_merging(
    rank, alpha, dora, rslora, start, tiny_model, tmp_path_factory, bench
):
    flags = {"lora_rank": rank, "lora_alpha": alpha, "use_dora": dora, "use_rslora": rslora, "init_weights": start}
    check_round_trip(tiny_model, tmp_path_factory.mktemp("any") / "adapter", bench, flags)


@pytest.mark.parametrize("flags", [*VARIANTS, {"lora_dtype": "bfloat16"}], ids=str)
def test_training_goes_on_as_if_nothing_had_happened(flags, tiny_model, tmp_path, bench):
    model = bench.move(bench.apply("lora", bench.model(tiny_model), **flags))
    LoraTuner().save(model, tmp_path)
    torch.manual_seed(5)
    again = LoraTuner().load(bench.model(tiny_model), tmp_path, trainable=True)
    mine, other = dict(model.named_parameters()), dict(again.named_parameters())
    assert {n: (p.requires_grad, p.dtype) for n, p in mine.items()} == {
        n: (p.requires_grad, p.dtype) for n, p in other.items()
    }
    assert all(torch.equal(parameter, other[name]) for name, parameter in mine.items())
    assert torch.initial_seed() == 5
    (tmp_path / "second").mkdir()
    LoraTuner().save(again, tmp_path / "second")
    first, second = (load_file(place / "adapter_model.safetensors") for place in (tmp_path, tmp_path / "second"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_folder_is_exactly_what_peft_writes(tiny_model, tmp_path, bench):
    model = bench.move(bench.apply("lora", bench.model(tiny_model)))
    LoraTuner().save(model, tmp_path / "ours")
    model.save_pretrained(tmp_path / "peft")
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        ours, theirs = ((tmp_path / place / name).read_bytes() for place in ("ours", "peft"))
        if name.endswith(".json"):
            ours, theirs = ({**json.loads(text), "target_modules": None} for text in (ours, theirs))
        assert ours == theirs
    assert {f.name for f in (tmp_path / "ours").iterdir()} == {f.name for f in (tmp_path / "peft").iterdir()}


def test_the_base_model_is_named(tiny_model, tmp_path, bench):
    LoraTuner().save(bench.apply("lora", bench.model(tiny_model)), tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["base_model_name_or_path"] == str(tiny_model)


def test_saving_never_asks_the_network(tiny_model, tmp_path, bench, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError("a connection was opened")

    model = bench.apply("lora", bench.model(tiny_model))
    model.peft_config["default"].base_model_name_or_path = "birds/wren"
    monkeypatch.setattr(socket.socket, "connect", refuse)
    LoraTuner().save(model, tmp_path)
    assert set(load_file(tmp_path / "adapter_model.safetensors")) == {
        name.replace(".default", "") for name in bench.trained(model)
    }


def test_extended_embeddings_are_saved_with_the_adapter(tiny_model, tmp_path, bench):
    base = bench.model(tiny_model)
    base.resize_token_embeddings(520, mean_resizing=False)
    base.embeddings_resized = True
    model = bench.move(bench.apply("lora", base))
    LoraTuner().save(model, tmp_path)
    fresh = bench.model(tiny_model)
    fresh.resize_token_embeddings(520, mean_resizing=False)
    assert torch.equal(bench.logits(LoraTuner().load(fresh, tmp_path)), bench.logits(model))


@pytest.mark.parametrize("whole", [["lm_head"], ["embed_tokens"], ["embed_tokens", "lm_head"]])
def test_extended_embeddings_that_are_trained_whole_are_saved_once(whole, tiny_model, tmp_path, bench):
    base = bench.model(tiny_model)
    base.resize_token_embeddings(520, mean_resizing=False)
    base.embeddings_resized = True
    model = bench.move(bench.apply("lora", base, modules_to_save=whole))
    LoraTuner().save(model, tmp_path)
    names = {name for name in load_file(tmp_path / "adapter_model.safetensors") if ".lora_" not in name}
    assert names == {"base_model.model.model.embed_tokens.weight", "base_model.model.lm_head.weight"}
    for read in (LoraTuner().load, PeftModel.from_pretrained):
        fresh = bench.model(tiny_model)
        fresh.resize_token_embeddings(520, mean_resizing=False)
        assert torch.equal(bench.logits(read(fresh, tmp_path)), bench.logits(model))


def test_several_adapters_live_side_by_side(tiny_model, tmp_path, bench):
    wanted = {}
    for name, seed in (("lora", 1), ("v1_0", 2)):
        model = bench.apply("lora", bench.model(tiny_model), seed=seed, init_weights=False)
        (tmp_path / name).mkdir()
        LoraTuner().save(model, tmp_path / name)
        wanted[name] = bench.logits(model)
    model = bench.model(tiny_model)
    for name in wanted:
        model = LoraTuner().load(model, tmp_path / name, name=name)
    for name, logits in wanted.items():
        model.set_adapter(name)
        assert torch.equal(bench.logits(model), logits)


def test_an_adapter_in_training_is_saved_in_the_folder_itself_whatever_its_name(tiny_model, tmp_path, bench):
    LoraTuner().save(bench.move(bench.apply("lora", bench.model(tiny_model))), tmp_path / "first")
    model = LoraTuner().load(bench.model(tiny_model), tmp_path / "first", trainable=True, name="checkpoint-20")
    LoraTuner().save(model, tmp_path / "second")
    assert (tmp_path / "second" / "adapter_model.safetensors").is_file()


def test_a_loaded_adapter_of_any_name_is_saved_in_the_folder_itself(tiny_model, tmp_path, bench):
    LoraTuner().save(bench.move(bench.apply("lora", bench.model(tiny_model))), tmp_path / "first")
    model = LoraTuner().load(bench.model(tiny_model), tmp_path / "first", name="mine")
    LoraTuner().save(model, tmp_path / "second")
    assert sorted(f.name for f in (tmp_path / "second").iterdir()) == sorted(
        f.name for f in (tmp_path / "first").iterdir()
    )


def test_gathered_weights_are_written_where_they_are_given(tiny_model, tmp_path, bench):
    model = bench.move(bench.apply("lora", bench.model(tiny_model)))
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    wanted = bench.logits(model)
    bench.move(model)
    LoraTuner().save(model, tmp_path, state)
    assert torch.equal(bench.logits(LoraTuner().load(bench.model(tiny_model), tmp_path)), wanted)


def test_a_wrapped_model_is_saved(tiny_model, tmp_path, bench):
    model = bench.apply("lora", bench.model(tiny_model))
    LoraTuner().save(torch.nn.DataParallel(model), tmp_path)
    assert (tmp_path / "adapter_model.safetensors").is_file()


def test_a_merged_model_is_a_plain_one(tiny_model, bench):
    merged = LoraTuner().merge(bench.move(bench.apply("lora", bench.model(tiny_model))))
    assert type(merged) is type(bench.model(tiny_model))
    assert set(merged.state_dict()) == set(bench.model(tiny_model).state_dict())


def test_nothing_is_merged_where_there_is_no_adapter(tiny_model, bench):
    with pytest.raises(UsageError, match="has no adapter to save or merge"):
        LoraTuner().merge(bench.model(tiny_model))


def test_weights_that_are_no_numbers_are_not_merged(tiny_model, bench):
    model = bench.apply("lora", bench.model(tiny_model), init_weights=False)
    with torch.no_grad():
        next(p for n, p in model.named_parameters() if "lora_B" in n).fill_(float("nan"))
    with pytest.raises(CheckpointError, match="cannot be merged"):
        LoraTuner().merge(model)


# Folders that are refused


@pytest.fixture
def saved(tiny_model, tmp_path, bench):
    LoraTuner().save(bench.move(bench.apply("lora", bench.model(tiny_model))), tmp_path / "adapter")
    return tmp_path / "adapter"


def edit(folder, **changes):
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def refuse(error, match, tiny_model, saved, bench):
    with pytest.raises(error, match=match):
        LoraTuner().load(bench.model(tiny_model), saved)


def test_a_folder_with_a_whole_model_is_refused(tiny_model, bench):
    refuse(
        UsageError, "no adapter in it .* It holds a whole model: name it with --model", tiny_model, tiny_model, bench
    )


def test_another_kind_of_adapter_is_refused(tiny_model, saved, bench):
    edit(saved, peft_type="IA3")
    refuse(UsageError, "an adapter of the kind IA3", tiny_model, saved, bench)


def test_a_configuration_that_names_modules_is_refused(tiny_model, saved, bench):
    edit(saved, megatron_config={"a": 1}, megatron_core="megatron.evil")
    refuse(UsageError, "a checkpoint may not choose code", tiny_model, saved, bench)


def test_a_broken_configuration_is_refused(tiny_model, saved, bench):
    (saved / "adapter_config.json").write_text("{")
    refuse(CheckpointError, r"adapter_config\.json: not a readable JSON object", tiny_model, saved, bench)


def test_missing_weights_are_refused(tiny_model, saved, bench):
    (saved / "adapter_model.safetensors").unlink()
    refuse(CheckpointError, r"adapter_model\.safetensors is missing", tiny_model, saved, bench)


def test_weights_cut_short_are_refused(tiny_model, saved, bench):
    file = saved / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-9])
    refuse(CheckpointError, r"adapter_model\.safetensors is damaged", tiny_model, saved, bench)


def test_an_adapter_of_a_deeper_model_is_refused(tiny_model, tmp_path, bench):
    deep = save_tiny_model(tmp_path / "deep", layers=3)
    LoraTuner().save(bench.apply("lora", bench.model(deep)), tmp_path / "adapter")
    refuse(CheckpointError, rf"has .*layers\.2\..* it was made for {deep}", tiny_model, tmp_path / "adapter", bench)


def test_an_adapter_of_a_wider_model_is_refused(tiny_model, tmp_path, bench):
    wide = save_tiny_model(tmp_path / "wide", hidden=32)
    LoraTuner().save(bench.apply("lora", bench.model(wide)), tmp_path / "adapter")
    refuse(CheckpointError, "does not fit this model", tiny_model, tmp_path / "adapter", bench)


def test_an_adapter_that_lacks_a_matrix_is_refused(tiny_model, saved, bench):
    tensors = load_file(saved / "adapter_model.safetensors")
    del tensors[next(iter(tensors))]
    save_file(tensors, saved / "adapter_model.safetensors")
    refuse(CheckpointError, r"the adapter lacks .*lora_A", tiny_model, saved, bench)


def test_a_name_with_a_dot_is_refused(tiny_model, saved, bench):
    with pytest.raises(UsageError, match="a name has no dot"):
        LoraTuner().load(bench.model(tiny_model), saved, name="v1.0")


def test_a_number_is_a_name(tiny_model, saved, bench):
    model = LoraTuner().load(bench.model(tiny_model), saved, name="0")
    assert model.active_adapter == "0"


class Trap:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker), 0o755)


def test_a_pickle_in_an_adapter_never_runs(tiny_model, saved, tmp_path, bench):
    marker = tmp_path / "marker"
    tensors = load_file(saved / "adapter_model.safetensors")
    (saved / "adapter_model.safetensors").unlink()
    torch.save(tensors | {"trap": Trap(marker)}, saved / "adapter_model.bin")
    (saved / "training_args.bin").write_bytes(pickle.dumps(Trap(marker)))
    refuse(CheckpointError, r"adapter_model\.bin holds more than tensors", tiny_model, saved, bench)
    assert not marker.exists()


def test_an_adapter_in_a_torch_file_is_read(tiny_model, saved, bench):
    wanted = bench.logits(LoraTuner().load(bench.model(tiny_model), saved))
    torch.save(load_file(saved / "adapter_model.safetensors"), saved / "adapter_model.bin")
    (saved / "adapter_model.safetensors").unlink()
    assert torch.equal(bench.logits(LoraTuner().load(bench.model(tiny_model), saved)), wanted)


def test_adapters_that_peft_made_are_read(tiny_model, tmp_path, bench):
    model = get_peft_model(bench.model(tiny_model), LoraConfig(target_modules=["q_proj"], init_lora_weights=False))
    model.save_pretrained(tmp_path)
    assert torch.equal(bench.logits(LoraTuner().load(bench.model(tiny_model), tmp_path)), bench.logits(model))
