"""Where LoRA adapters go and what they are."""

from __future__ import annotations

import pytest
import torch
from peft.tuners.lora import LoraLayer

from martlet import UsageError
from martlet_sdk.tiny import save_tiny_model


def adapted(model):
    """Return the names of the adapted modules in the base model."""
    return {n.removeprefix("base_model.model.") for n, m in model.named_modules() if isinstance(m, LoraLayer)}


def linear(model):
    return {n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)}


def test_all_linear_is_every_linear_layer_but_the_head(tiny_model, bench):
    wanted = linear(bench.meta(tiny_model)) - {"lm_head"}
    assert adapted(bench.apply("lora", bench.meta(tiny_model))) == wanted


def test_only_the_adapters_are_trained(tiny_model, bench):
    assert all(".lora_" in name for name in bench.trained(bench.apply("lora", bench.model(tiny_model))))


def test_a_fresh_adapter_changes_nothing(tiny_model, bench):
    plain = bench.logits(bench.model(tiny_model))
    assert torch.equal(bench.logits(bench.apply("lora", bench.model(tiny_model))), plain)


def test_defaults_reach_peft(tiny_model, bench):
    config = bench.apply("lora", bench.meta(tiny_model)).peft_config["default"]
    assert (config.r, config.lora_alpha, config.lora_dropout, config.bias) == (8, 32, 0.05, "none")
    assert (config.use_dora, config.use_rslora, config.init_lora_weights) == (False, False, True)


@pytest.mark.parametrize(
    "flags, ends",
    [
        ({"target_modules": ["q_proj", "self_attn.v_proj"]}, ("q_proj", "v_proj")),
        ({"target_regex": r"model\.layers\.1\..*\.(q|k)_proj"}, ("1.self_attn.q_proj", "1.self_attn.k_proj")),
    ],
)
def test_targets_are_named(flags, ends, tiny_model, bench):
    model = bench.meta(tiny_model)
    wanted = {name for name in linear(model) if name.endswith(ends)}
    assert adapted(bench.apply("lora", model, **flags)) == wanted


def test_all_linear_may_stand_beside_others(tiny_model, bench):
    found = adapted(bench.apply("lora", bench.meta(tiny_model), target_modules=["all-linear", "embed_tokens"]))
    assert found == (linear(bench.meta(tiny_model)) - {"lm_head"}) | {"model.embed_tokens"}


def test_gpt2_layers_count_as_linear(tmp_path, bench):
    folder = save_tiny_model(tmp_path / "gpt2", architecture="gpt2")
    assert {name.rpartition(".")[2] for name in adapted(bench.apply("lora", bench.meta(folder)))} == {
        "c_attn",
        "c_proj",
        "c_fc",
    }


@pytest.mark.parametrize("architecture", ["llama4_text", "phimoe"])
def test_a_linear_layer_that_chooses_experts_is_passed_by(architecture, tmp_path, bench):
    folder = save_tiny_model(tmp_path / architecture, architecture=architecture)
    model = bench.apply("lora", bench.model(folder))
    found = {name.rpartition(".")[2] for name in adapted(model)}
    assert "router" not in found and {"q_proj", "o_proj"} <= found
    before = bench.logits(model)
    assert not torch.allclose(bench.logits(bench.move(model)), before)
    beside = adapted(bench.apply("lora", bench.meta(folder), target_modules=["all-linear", "embed_tokens"]))
    assert beside == adapted(model) | {"model.embed_tokens"}


def test_a_linear_layer_of_ones_own_is_one_all_the_same(tiny_model, bench):
    class Plain(torch.nn.Linear):
        def forward(self, states):
            return states @ self.weight.T

    model = bench.model(tiny_model)
    model.model.layers[0].mlp.up_proj = Plain(64, model.config.intermediate_size, bias=False)
    assert "model.layers.0.mlp.up_proj" in adapted(bench.apply("lora", model))


def test_modules_to_save_are_trained_whole(tiny_model, bench):
    model = bench.apply("lora", bench.model(tiny_model), modules_to_save=["embed_tokens", "lm_head"])
    whole = {name for name in bench.trained(model) if "lora_" not in name}
    assert len(whole) == 2
    assert all("modules_to_save" in name for name in whole)


def test_fused_experts_are_reached_by_name(tmp_path, bench):
    folder = save_tiny_model(tmp_path / "moe", architecture="qwen3_moe")
    flags = {"target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"], "lora_dropout": 0.0}
    model = bench.apply("lora", bench.model(folder), **flags, target_modules=["q_proj"])
    assert any("experts" in name for name in bench.trained(model))
    before = bench.logits(model)
    assert not torch.allclose(bench.logits(bench.move(model)), before)


