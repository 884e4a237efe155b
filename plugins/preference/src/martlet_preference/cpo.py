"""Contrastive preference optimisation (arXiv 2401.08417) and SimPO (arXiv 2405.14734)."""

from __future__ import annotations

from martlet import Run
from martlet.protocols import TrainResult
from martlet_train.api import fit

from . import losses
from .args import CpoArguments
from .pairs import Pairs
from .terms import SETTINGS, Term, warn_of_idle


class Cpo(Pairs):
    """The losses of ``--loss_type`` without a reference + ``--cpo_alpha`` times the nll of the chosen answers."""

    def __init__(self, run: Run) -> None:
        super().__init__(run, run.config[CpoArguments].cpo_alpha)


class Simpo(Cpo):
    """The loss ``simpo`` + ``--cpo_alpha`` times the nll of the chosen answers; the paper has no such second term."""

    averages = True

    def losses(self, run: Run) -> list[Term]:
        terms = [Term("simpo", 1.0, losses.simpo)]
        warn_of_idle(run, terms, (*SETTINGS, "loss_weights"))
        return terms


def cpo(run: Run) -> TrainResult:
    """Train on pairs without a reference model. Trainer ``cpo``."""
    return fit(run, Cpo(run))


def simpo(run: Run) -> TrainResult:
    """Train on pairs without a reference model. Trainer ``simpo``."""
    return fit(run, Simpo(run))
