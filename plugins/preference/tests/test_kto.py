"""KTO: losses of labelled rows, the estimate of the KL divergence over a whole step, and the rows' partners."""

from __future__ import annotations

import math
import pickle
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stepping import one_step

from martlet import DataError, UsageError
from martlet.protocols import Encoded
from martlet_data.api import EncodedDataset
from martlet_data.encoded import Store
from martlet_data.work import flatten
from martlet_preference.kto import Kto, _check_metric, row_losses
from martlet_preference.mismatched import Mismatched
from martlet_train.api import Batch, Collator, TokenScores
from martlet_train.loading import unsupervised
from martlet_train.scoring import Scorer

RATIOS = st.floats(-1e4, 1e4)
LENGTHS = [(3, 4), (2, 7), (5, 1), (2, 6), (4, 12)]
LABELS = [True, False, False, True, True]
LAYOUTS = {"padded": {}, "left": {"left": True}, "packed": {"packed": True}}


def dataset(lengths=LENGTHS, labels=LABELS, weighted: bool = False) -> EncodedDataset:
    """Return rows whose tokens tell where they come from: row k has 100 k + place."""
    rows = []
    for number, (prompt, answer) in enumerate(lengths):
        ids = [100 * number + place + 1 for place in range(prompt + answer)]
        weights = [0.5] * len(ids) if weighted and number % 2 else None
        rows.append(Encoded(ids, [-100] * prompt + ids[prompt:], weights))
    store = Store([("rows.jsonl", "rows.jsonl")])
    block = flatten(rows, [{"label": label} for label in labels], list(range(1, len(rows) + 1)))
    block.files = [0] * len(rows)
    store.append(block)
    return EncodedDataset([store.close()], np.arange(len(rows)))


@given(RATIOS, st.booleans(), st.floats(0, 100), st.floats(0.01, 2))
def test_the_loss_is_the_papers(ratio, good, kl, beta):
    r = torch.tensor([ratio], dtype=torch.float64, requires_grad=True)
    loss = row_losses(r, torch.tensor([good]), torch.tensor(kl, dtype=torch.float64), beta)
    away = beta * (ratio - kl) if good else beta * (kl - ratio)
    sigmoid = 1 / (1 + math.exp(-away)) if away > -700 else 0.0
    assert loss.item() == pytest.approx(1 - sigmoid, rel=1e-9, abs=1e-12)
    loss.backward()
    slope = beta * sigmoid * (1 - sigmoid)
    assert r.grad.item() == pytest.approx(-slope if good else slope, rel=1e-6, abs=1e-12)


@given(st.floats(-20, 20), st.floats(0.1, 5), st.booleans())
def test_good_answers_are_raised_and_bad_ones_lowered(ratio, more, good):
    low, high = row_losses(torch.tensor([ratio, ratio + more]).double(), torch.tensor([good] * 2), torch.tensor(1.0), 1)
    assert (high < low) if good else (high > low)


# Partners


def test_a_partner_is_the_prompt_with_the_answer_of_the_next_row():
    rows = dataset(weighted=True)
    both = Mismatched(rows, None, "train")
    assert len(both) == 10
    for number, (prompt, _) in enumerate(LENGTHS):
        own, partner = both[2 * number], both[2 * number + 1]
        following = (number + 1) % len(LENGTHS)
        start, other = LENGTHS[following][0], rows[following]
        assert own.input_ids.tolist() == rows[number].input_ids.tolist()
        expected = [*own.input_ids[:prompt], *other.input_ids[start:]]
        assert partner.input_ids.tolist() == expected
        assert partner.labels.tolist() == [-100] * prompt + other.input_ids[start:].tolist()
        if other.token_weights is None:
            assert partner.token_weights is None
        else:
            assert partner.token_weights.tolist() == [0] * prompt + other.token_weights[start:].tolist()


ROWS = st.lists(st.tuples(st.integers(1, 6), st.integers(1, 9)), min_size=2, max_size=7)


@settings(max_examples=50)
@given(ROWS, st.integers(0, 8))
def test_partners_fit_and_keep_an_answer(lengths, room):
    limit = max(map(sum, lengths)) + room
    both = Mismatched(dataset(lengths, [True] * len(lengths)), limit, "train")
    assert both.lengths.tolist() == [len(sample.input_ids) for sample in both]
    assert both.lengths.max() <= limit
    assert all((sample.labels[1:] != -100).any() for sample in both)


def test_a_partner_is_cut_to_the_longest_row():
    both = Mismatched(dataset([(9, 2), (1, 8)], [True, False]), None, "train")
    assert both[1].input_ids.tolist() == [*range(1, 10), 102, 103]
    assert both.lengths.tolist() == [11, 11, 9, 3]