def test_all_linear_reaches_fused_experts_without_dropout(tmp_path, bench):
    folder = save_tiny_model(tmp_path / "moe", architecture="qwen3_moe")
    run = bench.run()
    model = run.get("tuners", "lora").apply(bench.meta(folder), run)
    assert any("experts" in name for name in bench.trained(model))
    assert "lora_dropout is 0 in this run" in run.record.warnings[0]


def test_dropout_in_front_of_experts_is_refused(tmp_path, bench):
    folder = save_tiny_model(tmp_path / "moe", architecture="qwen3_moe")
    with pytest.raises(UsageError, match=r"--lora_dropout 0\.1: there can be no dropout in front of bare parameters"):
        bench.apply("lora", bench.meta(folder), lora_dropout=0.1)


def test_experts_may_be_named_as_the_layers_they_once_were(tmp_path, bench):
    folder = save_tiny_model(tmp_path / "moe", architecture="qwen3_moe")
    trained = bench.trained(bench.apply("lora", bench.meta(folder), target_modules=["gate_proj", "up_proj"]))
    assert trained
    assert all("experts" in name for name in trained)


def test_half_of_fused_experts_is_refused(tmp_path, bench):
    folder = save_tiny_model(tmp_path / "moe", architecture="qwen3_moe")
    with pytest.raises(UsageError, match="without also targeting up_proj"):
        bench.apply("lora", bench.meta(folder), target_modules=["gate_proj"])


def test_experts_that_are_not_reached_are_pointed_out(tiny_model, bench):
    run = bench.run()
    model = bench.meta(tiny_model)
    model.model.experts = torch.nn.Module()
    model.model.experts.gate_up_proj = torch.nn.Parameter(torch.empty(4, 8, 8, device="meta"))
    run.get("tuners", "lora").apply(model, run)
    assert "--target_parameters model.experts.gate_up_proj --lora_dropout 0" in run.record.warnings[0]


@pytest.mark.parametrize("flags, biases", [({"lora_bias": "none"}, False), ({"lora_bias": "all"}, True)])
def test_lora_bias_trains_biases(flags, biases, tmp_path, bench):
    folder = save_tiny_model(tmp_path / "qwen2", architecture="qwen2")
    trained = bench.trained(bench.apply("lora", bench.model(folder), **flags))
    assert any(name.endswith("bias") for name in trained) is biases


@pytest.mark.parametrize(
    "given, used", [(None, torch.float32), ("bfloat16", torch.bfloat16), ("float16", torch.float16)]
)
def test_lora_dtype_is_the_type_of_the_adapters(given, used, tiny_model, bench):
    model = bench.apply("lora", bench.model(tiny_model).to(torch.bfloat16), lora_dtype=given)
    assert {p.dtype for n, p in model.named_parameters() if ".lora_" in n} == {used}
    assert {p.dtype for n, p in model.named_parameters() if ".lora_" not in n} == {torch.bfloat16}
    assert bench.logits(model).isfinite().all()


def test_dora_trains_magnitudes(tiny_model, bench):
    assert any("magnitude" in n for n in bench.trained(bench.apply("lora", bench.model(tiny_model), use_dora=True)))


def test_rslora_scales_by_the_root_of_the_rank(tiny_model, bench):
    model = bench.apply("lora", bench.meta(tiny_model), use_rslora=True, lora_rank=16, lora_alpha=8)
    assert {m.scaling["default"] for m in model.modules() if isinstance(m, LoraLayer)} == {8 / 4}


def test_the_start_depends_on_the_seed_alone(tiny_model, bench):
    starts = []
    for before, seed in ((1, 42), (2, 42), (1, 43)):
        torch.manual_seed(before)
        model = bench.apply("lora", bench.model(tiny_model), seed=seed)
        starts.append(torch.cat([p.flatten() for n, p in model.named_parameters() if ".lora_A." in n]))
        assert torch.initial_seed() == before
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])


@pytest.mark.parametrize("start", ["gaussian", "pissa", "pissa_niter_4", "olora", "orthogonal", "true"])
def test_a_start_keeps_what_the_model_computes(start, tiny_model, bench):
    plain = bench.logits(bench.model(tiny_model))
    run = bench.run(init_weights=start)
    model = run.get("tuners", "lora").apply(bench.model(tiny_model), run)
    assert torch.allclose(bench.logits(model), plain, atol=1e-5)


def test_start_false_is_random(tiny_model, bench):
    model = bench.apply("lora", bench.model(tiny_model), init_weights=False)
    assert not torch.allclose(bench.logits(model), bench.logits(bench.model(tiny_model)), atol=1e-2)


