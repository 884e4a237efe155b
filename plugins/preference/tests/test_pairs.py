"""From the tokens of a batch to the loss of its pairs: the same in any layout and any split, on a real model."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from stepping import one_step

from martlet.protocols import Encoded
from martlet_train.api import Batch, Collator, TokenScores
from martlet_train.scoring import Scorer

LENGTHS = [(3, 4, 9), (2, 7, 5), (5, 1, 6), (2, 6, 6), (4, 12, 2)]
"""Tokens of the prompt, of the chosen and of the rejected answer."""
LAYOUTS = {"padded": {}, "left": {"left": True}, "packed": {"packed": True}}
CASES = {
    "dpo": ("dpo", {}),
    "mixed": ("dpo", {"loss_type": ["sigmoid", "ipo", "sft"], "loss_weights": [0.8, 0.1, 0.4], "rpo_alpha": 0.5}),
    "desensitised": ("dpo", {"ld_alpha": 0.3, "f_divergence_type": "js_divergence"}),
    "orpo": ("orpo", {}),
    "cpo": ("cpo", {"loss_type": ["hinge"], "cpo_alpha": 0.5}),
    "simpo": ("simpo", {"label_smoothing": 0.1}),
}


def some_pairs(weighted: bool = False) -> list[Encoded]:
    """Return chosen 0, rejected 0, chosen 1, ..."""
    draw, rows = torch.Generator().manual_seed(5), []
    for prompt, *answers in LENGTHS:
        asked = torch.randint(8, 200, (prompt,), generator=draw).tolist()
        for length in answers:
            answer = torch.randint(8, 200, (length,), generator=draw).tolist()
            weights = torch.rand(prompt + length, generator=draw).tolist() if weighted else None
            rows.append(Encoded(asked + answer, [-100] * prompt + answer, weights))
    return rows


@dataclass
class Models:
    """The model that is trained and its reference, as the training core hands them to an algorithm."""

    policy: torch.nn.Module
    other: torch.nn.Module | None
    logged: bool = True

    def __post_init__(self) -> None:
        self.scorer = Scorer(self.policy)
        self.of_other = None if self.other is None else Scorer(self.other)

    def __call__(self, batch: Batch) -> TokenScores:
        return self.scorer(self.policy, batch)

    def reference(self, batch: Batch) -> TokenScores:
        with torch.no_grad():
            return self.of_other(self.other, batch)


@pytest.fixture(scope="module")
def models(tiny_model) -> Models:
    from transformers import AutoModelForCausalLM

    policy, other = (AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval() for _ in range(2))
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=draw)
    return Models(policy, other)


def step(algorithm, models, rows, *, parts=((0, 5),), **layout):
    """Return loss, gradients and metrics of one optimizer step whose pairs are split into ``parts``."""
    batches = [Collator(pad_token_id=0, **layout)(rows[2 * first : 2 * last]) for first, last in parts]
    loss, gradient, sums = one_step(algorithm, models, batches, models.policy.parameters())
    return loss, gradient, {name: total / count for name, (total, count) in sums.items()}


def assert_same(found, wanted):
    torch.testing.assert_close(found[0], wanted[0], rtol=2e-6, atol=1e-6)
    torch.testing.assert_close(found[1], wanted[1], rtol=1e-4, atol=1e-5)
    assert found[2].keys() == wanted[2].keys()
    for name, value in wanted[2].items():
        assert found[2][name] == pytest.approx(value, rel=1e-4, abs=1e-5), name


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("layout", ["left", "packed"])
def test_every_layout_trains_the_same(algorithm, models, case, layout, weighted):
    kind, flags = CASES[case]
    made, rows = algorithm(kind, **flags), some_pairs(weighted)
    assert_same(step(made, models, rows, **LAYOUTS[layout]), step(made, models, rows))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", CASES)
def test_every_split_trains_the_same(algorithm, models, case, layout):
    kind, flags = CASES[case]
    made, rows = algorithm(kind, **flags), some_pairs(weighted=True)
    split = step(made, models, rows, parts=((0, 1), (1, 3), (3, 5)), **LAYOUTS[layout])
    assert_same(split, step(made, models, rows, **LAYOUTS[layout]))


@pytest.mark.parametrize("case", CASES)
def test_swapped_answers_have_the_opposite_margin(algorithm, models, case):
    kind, flags = CASES[case]
    made, rows = algorithm(kind, **flags), some_pairs()
    swapped = [row for at in range(0, len(rows), 2) for row in (rows[at + 1], rows[at])]
    (_, _, there), (_, _, back) = step(made, models, rows), step(made, models, swapped)
    assert there["rewards/margins"] == pytest.approx(-back["rewards/margins"], rel=1e-4)
    assert there["rewards/chosen"] == pytest.approx(back["rewards/rejected"], rel=1e-4)
    assert there["rewards/accuracies"] == pytest.approx(1 - back["rewards/accuracies"])
    assert there["logps/chosen"] == pytest.approx(back["logps/rejected"], rel=1e-5)


def test_rewards_are_beta_times_the_log_ratio_to_the_reference(algorithm, models):
    rows = some_pairs()
    batch = Collator(pad_token_id=0)(rows)
    ratios = (models(batch).logp - models.reference(batch).logp).detach()
    sums = [float(ratios[batch.sequence == number].sum()) for number in range(10)]
    metrics = step(algorithm(beta=0.7), models, rows)[2]
    assert metrics["rewards/chosen"] == pytest.approx(0.7 * sum(sums[0::2]) / 5, rel=1e-4)
    assert metrics["rewards/rejected"] == pytest.approx(0.7 * sum(sums[1::2]) / 5, rel=1e-4)
    better = sum(chosen > rejected for chosen, rejected in zip(sums[0::2], sums[1::2], strict=True))
    assert metrics["rewards/accuracies"] == pytest.approx(better / 5)


def test_weights_of_tokens_weigh_their_log_probabilities(algorithm, models):
    """A token of weight 0 is as if it were not there, but for the number of tokens."""
    rows = some_pairs(weighted=True)
    for row in rows:
        row.token_weights = [float(at != len(row.input_ids) - 1) for at in range(len(row.input_ids))]
    rows[4].token_weights = [1.0] * len(rows[4].input_ids)  # it has one token
    masked = [Encoded(row.input_ids, list(row.labels)) for row in rows]
    for number, row in enumerate(masked):
        row.labels[-1] = row.labels[-1] if number == 4 else -100
    found, wanted = step(algorithm(), models, rows), step(algorithm(), models, masked)
    torch.testing.assert_close(found[0], wanted[0])
    torch.testing.assert_close(found[1], wanted[1], rtol=1e-4, atol=1e-6)
    nll = [step(algorithm(rpo_alpha=1.0), models, some)[2]["nll_loss"] for some in (rows, masked)]
    tokens = [sum(label != -100 for row in some[0::2] for label in row.labels) for some in (rows, masked)]
    assert nll[0] * tokens[0] == pytest.approx(nll[1] * tokens[1], rel=1e-5)


def test_beyond_the_shorter_answer_a_token_weighs_ld_alpha(algorithm, models):
    rows = some_pairs(weighted=True)
    for row in rows:
        row.token_weights = [1.0] * len(row.input_ids)
    plain = step(algorithm(ld_alpha=0.25), models, rows)
    for chosen, rejected in zip(rows[0::2], rows[1::2], strict=True):
        prompt = chosen.labels.count(-100)
        shorter = min(len(chosen.input_ids), len(rejected.input_ids))
        assert prompt == rejected.labels.count(-100)
        for row in (chosen, rejected):
            row.token_weights[shorter:] = [0.25] * (len(row.input_ids) - shorter)
    assert_same(plain, step(algorithm(), models, rows))


def test_a_mix_adds_up_and_names_its_parts(algorithm, models):
    rows, names = some_pairs(), ["sigmoid", "hinge", "sft"]
    made = algorithm(loss_type=names, loss_weights=[0.5, 2, 0.25], label_smoothing=0.1)
    loss, _, metrics = step(made, models, rows)
    parts = [float(step(algorithm(loss_type=[name], label_smoothing=0.1), models, rows)[0]) for name in names]
    assert float(loss) == pytest.approx(0.5 * parts[0] + 2 * parts[1] + 0.25 * parts[2], rel=1e-5)
    assert [metrics[f"loss_{name}"] for name in names] == pytest.approx(parts, rel=1e-5)


def test_a_loss_alone_is_the_loss_and_needs_no_name(algorithm, models):
    assert not [name for name in step(algorithm(), models, some_pairs())[2] if name.startswith("loss_")]


def test_the_parts_of_a_loss_are_measured_apart(algorithm, models):
    made = algorithm(loss_type=["sigmoid", "hinge"])
    both = replace(made.terms[1], function=lambda nll, **more: {"pairs": nll * 0 + 2, "chosen_tokens": nll})
    made.terms[1] = both
    metrics = step(made, models, some_pairs())[2]
    assert {name for name in metrics if name.startswith("loss_")} == {
        "loss_sigmoid",
        "loss_hinge_pairs",
        "loss_hinge_chosen_tokens",
    }
    assert metrics["loss_hinge_pairs"] == 2


def test_rpo_adds_the_likelihood_of_chosen_answers(algorithm, models):
    rows = some_pairs()
    plain, more = (step(algorithm(**flags), models, rows) for flags in ({}, {"rpo_alpha": 0.3}))
    sft = step(algorithm(loss_type=["sft"]), models, rows)
    assert float(more[0]) == pytest.approx(float(plain[0] + 0.3 * sft[0]), rel=1e-5)
    assert more[2]["nll_loss"] == pytest.approx(float(sft[0]), rel=1e-5)


def test_the_load_balancing_loss_is_added_once_a_pair(algorithm, models):
    class WithExperts(Models):
        def __call__(self, batch):
            scores = super().__call__(batch)
            scores.balance = 1.5 * scores.logp.mean().detach() ** 0
            return scores

    expert, rows = WithExperts(models.policy, models.other), some_pairs()
    balanced = step(algorithm(), expert, rows, parts=((0, 2), (2, 5)))
    assert float(balanced[0]) == pytest.approx(float(step(algorithm(), models, rows)[0]) + 1.5, rel=1e-5)


def test_nothing_is_measured_that_nobody_logs(algorithm, models):
    quiet = Models(models.policy, models.other, logged=False)
    assert algorithm().loss(quiet, Collator(pad_token_id=0)(some_pairs())).metrics == {}


@pytest.mark.parametrize("case", CASES)
def test_what_is_logged_holds_no_gradient(algorithm, models, case):
    kind, flags = CASES[case]
    out = algorithm(kind, **flags).loss(models, Collator(pad_token_id=0)(some_pairs()))
    tensors = [value for pair in out.metrics.values() for value in pair if isinstance(value, torch.Tensor)]
    assert tensors and not any(tensor.requires_grad for tensor in tensors)


def test_without_a_reference_none_is_asked_for(algorithm, models):
    alone = Models(models.policy, None)
    for kind in ("orpo", "cpo", "simpo"):
        made = algorithm(kind)
        assert not made.reference and step(made, alone, some_pairs())[0].isfinite()
    assert algorithm("dpo").reference


@pytest.mark.parametrize("case", CASES)
def test_a_pair_without_supervised_tokens_makes_nothing_infinite(algorithm, models, case):
    """As processes with nothing left to do have them, beside those that have."""
    kind, flags = CASES[case]
    rows = [Encoded(row.input_ids, [-100] * len(row.labels)) for row in some_pairs()[:2]]
    out = algorithm(kind, **flags).loss(models, Collator(pad_token_id=0)(rows))
    values = [*out.total.values(), *(total for total, _ in out.metrics.values())]
    assert all(torch.as_tensor(value).isfinite() for value in values)
