"""The loss is the exact mean over the supervised tokens of a step, however the step is split."""

from __future__ import annotations

import json
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from martlet import UsageError
from martlet.protocols import Encoded
from martlet_train.batch import Collator
from martlet_train.losses import cross_entropy, dft
from martlet_train.scoring import Forward, Scorer, TokenScores
from martlet_train.sft import Supervised


@pytest.fixture(scope="module")
def model(tiny_model):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)


@pytest.fixture
def algorithm(prepare):
    return lambda **settings: Supervised(prepare(**settings))


LAYOUTS = (Collator(0), Collator(0, packed=True), Collator(0, left=True))


def some_rows(count=8, weighted=True):
    generator = torch.Generator().manual_seed(7)

    def numbers(low, high, size):
        return torch.randint(low, high, (size,), generator=generator).tolist()

    rows = []
    for number in range(count):
        length = 3 + number * 5 % 11
        ids, answer = numbers(3, 400, length), 1 + number % (length - 1)
        weights = [0.25 * value for value in numbers(1, 9, length)] if weighted and number % 2 else None
        rows.append(Encoded(ids, [-100] * (length - answer) + ids[-answer:], weights, {"channel": "ab"[number % 2]}))
    return rows


def forward_of(model, **options):
    return Forward(model, Scorer(model, **options), None, logged=True)


def step(model, algorithm, batches, **options):
    """Return loss and gradients of one optimizer step over ``batches``."""
    forward = forward_of(model, **options)
    model.zero_grad()
    count = sum(algorithm.count(batch)["tokens"] for batch in batches)
    loss = 0.0
    for batch in batches:
        total = algorithm.loss(forward, batch).total["tokens"]
        (total / count).backward()
        loss += total.item() / count
    return loss, torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.sets(st.integers(1, 7)), layouts=st.lists(st.sampled_from(LAYOUTS), min_size=8, max_size=8))
def test_any_split_and_layout_gives_the_same_loss_and_gradient(model, algorithm, cuts, layouts):
    rows, sft = some_rows(), algorithm()
    expected, gradient = step(model, sft, [Collator(0)(rows)])
    edges = [0, *sorted(cuts), len(rows)]
    parts = [rows[start:end] for start, end in pairwise(edges)]
    loss, found = step(model, sft, [collate(part) for part, collate in zip(parts, layouts, strict=False)])
    assert loss == pytest.approx(expected, rel=1e-6)
    torch.testing.assert_close(found, gradient, rtol=1e-4, atol=2e-7)


def test_the_loss_is_what_torch_says_row_by_row(model, algorithm):
    rows, sft = some_rows(), algorithm()
    total, count = 0.0, 0
    for row in rows:
        with torch.no_grad():
            logits = model(torch.tensor([row.input_ids])).logits[0, :-1]
        labels = torch.tensor(row.labels[1:])
        losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none", ignore_index=-100)
        total += (losses * torch.tensor(row.token_weights or [1.0] * len(row.labels))[1:]).sum().item()
        count += int((labels != -100).sum())
    assert step(model, sft, [Collator(0)(rows)])[0] == pytest.approx(total / count, rel=1e-6)


@pytest.mark.parametrize("collate", LAYOUTS)
def test_computing_supervised_logits_alone_changes_nothing(model, algorithm, collate):
    batch, sft = collate(some_rows()), algorithm()
    assert Scorer(model).way == "head"
    expected, gradient = step(model, sft, [batch], keep=False)
    loss, found = step(model, sft, [batch], keep=True)
    assert loss == pytest.approx(expected, rel=1e-6)
    torch.testing.assert_close(found, gradient, rtol=1e-4, atol=2e-7)


def test_only_supervised_positions_go_through_the_output_layer(model):
    seen = []
    batch = Collator(0)(some_rows())

    def measure(logits, targets):
        seen.append(logits.shape)
        return {"nothing": targets.float()}

    Scorer(model)(model, batch, measure)
    assert seen == [(len(batch.targets), model.config.vocab_size)]


def plainly(model, batch):
    with torch.no_grad():
        return Scorer(model, keep=False)(model, batch).logp


def test_a_model_that_cannot_drop_logits_is_found_out(model):
    class Old(type(model)):
        def forward(self, input_ids, attention_mask=None, position_ids=None, use_cache=None):
            out = super().forward(input_ids, attention_mask, position_ids, use_cache=use_cache)
            out.logits = out.logits - 2 * out.logits.detach().amin()
            return out

    old = Old(model.config)
    old.load_state_dict(model.state_dict())
    batch = Collator(0)(some_rows())
    assert Scorer(old).way == "all"
    torch.testing.assert_close(Scorer(old)(old, batch).logp, plainly(old, batch))
    with pytest.raises(UsageError, match="--use_logits_to_keep true: this model"):
        Scorer(old, keep=True)


def test_a_model_that_takes_columns_alone_is_used_row_by_row(model):
    class Columns(type(model)):
        def forward(self, input_ids, attention_mask=None, position_ids=None, use_cache=None, logits_to_keep=0):
            out = super().forward(input_ids, attention_mask, position_ids, use_cache=use_cache)
            chosen = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
            out.logits = 2 * out.logits[:, chosen, :]
            return out

    old = Columns(model.config)
    old.load_state_dict(model.state_dict())
    scorer, rows = Scorer(old), some_rows()
    assert scorer.way == "columns"
    for packed in (False, True, False):
        batch = Collator(0, packed=packed)(rows)
        torch.testing.assert_close(scorer(old, batch).logp, plainly(old, batch))