@pytest.mark.parametrize("start", [True, "pissa", "olora", "orthogonal"])
@pytest.mark.parametrize("dora", [False, True])
def test_a_model_on_the_meta_device_gets_the_same_parameters(start, dora, tiny_model, bench):
    flags = {"init_weights": start, "use_dora": dora, "modules_to_save": ["lm_head"]}
    real, meta = (
        bench.apply("lora", bench.model(tiny_model), **flags),
        bench.apply("lora", bench.meta(tiny_model), **flags),
    )
    shapes = [{n: (p.shape, p.requires_grad) for n, p in model.named_parameters()} for model in (real, meta)]
    assert shapes[0] == shapes[1]
    assert {p.device.type for p in meta.parameters()} == {"meta"}


@pytest.mark.parametrize("flags", [{"modules_to_save": ["embed_tokens"]}, {"lora_dtype": "bfloat16"}], ids=str)
def test_a_model_on_the_meta_device_ties_and_casts_as_a_real_one(flags, tmp_path, bench):
    folder = save_tiny_model(tmp_path / "model", tie_word_embeddings=True)
    real, meta = bench.apply("lora", bench.model(folder), **flags), bench.apply("lora", bench.meta(folder), **flags)
    shapes = [{n: (p.shape, p.dtype) for n, p in model.named_parameters()} for model in (real, meta)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize(
    "flags, match",
    [
        ({"target_modules": ["q_porj"]}, r"--target_modules q_porj: .* Did you mean q_proj"),
        ({"target_modules": []}, "--target_modules is empty"),
        ({"target_modules": ["self_attn"]}, "PEFT refuses this adapter: Target module"),
        (
            {"target_regex": "q_proj"},
            r"--target_regex q_proj: no module's whole name matches it; one of them is .*_proj",
        ),
        ({"target_regex": "("}, r"--target_regex \(: not a regular expression"),
        (
            {"target_parameters": ["experts.w1"], "lora_dropout": 0.0},
            r"--target_parameters experts\.w1: the model has no",
        ),
        ({"target_parameters": ["q_proj.weight"], "lora_dropout": 0.05}, "add --lora_dropout 0"),
        ({"modules_to_save": ["embed_token"]}, "--modules_to_save embed_token: .* Did you mean embed_tokens"),
        ({"init_weights": "pisa"}, "--init_weights pisa: not one of"),
        ({"init_weights": "pissa_niter_"}, "--init_weights pissa_niter_: not one of"),
        ({"init_weights": "orthogonal", "lora_rank": 7}, "needs an even rank; --lora_rank is 7"),
    ],
)
def test_flags_that_fit_nothing_are_refused(flags, match, tiny_model, bench):
    with pytest.raises(UsageError, match=match):
        bench.apply("lora", bench.meta(tiny_model), **flags)


@pytest.mark.parametrize(
    "flags, match",
    [
        ({"lora_rank": 0}, "--lora_rank: 0 is out of range"),
        ({"lora_dropout": 1.0}, "--lora_dropout: 1.0 is out of range"),
        ({"lora_bias": "some"}, "--lora_bias: 'some' is not one of"),
        ({"lorap_lr_ratio": 0.0}, "--lorap_lr_ratio: 0.0 is out of range"),
    ],
)
def test_values_out_of_range_are_refused(flags, match, bench):
    with pytest.raises(UsageError, match=match):
        bench.run(**flags)


def test_lora_plus_gives_b_its_own_learning_rate(tiny_model, bench):
    run = bench.run(lorap_lr_ratio=16.0, modules_to_save=["lm_head"], use_dora=True)
    tuner = run.get("tuners", "lora")
    model = tuner.apply(bench.model(tiny_model), run)
    groups = tuner.parameter_groups(model, run)
    names = {id(p): n for n, p in model.named_parameters()}
    scales = {names[id(p)]: group.get("lr_scale", 1) for group in groups for p in group["params"]}
    assert set(scales) == bench.trained(model)
    assert {name for name, scale in scales.items() if scale == 16} == {n for n in scales if "lora_B" in n}
    assert all(group.get("weight_decay") == 0 for group in groups for p in group["params"] if p.dim() < 2)


def test_without_lora_plus_the_groups_are_the_trainers(tiny_model, bench):
    run = bench.run()
    tuner = run.get("tuners", "lora")
    assert tuner.parameter_groups(tuner.apply(bench.meta(tiny_model), run), run) is None


def test_gradients_reach_every_adapter(tiny_model, bench):
    model = bench.apply("lora", bench.model(tiny_model), init_weights=False)
    ids = torch.arange(3, 23).view(2, 10)
    model(input_ids=ids, labels=ids).loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters() if p.requires_grad)
