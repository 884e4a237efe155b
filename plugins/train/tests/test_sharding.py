"""State that is divided over processes: flags that ask for it, and whole state from parts (torch's own)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from martlet import ConfigError, UsageError
from martlet_train import deepspeed, fsdp
from martlet_train.args import TrainerArguments
from martlet_train.state import load_state

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


def zero(**settings) -> str:
    return json.dumps({"zero_optimization": {"stage": 2}, **settings})


REFUSED = {
    "zero4": ({"deepspeed": "zero4"}, "there is no such file. Did you mean zero3 or zero2"),
    "no JSON": ({"deepspeed": "{"}, "not readable JSON"),
    "no stage": ({"deepspeed": '{"zero_optimization": {"stage": 4}}'}, 'holds a "stage" from 0 to 3'),
    "both": ({"deepspeed": "zero2", "fsdp": "fsdp2"}, "both divide the state of training; choose one"),
    "hpz alone": ({"zero_hpz_partition_size": 2}, "a setting of DeepSpeed; add --deepspeed zero3"),
    "hpz, zero2": ({"deepspeed": "zero2", "zero_hpz_partition_size": 2}, "divides weights, which --deepspeed zero2"),
    "optimizer": ({"deepspeed": "zero2", "optim": "adafactor"}, "--optim adafactor looks at whole matrices"),
    "offloaded": ({"deepspeed": "zero2_offload", "optim": "sgd"}, "which only --optim adamw_torch can do"),
    "fp16": ({"deepspeed": "zero2", "fp16": True}, "--fp16 true: with --deepspeed zero2 use --bf16 true"),
    "fp16 in it": ({"deepspeed": zero(fp16={"enabled": True})}, '"fp16" is enabled in it'),
    "a section": ({"deepspeed": zero(scheduler={})}, 'take "scheduler" out of it; that is decided by --lr_scheduler'),
    "nvme": (
        {"deepspeed": '{"zero_optimization": {"stage": 3, "offload_param": {"device": "nvme"}}}'},
        '"offload_param" to nvme is not supported, because checkpoints are written whole',
    ),
    "fsdp1": ({"fsdp": "full_shard"}, "--fsdp full_shard: there is no such file. Known: fsdp2."),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_divided_is_refused_before_anything_is_loaded(train, name):
    settings, sentence = REFUSED[name]
    with pytest.raises(ConfigError) as told:
        train(model="nowhere", **settings)
    assert sentence in str(told.value)


def test_a_missing_deepspeed_is_told_with_the_way_to_install_it(train, monkeypatch):
    monkeypatch.setattr(deepspeed.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r'not installed; try `pip install "martlet-train\[deepspeed\]"`'):
        train(model="nowhere", deepspeed="zero3")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"train_micro_batch_size_per_gpu": 4}, "is 4 in it, and 2 by --per_device_train_batch_size"),
        ({"gradient_accumulation_steps": 8}, "is 8 in it, and 3 by --gradient_accumulation_steps"),
        ({"train_batch_size": 6}, "is 6 in it, and 12 by batch size × accumulation × processes"),
        ({"gradient_clipping": 0.5}, "is 0.5 in it, and 1.0 by --max_grad_norm"),
    ],
)
def test_numbers_that_the_flags_contradict_are_refused(settings, sentence):
    flags = TrainerArguments(per_device_train_batch_size=2, gradient_accumulation_steps=3, deepspeed=zero(**settings))
    with pytest.raises(ConfigError) as told:
        deepspeed.start(flags, cpu=True, processes=2)
    assert sentence in str(told.value)


def test_every_configuration_of_ours_holds_a_stage_and_nothing_that_flags_decide():
    for name in deepspeed.NAMES:
        found = deepspeed.read(name)
        assert found.keys() == {"zero_optimization"}
        assert f"zero{found['zero_optimization']['stage']}" == name.partition("_")[0]


def test_a_plan_starts_no_processes(prepare, monkeypatch):
    from martlet_train.plan import plan

    monkeypatch.setattr(deepspeed, "start", lambda *args, **more: pytest.fail("started"))
    found = plan(prepare(deepspeed="zero3"))
    assert found["parameters"]["trained"] > 0 and "divides it" in found["memory"]["unknown"]


def test_fsdp_stops_on_a_cpu_where_accelerate_would_silently_train_without_it(train, tmp_path):
    with pytest.raises(UsageError, match="over several processes, and there is one"):
        train(fsdp="fsdp2")
    assert not list(tmp_path.rglob("run.json"))
    with pytest.raises(ConfigError, match="on a CPU accelerate would silently train without it"):
        fsdp.start(TrainerArguments(fsdp="fsdp2"), cpu=True, processes=2)
    asked = fsdp.start(TrainerArguments(fsdp="fsdp2"), cpu=False, processes=2)
    assert asked["fsdp"] is True and asked["fsdp_config"]["version"] == 2


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"version": 1}, "version is 1, and only FSDP2"),
        ({"sharding_strategy": "FULL_SHARD"}, "there is no setting 'sharding_strategy'"),
        ({"cpu_offload": "yes"}, "cpu_offload is 'yes' and has to be of type bool"),
    ],
)
def test_settings_of_fsdp_that_are_none_are_told(tmp_path, settings, sentence):
    file = tmp_path / "fsdp.json"
    file.write_text(json.dumps(settings))
    with pytest.raises(ConfigError) as told:
        fsdp.read(str(file))
    assert sentence in str(told.value)


def test_whole_state_of_a_model_that_torch_divides_is_that_of_one_process_and_is_taken_up(tmp_path):
    command = [*TORCHRUN, str(Path(__file__).with_name("divided.py")), str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, env=environment)
    assert result.returncode == 0, result.stderr[-3000:]
    whole, alone = (load_file(tmp_path / f"{name}.safetensors") for name in ("divided", "alone"))
    assert whole.keys() == alone.keys()
    for name, tensor in alone.items():
        torch.testing.assert_close(whole[name], tensor, rtol=1e-4, atol=2e-5, msg=name)
    found, expected = (load_state(tmp_path / f"{name}.state") for name in ("divided", "alone"))
    assert found["param_groups"] == expected["param_groups"] and found["state"].keys() == expected["state"].keys()
    for number, state in expected["state"].items():
        for key, value in state.items():
            torch.testing.assert_close(found["state"][number][key], value, rtol=1e-4, atol=1e-6, msg=f"{number} {key}")