def test_dft_weights_by_probability_without_a_gradient_through_it():
    logits = torch.randn(5, 9, generator=torch.Generator().manual_seed(0), requires_grad=True)
    labels = torch.tensor([1, 2, -100, 4, 5])
    losses = cross_entropy(logits, labels)
    expected = losses * torch.exp(-losses).detach()
    torch.testing.assert_close(dft(logits, labels), expected)
    (mine,) = torch.autograd.grad(dft(logits, labels).sum(), logits)
    (theirs,) = torch.autograd.grad(expected.sum(), logits)
    torch.testing.assert_close(mine, theirs)
    assert dft(logits, labels)[2] == 0


def test_label_smoothing_is_torchs(model, algorithm):
    batch = Collator(0)(some_rows(weighted=False))
    with torch.no_grad():
        logits = model(**batch.model_inputs).logits[batch.rows, batch.columns]
    expected = torch.nn.functional.cross_entropy(logits, batch.targets, label_smoothing=0.2).item()
    assert step(model, algorithm(label_smoothing_factor=0.2), [batch])[0] == pytest.approx(expected, rel=1e-5)


def test_a_loss_of_the_wrong_shape_is_named(model, algorithm):
    sft = algorithm()
    sft.name, sft.token_loss = "mean_loss", lambda logits, labels: cross_entropy(logits, labels).mean()
    with pytest.raises(UsageError, match="--loss_type mean_loss returned a tensor of shape"):
        step(model, sft, [Collator(0)(some_rows())])


def measured(model, sft, batch):
    found = sft.loss(forward_of(model), batch).metrics
    return {name: float(total) / float(count) for name, (total, count) in found.items()}


def test_accuracy_counts_tokens_or_whole_answers(algorithm):
    targets, said = torch.tensor([1, 2, 3, 4, 5]), torch.tensor([1, 2, 3, 4, 0])
    places = {"sequence": torch.tensor([0, 0, 1, 1, 1]), "sequences": 3, "weights": None, "extra": []}
    batch = SimpleNamespace(targets=targets, **places)
    logits = torch.nn.functional.one_hot(said, 9).float()

    def forward(batch, measure):
        return TokenScores(dict(measure(logits, targets)))

    forward.logged = True
    for strategy, expected in [("token", 0.8), ("seq", 0.5)]:
        total, count = algorithm(acc_strategy=strategy).loss(forward, batch).metrics["token_acc"]
        assert float(total) / float(count) == pytest.approx(expected)


def test_channels_are_measured_apart(model, algorithm):
    rows = some_rows()
    found = measured(model, algorithm(enable_channel_loss=True), Collator(0, packed=True)(rows))
    for channel in "ab":
        mine = [row for row in rows if row.extra["channel"] == channel]
        assert found[f"loss_{channel}"] == pytest.approx(step(model, algorithm(), [Collator(0)(mine)])[0], rel=1e-5)


SPLITS = {
    "8x1": {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1},
    "4x2": {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2},
    "2x4": {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4},
    "1x8": {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 8},
    "padding_free": {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "padding_free": True},
    "packing": {"packing": True, "packing_length": 400, "gradient_accumulation_steps": 1},
    "checkpointed": {"gradient_checkpointing": True, "gradient_accumulation_steps": 8},
}


def test_one_step_of_the_trainer_is_the_same_for_every_split(train, rows):
    """Plain SGD: what the weights lose in one step is the gradient."""
    quick = {"optim": "sgd", "learning_rate": 1.0, "lr_scheduler_type": "constant", "weight_decay": 0.0}
    quick |= {"max_steps": 1, "max_grad_norm": 0.0, "dataset": [f"{rows}#8"], "save_only_model": True}
    results = {name: train(**quick, **split) for name, split in SPLITS.items()}
    expected = load_file(results["8x1"].checkpoint / "model.safetensors")
    for name, result in results.items():
        assert result.metrics["loss"] == pytest.approx(results["8x1"].metrics["loss"], rel=1e-6), name
        assert result.metrics["grad_norm"] == pytest.approx(results["8x1"].metrics["grad_norm"], rel=1e-5), name
        for key, tensor in load_file(result.checkpoint / "model.safetensors").items():
            torch.testing.assert_close(tensor, expected[key], rtol=1e-4, atol=1e-6, msg=f"{name}: {key}")


def test_token_weights_of_the_rows_reach_the_loss(train, rows, tmp_path):
    lines = [json.loads(line) for line in rows.read_text().splitlines()]
    heavy = tmp_path / "heavy.jsonl"
    heavy.write_text("\n".join(json.dumps({**line, "weight": 2.0}) for line in lines))
    quick = {"max_steps": 1, "save_strategy": "no", "remove_unused_columns": False}
    light = train(**quick)
    double = train(**quick, dataset=[str(heavy)])
    assert double.metrics["loss"] == pytest.approx(2 * light.metrics["loss"], rel=1e-6)