def test_partners_are_known_by_a_fingerprint_and_travel_to_workers():
    rows = dataset()
    both = Mismatched(rows, 16, "train")
    assert both.fingerprint not in (rows.fingerprint, Mismatched(rows, 17, "train").fingerprint)
    again = pickle.loads(pickle.dumps(both))
    assert [sample.input_ids.tolist() for sample in again] == [sample.input_ids.tolist() for sample in both]
    assert both.origin(5).line == 3


def test_a_single_row_has_no_partner():
    with pytest.raises(DataError, match="one row to evaluate on, and its prompt needs the answer of another row"):
        Mismatched(dataset([(2, 2)], [True]), None, "evaluate")


def test_a_row_without_a_prompt_is_named():
    with pytest.raises(DataError, match=r"rows.jsonl:2 is trained on from its first token, so it has no prompt"):
        Mismatched(dataset([(2, 2), (0, 3)], [True, False]), None, "train")


# The step


@dataclass
class Models:
    """The model that is trained and its reference, as the training core hands them to an algorithm."""

    model: torch.nn.Module
    other: torch.nn.Module
    logged: bool = True

    def __post_init__(self) -> None:
        self.scorer, self.of_other = Scorer(self.model), Scorer(self.other)
        self.sums = 0
        self.processes = SimpleNamespace(zeros=lambda count: torch.zeros(count, dtype=torch.float64))

    def __call__(self, batch: Batch) -> TokenScores:
        return self.scorer(self.model, batch)

    def reference(self, batch: Batch) -> TokenScores:
        with torch.no_grad():
            return self.of_other(self.other, batch)

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        self.sums += 1
        return values


def causal_lm(seed: int, **config: Any) -> torch.nn.Module:
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"num_key_value_heads": 1, "head_dim": 16, "vocab_size": 512}
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model("qwen3", **sizes, initializer_range=0.2, **config))


@pytest.fixture(scope="module")
def models() -> Models:
    return Models(causal_lm(1), causal_lm(0))


def batches_of(both: Mismatched, parts: list[list[int]], **layout: bool) -> list[Batch]:
    found = []
    for part in parts:
        numbers = [2 * row + side for row in part for side in (0, 1)]
        found.append(Kto.collate([both[number] for number in numbers], numbers, Collator(0, **layout)))
    return found


def stepped(algorithm: Kto, models: Models, batches: list[Batch]) -> tuple[Any, Any, dict[str, float]]:
    """Return the loss of a step, its gradient, and what is measured."""
    algorithm.begin(models, iter(batches))
    loss, gradient, sums = one_step(algorithm, models, batches, models.model.parameters())
    return loss, gradient, {name: value / number for name, (value, number) in sums.items() if number}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("parts", [[[0, 1, 2, 3, 4]], [[3], [0, 4, 1], [2]]], ids=["whole", "split"])
