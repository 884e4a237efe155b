"""Odds ratio preference optimisation (arXiv 2403.07691)."""

from __future__ import annotations

from typing import Any

from torch.nn.functional import logsigmoid

from martlet import Run
from martlet.protocols import TrainResult
from martlet_train.api import Measured, fit

from .losses import log_odds, odds_ratio
from .pairs import Pairs
from .terms import Term


class Orpo(Pairs):
    """The negative log-likelihood of the chosen answers + ``losses.odds_ratio``, where beta is the paper's lambda."""

    averages = True
    more_metrics = ("log_odds_chosen", "log_odds_ratio")

    def __init__(self, run: Run) -> None:
        super().__init__(run, nll_weight=1.0)

    def losses(self, run: Run) -> list[Term]:
        return [Term("odds_ratio", 1.0, odds_ratio)]

    def measure(self, given: dict[str, Any]) -> Measured:
        odds = log_odds(given["chosen"].detach(), given["chosen_tokens"])
        odds = odds - log_odds(given["rejected"].detach(), given["rejected_tokens"])
        pairs = float(len(odds))
        more = {"log_odds_chosen": (odds.sum(), pairs), "log_odds_ratio": (logsigmoid(odds).sum(), pairs)}
        return {**super().measure(given), **more}


def orpo(run: Run) -> TrainResult:
    """Train on pairs without a reference model. Trainer ``orpo``."""
    return fit(run, Orpo(run))
