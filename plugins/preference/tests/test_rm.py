"""Reward models: the loss of pairs, and scores that do not depend on how a batch is laid out."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from stepping import one_step

from martlet.protocols import Encoded
from martlet_preference.rm import RewardModel, pair_losses
from martlet_train.api import Collator
from martlet_train.scoring import Scorer

SCORES = st.floats(-1e4, 1e4)
LENGTHS = [(3, 4, 9), (2, 7, 5), (5, 1, 6), (2, 6, 6)]
LAYOUTS = {"padded": {}, "left": {"left": True}, "packed": {"packed": True}}


def some_pairs(end: int | None = None) -> list[Encoded]:
    """Return chosen 0, rejected 0, chosen 1, ...; the last token of each is ``end``."""
    draw, rows = torch.Generator().manual_seed(5), []
    for number, (prompt, *answers) in enumerate(LENGTHS):
        asked = torch.randint(8, 200, (prompt,), generator=draw).tolist()
        for length in answers:
            answer = torch.randint(8, 200, (length,), generator=draw).tolist()
            answer[-1] = answer[-1] if end is None else end
            extra = {"margin": 0.5} if number % 2 else {}
            rows.append(Encoded(asked + answer, [-100] * prompt + answer, extra=extra))
    return rows


@given(SCORES, SCORES, st.floats(-10, 10), st.sampled_from([0.0, 0.01, 1.0]))
def test_the_loss_is_the_papers(chosen, rejected, margin, center):
    better, worse = (torch.tensor([x], dtype=torch.float64, requires_grad=True) for x in (chosen, rejected))
    loss = pair_losses(better, worse, torch.tensor([margin], dtype=torch.float64), center)
    away = -(chosen - rejected - margin)
    expected = max(away, 0.0) + math.log1p(math.exp(-abs(away))) + center * (chosen + rejected) ** 2
    assert loss.item() == pytest.approx(expected, rel=1e-9, abs=1e-12)
    loss.backward()
    pull = 1 / (1 + math.exp(-away)) if away > 0 else math.exp(away) / (1 + math.exp(away))
    assert better.grad.item() == pytest.approx(-pull + 2 * center * (chosen + rejected), rel=1e-9, abs=1e-12)
    assert worse.grad.item() == pytest.approx(pull + 2 * center * (chosen + rejected), rel=1e-9, abs=1e-12)


@given(st.floats(-50, 50), st.floats(0.01, 10))
def test_a_greater_difference_costs_less_and_a_margin_more(difference, more):
    def loss(difference: float, margin: float = 0.0) -> float:
        scores = torch.tensor([difference], dtype=torch.float64)
        return pair_losses(scores, torch.zeros(1, dtype=torch.float64), torch.tensor([margin]).double(), 0.0).item()

    assert loss(difference + more) < loss(difference) < loss(difference, margin=more)


@pytest.fixture(scope="module")
def classifier():
    from transformers import AutoConfig, AutoModelForSequenceClassification

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"num_key_value_heads": 1, "head_dim": 16, "vocab_size": 256}
    config = AutoConfig.for_model("qwen3", **sizes, num_labels=1, pad_token_id=0)
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_config(config)


def stepped(algorithm: RewardModel, model: torch.nn.Module, rows: list[Encoded], parts: list[range], **layout):
    """Return the loss of a step, its gradient, and what is measured, with the pairs split into batches."""
    scorer = Scorer(model)

    def forward(batch):
        return scorer(model, batch)

    forward.logged = True
    batches = [Collator(0, **layout)([rows[2 * p + side] for p in part for side in (0, 1)]) for part in parts]
    loss, gradient, sums = one_step(algorithm, forward, batches, model.parameters())
    return loss, gradient, {name: value / number for name, (value, number) in sums.items()}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("parts", [[range(4)], [range(1), range(1, 4)]], ids=["whole", "split"])
def test_layout_and_split_change_nothing(layout, parts, classifier, resolve):
    algorithm = RewardModel(resolve("rm", center_rewards_coefficient=0.1))
    loss, gradient, measured = stepped(algorithm, classifier, some_pairs(), parts, **LAYOUTS[layout])
    alone = stepped(algorithm, classifier, some_pairs(), [range(one, one + 1) for one in range(4)])
    torch.testing.assert_close(loss, alone[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient, alone[1], rtol=1e-4, atol=1e-6)
    assert measured == pytest.approx(alone[2], abs=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("end", [None, 0], ids=["ends with a word", "ends with the padding token"])
def test_the_score_is_the_one_of_transformers(layout, end, classifier):
    rows = some_pairs(end)
    batch = Collator(0, **LAYOUTS[layout])(rows)
    with torch.no_grad():
        mine = Scorer(classifier)(classifier, batch).score
        plain = [classifier(input_ids=torch.tensor([row.input_ids])).logits[0, 0] for row in rows]
    torch.testing.assert_close(mine, torch.stack(plain), rtol=1e-5, atol=1e-6)


def test_margins_come_from_the_rows(classifier, resolve):
    algorithm = RewardModel(resolve("rm"))
    rows = some_pairs()
    with_margins = stepped(algorithm, classifier, rows, [range(4)])[0]
    for row in rows:
        row.extra = {}
    assert stepped(algorithm, classifier, rows, [range(4)])[0] < with_margins


def test_a_model_without_scores_is_refused(resolve):
    from martlet import MartletError

    algorithm = RewardModel(resolve("rm"))
    with pytest.raises(MartletError, match="has no score head"):
        algorithm.loss(lambda batch: SimpleNamespace(score=None), Collator(0)(some_pairs()))


@pytest.mark.parametrize(("flag", "value"), [("beta", 0.3), ("loss_scale", "all"), ("use_logits_to_keep", True)])
def test_what_has_no_effect_on_a_reward_is_said(resolve, flag, value):
    run = resolve("rm", disable_plugins=[], **{flag: value})
    RewardModel(run)
    assert any(f"--{flag} has no effect" in text for text in run.record.warnings)