def test_layout_and_split_change_nothing(layout, parts, models, resolve):
    both = Mismatched(dataset(weighted=True), None, "train")
    algorithm = Kto(resolve("kto", desirable_weight=1.2))
    loss, gradient, measured = stepped(algorithm, models, batches_of(both, parts, **LAYOUTS[layout]))
    alone = stepped(algorithm, models, batches_of(both, [[one] for one in range(5)]))
    torch.testing.assert_close(loss, alone[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient, alone[1], rtol=1e-4, atol=1e-6)
    assert measured == pytest.approx(alone[2], rel=1e-4, abs=1e-4)
    assert measured["kl"] > 0
    assert measured["rewards/margins"] == pytest.approx(measured["rewards/chosen"] - measured["rewards/rejected"], 1e-4)


def test_tokens_count_with_their_weights(models, resolve):
    whole, half = (Mismatched(dataset(weighted=weighted), None, "train") for weighted in (False, True))
    found = []
    for both in (whole, half):  # row 1 is bad, and its tokens weigh 0.5; it is the partner of row 0
        algorithm = Kto(resolve("kto"))
        found.append(stepped(algorithm, models, batches_of(both, [[1]]))[2]["logps/rejected"])
        algorithm.begin(Models(models.other, models.model), batches_of(both, [[0]]))
        found.append(float(algorithm.kl))
    assert found[1] > 0
    assert found[2:] == pytest.approx([found[0] / 2, found[1] / 2], rel=1e-4)


def test_the_estimate_is_a_mean_over_the_step_that_all_processes_share(models, resolve):
    both = Mismatched(dataset(), None, "train")
    algorithm, batches = Kto(resolve("kto")), batches_of(both, [[0, 1], [2, 3, 4]])
    before = models.sums
    algorithm.begin(models, batches)
    ratios = []
    for number in range(1, 10, 2):
        batch = Collator(0)([both[number]])
        with torch.no_grad():
            ratios.append(float((models(batch).logp - models.reference(batch).logp).sum()))
    assert float(algorithm.kl) == pytest.approx(max(sum(ratios) / 5, 0.0), rel=1e-4)
    assert models.sums == before + 1


def test_a_process_without_rows_of_its_own_takes_part(models, resolve):
    algorithm, before = Kto(resolve("kto")), models.sums
    algorithm.begin(models, [])
    assert models.sums == before + 1 and float(algorithm.kl) == 0


def test_the_estimate_draws_no_random_numbers_and_leaves_the_mode(resolve):
    policy = causal_lm(1, attention_dropout=0.5).train()
    models = Models(policy, causal_lm(0))
    algorithm, batches = Kto(resolve("kto")), batches_of(Mismatched(dataset(), None, "train"), [[0, 1, 2, 3, 4]])
    state = torch.get_rng_state()
    algorithm.begin(models, batches)
    first = float(algorithm.kl)
    algorithm.begin(models, batches)
    assert float(algorithm.kl) == first > 0
    assert torch.equal(torch.get_rng_state(), state)
    assert policy.training and all(parameter.grad is None for parameter in policy.parameters())


def test_a_filler_can_be_computed(models, resolve):
    both = Mismatched(dataset(), None, "train")
    batch = Kto.collate([unsupervised(both[number]) for number in (0, 1)], [-1, -2], Collator(0))
    out = Kto(resolve("kto")).loss(models, batch)
    assert torch.isfinite(out.total["rows"])


# Settings


def test_rows_that_are_encoded_while_training_are_refused(resolve):
    for flags, name in (({"lazy_tokenize": True}, "lazy_tokenize"), ({"streaming": True, "max_steps": 1}, "streaming")):
        with pytest.raises(UsageError, match=f"--{name} true encodes rows while training, and kto puts the answer"):
            Kto(resolve("kto", **flags))


@pytest.mark.parametrize(("label", "way"), [(True, "towards"), (False, "away from")])
def test_one_label_alone_is_told(label, way, resolve):
    run = resolve("kto")
    Kto(run)._tell_balance(run, [label] * 12)
    (said,) = run.record.warnings
    assert f"All 12 rows have the label {str(label).lower()}" in said
    assert f"the model is only pushed {way} these answers" in said


@pytest.mark.parametrize("metric", ["rewards/margins", "eval_logps/rejected"])
def test_a_metric_that_rows_of_one_label_do_not_bring_is_refused(metric, resolve):
    run = resolve("kto", metric_for_best_model=metric)
    _check_metric(run, [True, False])
    with pytest.raises(UsageError, match=f"{metric}: all 3 rows to evaluate on have the label true"):
        _check_metric(run, [True] * 3)
    _check_metric(resolve("kto", metric_for_best_model="rewards/chosen"), [True] * 3)


@pytest.mark.parametrize(
    ("good", "bad", "weights", "warned"),
    [
        (6, 6, {}, False),
        (8, 6, {}, False),
        (9, 6, {}, True),
        (6, 7, {}, True),
        (6, 12, {"desirable_weight": 2.0}, False),
    ],
)
def test_weights_that_let_one_label_dominate_are_told(good, bad, weights, warned, resolve):
    run = resolve("kto", **weights)
    Kto(run)._tell_balance(run, [True] * good + [False] * bad)
    assert bool(run.record.warnings) == warned
    for text in run.record.warnings:
        assert f"--desirable_weight {bad / good:.3g} or --undesirable_weight {good / bad:.3g} would do" in text


def test_weights_by_which_nothing_would_be_trained_are_refused(resolve):
    with pytest.raises(UsageError, match="--desirable_weight 0 --undesirable_weight 0: neither good nor bad"):
        Kto(resolve("kto", desirable_weight=0.0, undesirable_weight=0.0))
    run = resolve("kto", undesirable_weight=0.0)
    with pytest.raises(UsageError, match="--undesirable_weight 0: all 3 rows have the label false"):
        Kto(run)._tell_balance(run, [False] * 3)


@pytest.mark.parametrize(("flag", "mend"), [("desirable_weight", "0.667"), ("undesirable_weight", "1.5")])
def test_no_weight_of_0_is_proposed(flag, mend, resolve):
    run = resolve("kto", **{flag: 0.0})
    Kto(run)._tell_balance(run, [True] * 6 + [False] * 4)
    (said,) = run.record.warnings
    assert said.endswith(f"4/3 times the second. --{flag} {mend} would do.")
