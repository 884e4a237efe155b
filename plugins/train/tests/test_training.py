"""What a training run does and leaves behind."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file

from martlet import UsageError
from martlet_sdk.tiny import save_tiny_model
from martlet_train.checkpoint import follow


def logged(result, key="loss"):
    lines = json.loads((result.checkpoint / "trainer_state.json").read_text())["log_history"]
    return {line["step"]: line[key] for line in lines if key in line}


@pytest.fixture(scope="module")
def standins():
    """The module of stand-ins that the runs of this file use."""

    def module():
        import martlet.external.standins as found

        return found

    return module


def test_a_run_leaves_what_it_promises_and_plain_transformers_reads_it(train):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    result = train(max_steps=2, save_steps=1, report_to=["tensorboard"])
    assert re.fullmatch(r"v0-\d{8}-\d{6}", result.folder.name)
    left = {path.name for path in result.folder.iterdir()}
    assert left >= {"args.json", "run.json", "ledger.json", "logging.jsonl", "runs", "checkpoint-1", "checkpoint-2"}
    assert follow(result.folder / "last") == result.checkpoint
    holds = {path.name for path in result.checkpoint.iterdir()}
    assert holds >= {"model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja", "args.json"}
    assert holds >= {"generation_config.json", "trainer_state.json", "checkpoint.json", "optimizer.safetensors"}
    assert not [name for name in holds if name.endswith((".bin", ".pt", ".pth", ".pkl"))]
    model = AutoModelForCausalLM.from_pretrained(result.checkpoint)
    tokenizer = AutoTokenizer.from_pretrained(result.checkpoint)
    assert tokenizer.chat_template
    assert tokenizer.eos_token_id in model.generation_config.eos_token_id
    assert model.config.use_cache


def test_the_loss_falls(train):
    result = train(max_steps=12, logging_steps=1, learning_rate=1e-2, save_steps=100)
    losses = logged(result)
    assert losses[12] < 0.7 * losses[1]
    assert logged(result, "token_acc")[12] > logged(result, "token_acc")[1]


def test_a_second_run_gets_its_own_folder(train, tmp_path):
    first, second = (train(max_steps=1, save_strategy="no") for _ in range(2))
    assert (first.folder.name[:3], second.folder.name[:3]) == ("v0-", "v1-")
    flat = train(max_steps=1, save_only_model=True, add_version=False, create_checkpoint_symlink=False)
    assert flat.folder == tmp_path / "out"
    assert not (flat.folder / "last").exists()
    assert not (flat.checkpoint / "optimizer.safetensors").exists()


def test_the_same_seed_gives_the_same_weights(train):
    one, two = (load_file(train(max_steps=2).checkpoint / "model.safetensors") for _ in range(2))
    assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())


def test_sixteen_rows_make_a_step_unless_told_otherwise(prepare):
    for batch_size, expected in [(1, 16), (3, 6), (16, 1), (40, 1)]:
        run = prepare(per_device_train_batch_size=batch_size)
        assert run.config.value("gradient_accumulation_steps") == expected
    assert "at least 16 rows" in str(run.config.origin("gradient_accumulation_steps"))


def test_max_epochs_stops_saves_and_evaluates_on_the_longer_schedule(train, rows):
    result = train(num_train_epochs=4, max_epochs=1, val_dataset=[str(rows)], logging_steps=1)
    assert result.checkpoint.name == "checkpoint-2"
    assert "eval_loss" in result.metrics
    assert logged(result, "learning_rate")[2] > 0.8e-3


def test_the_schedule_warms_up(train):
    rates = logged(train(max_steps=5, warmup_ratio=0.4, logging_steps=1, lr_scheduler_type="linear"), "learning_rate")
    assert rates[1] == 0 and rates[2] == pytest.approx(5e-4) and rates[3] == pytest.approx(1e-3) and rates[5] < rates[4]
    steps = logged(train(max_steps=5, warmup_steps=4, logging_steps=1), "learning_rate")
    assert steps[3] == pytest.approx(5e-4)


def test_a_tuner_can_give_parameters_their_own_learning_rate(train, standins):
    train(max_steps=1, fast_head=16.0, callbacks=["watch"], save_strategy="no", lr_scheduler_type="constant")
    assert standins().Watch.rates == [[1e-3, pytest.approx(16e-3)]]


def test_callbacks_see_every_event(train, standins, rows):
    train(max_steps=1, callbacks=["watch"], val_dataset=[str(rows)], gradient_accumulation_steps=2)
    seen = standins().Watch.events
    assert [event for event in seen if event in ("on_train_begin", "on_step_begin", "on_step_end", "on_train_end")] == [
        "on_train_begin", "on_step_begin", "on_step_end", "on_train_end",
    ]  # fmt: skip
    assert {"on_substep_end", "on_optimizer_step", "on_log", "on_evaluate", "on_prediction_step"} <= set(seen)
    assert seen.index("on_save") > seen.index("on_step_end")


def test_a_run_that_a_callback_stops_is_saved_where_it_ended(train):
    assert train(max_steps=9, callbacks=["stop_after_two"]).checkpoint.name == "checkpoint-2"


def test_the_last_checkpoint_is_uploaded_when_asked_to(train, standins):
    result = train(max_steps=1, push_to_hub=True, hub_model_id="someone/bird", hub_private_repo=True)
    assert standins().Shelf.given == [(result.checkpoint, "someone/bird", True, "martlet sft")]


def test_bfloat16_weights_compute_in_bfloat16_and_say_what_that_costs(train, caplog):
    result = train(max_steps=1, torch_dtype="bfloat16")
    assert "rounded away" in caplog.text
    assert json.loads((result.folder / "run.json").read_text())["notes"]["precision"]["autocast"] == "bf16"
    assert load_file(result.checkpoint / "model.safetensors")["model.norm.weight"].dtype == torch.bfloat16


def test_autocast_keeps_float32_weights(train):
    result, exact = train(max_steps=1, bf16=True), train(max_steps=1)
    assert load_file(result.checkpoint / "model.safetensors")["model.norm.weight"].dtype == torch.float32
    assert result.metrics["loss"] == pytest.approx(exact.metrics["loss"], rel=2e-2)
    assert result.metrics["loss"] != exact.metrics["loss"]


@pytest.mark.parametrize("packed", [False, True])
def test_experts_are_balanced_when_asked_to(train, tmp_path, packed):
    model = str(save_tiny_model(tmp_path / "moe", architecture="qwen3_moe"))
    settings = {"model": model, "max_steps": 1, "save_strategy": "no", "padding_free": packed}
    plain, balanced = train(**settings), train(**settings, router_aux_loss_coef=0.5)
    assert balanced.metrics["loss"] > plain.metrics["loss"] + 0.4  # the balancing loss of an even router is 1 or more


def test_pt_trains_on_every_token(train):
    settings = {"max_steps": 1, "save_strategy": "no", "enable_channel_loss": False}
    assert train("pt", **settings).metrics["loss"] != train("sft", **settings).metrics["loss"]


def test_dft_is_chosen_by_its_flag_or_its_name(train):
    settings = {"max_steps": 1, "save_strategy": "no"}
    by_flag, by_name = train(**settings, enable_dft_loss=True), train(**settings, loss_type="dft")
    assert by_flag.metrics["loss"] == by_name.metrics["loss"] < 0.1 * train(**settings).metrics["loss"]


def test_channel_losses_are_logged(train):
    result = train(max_steps=1, enable_channel_loss=True, remove_unused_columns=False)
    assert logged(result, "loss_odd") and logged(result, "loss_even")


def test_the_last_step_is_logged_whole(train):
    lines = train(max_steps=3, logging_steps=2).folder.joinpath("logging.jsonl").read_text().splitlines()
    steps = {line["step"]: line for line in map(json.loads, lines) if "loss" in line}
    assert list(steps) == [1, 2, 3]
    assert "token_acc" in steps[3]


def test_a_pack_is_no_longer_than_it_has_to_be(train):
    notes = json.loads(train(max_steps=1, packing=True).folder.joinpath("run.json").read_text())["notes"]
    assert notes["packing"]["capacity"] == 4096


def test_it_ends_with_where_the_result_is_and_how_to_talk_to_it(train, caplog):
    caplog.set_level("INFO", logger="martlet")
    checkpoint = train(max_steps=1).checkpoint
    assert caplog.messages[-2:] == [
        f"The last checkpoint is {checkpoint}",
        f"To talk to it: martlet infer --model {checkpoint}",
    ]
    train(max_steps=1, save_strategy="no")
    assert caplog.messages[-1].startswith("No checkpoint was written (--save_strategy no)")


def test_a_used_folder_is_told(train, caplog):
    train(max_steps=1, add_version=False)
    assert "holds an earlier run" not in caplog.text
    train(max_steps=1, add_version=False)
    assert "holds an earlier run" in caplog.text


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"packing_length": 64}, "--packing_length has no effect here: only --packing true"),
        ({"eval_steps": 5}, "--eval_steps has no effect here: only --eval_strategy steps"),
        ({"save_strategy": "epoch", "save_steps": 5}, "--save_steps has no effect here"),
        ({"packing": True, "packing_length": 64}, ""),
        ({"save_steps": 5, "logging_steps": 5}, ""),
    ],
)
def test_flags_that_nothing_reads_are_told(prepare, settings, said):
    warnings = prepare("sft", **settings).record.warnings
    assert any(text.startswith(said) for text in warnings) if said else warnings == []


def test_the_first_row_is_not_shown_where_only_errors_are_wanted(train, capsys):
    train(max_steps=1, log_level="error")
    assert "First row" not in capsys.readouterr().err


def test_what_a_tuner_refuses_is_known_before_a_row_is_encoded(train, rows):
    broken = rows.with_name("broken.jsonl")
    broken.write_text("not a row\n")
    with pytest.raises(UsageError, match="the model has no such part"):
        train(max_steps=1, tuner_type="picky", dataset=[str(broken)])


def test_a_loss_that_is_no_number_is_reported(train, caplog):
    train(max_steps=3, learning_rate=1e30, optim="sgd", max_grad_norm=0.0, logging_steps=1, save_strategy="no")
    assert "Lower --learning_rate" in caplog.text


def test_the_first_row_is_shown_with_what_is_trained_on(train, capsys):
    train(max_steps=1, save_strategy="no")
    shown = capsys.readouterr().err
    assert re.search(r"First row \(\d+ tokens; the \d+ in ⟦ ⟧ are trained on\):\n.*⟦.*<\|im_end\|>⟧", shown)


def test_gradient_checkpointing_is_left_out_where_a_model_cannot(train, tmp_path, monkeypatch):
    from transformers import Qwen3ForCausalLM

    monkeypatch.setattr(Qwen3ForCausalLM, "supports_gradient_checkpointing", False)
    run = train  # not asked for: done without
    assert run(max_steps=1, save_strategy="no", gradient_checkpointing_kwargs={}).metrics["loss"] > 0
    with pytest.raises(Exception, match="--gradient_checkpointing true: Qwen3ForCausalLM cannot"):
        run(max_steps=1, save_strategy="no", gradient_checkpointing=True)


@pytest.mark.parametrize("wrong", [{"eos_token_id": "y"}, {"eos_token_id": [1, None]}])
def test_a_generation_configuration_that_cannot_be_written_loses_no_model(train, tiny_model, tmp_path, wrong):
    shutil.copytree(tiny_model, tmp_path / "model")
    file = tmp_path / "model" / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | wrong))
    from transformers import AutoModelForCausalLM, AutoTokenizer

    result = train(model=str(tmp_path / "model"), max_steps=1)
    saved = json.loads((result.checkpoint / "generation_config.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(result.checkpoint)
    assert tokenizer.eos_token_id in saved["eos_token_id"]
    AutoModelForCausalLM.from_pretrained(result.checkpoint)
