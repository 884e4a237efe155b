"""The loss of reward models, its gradient and what it measures against TRL's trainer, on the same scores."""

from __future__ import annotations

from collections import defaultdict
from importlib.metadata import entry_points
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import martlet
from martlet.protocols import Encoded
from martlet_preference.rm import RewardModel
from martlet_train.api import Collator, TokenScores

pytest.importorskip("trl")

PAIRS = 7
MARGINS = [0.0, 0.5, -1.0, 2.0, 0.0, 0.25, 3.0]
OTHERS = sorted({entry.name for entry in entry_points(group="martlet")} - {"data", "train", "preference"})
ACCELERATOR = SimpleNamespace(gather=lambda x: x, gather_for_metrics=lambda x: x)


def made(spread: float, seed: int) -> torch.Tensor:
    """Return (2 P,) scores, chosen 0, rejected 0, chosen 1, ..."""
    return (torch.randn(2 * PAIRS, generator=torch.Generator().manual_seed(seed)) * spread).requires_grad_()


def of_trl(scores: torch.Tensor, margins: list[float] | None, center: float | None) -> tuple[Any, dict[str, float]]:
    from trl import RewardTrainer

    trainer = object.__new__(RewardTrainer)
    vars(trainer).update(
        model=SimpleNamespace(training=True),
        args=SimpleNamespace(center_rewards_coefficient=center),
        accelerator=ACCELERATOR,
        _metrics={"train": defaultdict(list)},
        _total_train_tokens=0,
        _tp_size=1,
    )
    inputs: dict[str, Any] = {"attention_mask": torch.ones(2 * PAIRS, 3)}
    inputs |= {} if margins is None else {"margin": torch.tensor(margins)}
    logits = torch.cat([scores[0::2], scores[1::2]])[:, None]
    loss = trainer.compute_loss(lambda **inputs: SimpleNamespace(logits=logits), inputs)
    return loss, {name: float(values[0]) for name, values in trainer._metrics["train"].items()}


def of_martlet(scores: torch.Tensor, margins: list[float] | None, center: float | None) -> tuple[Any, dict[str, float]]:
    """Return the mean over the pairs of a step that is split into two batches."""
    flags = {"rlhf_type": "rm", "center_rewards_coefficient": center, "disable_plugins": OTHERS}
    algorithm = RewardModel(martlet.prepare("rlhf", dataset=["pairs.jsonl"], **flags))
    total: Any = 0.0
    count, sums = 0, defaultdict(lambda: [0.0, 0.0])
    for pairs in (range(3), range(3, PAIRS)):
        places = [2 * pair + side for pair in pairs for side in (0, 1)]
        rows = [Encoded([1, 2, 3], [-100, 2, 3]) for _ in places]
        for row, place in zip(rows, places, strict=True):
            row.extra = {} if margins is None else {"margin": margins[place // 2]}

        def forward(batch: Any, places: list[int] = places) -> TokenScores:
            return TokenScores(score=scores[places])

        forward.logged = True
        batch = Collator(pad_token_id=0)(rows)
        out = algorithm.loss(forward, batch)
        (counted,) = algorithm.count(batch).values()
        total, count = total + sum(out.total.values()), count + counted
        for name, values in out.metrics.items():
            sums[name] = [have + float(value) for have, value in zip(sums[name], values, strict=True)]
    return total / count, {name: value / number for name, (value, number) in sums.items()}


@pytest.mark.parametrize("center", [None, 0.01, 1.0])
@pytest.mark.parametrize("margins", [None, MARGINS])
@pytest.mark.parametrize("spread", [0.1, 3.0, 40.0])
def test_loss_gradient_and_metrics_are_those_of_trl(spread, margins, center):
    for seed in range(3):
        mine, theirs = made(spread, seed), made(spread, seed)
        loss, measured = of_martlet(mine, margins, center)
        expected, known = of_trl(theirs, margins, center)
        torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-7)
        loss.backward()
        expected.backward()
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-5, atol=1e-7)
        assert measured["rewards/margins"] == pytest.approx(known["margin"], rel=1e-5)
        assert measured["rewards/accuracies"] == pytest.approx(known["accuracy"])
        assert measured["rewards/mean"] == pytest.approx(known["mean_reward"], rel=1e-4)
