"""The training core as other distributions use it."""

from __future__ import annotations

import pytest

from martlet_data.api import prepare as read
from martlet_train.api import Algorithm, Batch, LossOut, TokenScores, TrainResult, fit, sequence_sum


class Likelihood(Algorithm):
    """Plain maximum likelihood, written by a stranger."""

    def data(self, run, template):
        return read(run, template)

    def count(self, batch):
        return {"tokens": len(batch.targets)}

    def loss(self, forward, batch):
        assert isinstance(batch, Batch)
        scores = forward(batch)
        assert isinstance(scores, TokenScores)
        return LossOut({"tokens": -scores.logp.sum()})


class PerRow(Likelihood):
    """The mean over rows of each row's summed log-likelihood, as preference losses use it."""

    def count(self, batch):
        return {"rows": batch.sequences}

    def loss(self, forward, batch):
        return LossOut({"rows": -sequence_sum(forward(batch).logp, batch).sum()})


SETTINGS = {"max_steps": 2, "logging_steps": 1, "save_strategy": "no"}


def test_a_trainer_needs_rows_a_count_and_a_loss(prepare, train, rows):
    evaluated = {**SETTINGS, "val_dataset": [str(rows)], "eval_on_start": True}
    mine = fit(prepare(**evaluated), Likelihood())
    assert isinstance(mine, TrainResult)
    theirs = train(**evaluated)
    assert mine.metrics["loss"] == pytest.approx(theirs.metrics["loss"], rel=1e-6)
    assert mine.metrics["eval_loss"] == pytest.approx(theirs.metrics["eval_loss"], rel=1e-6)
    assert mine.ledger["totals"]["train"] == 21


def test_a_mean_over_rows_is_exact_as_well(prepare):
    split = {**SETTINGS, "padding_free": True}
    whole = fit(prepare(**SETTINGS, per_device_train_batch_size=8, gradient_accumulation_steps=1), PerRow())
    parts = fit(prepare(**split, per_device_train_batch_size=2, gradient_accumulation_steps=4), PerRow())
    assert parts.metrics["loss"] == pytest.approx(whole.metrics["loss"], rel=1e-5)
