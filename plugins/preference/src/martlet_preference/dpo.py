"""Direct preference optimisation (arXiv 2305.18290) and its relatives that have a reference model."""

from __future__ import annotations

from torch import Tensor

from martlet import Run
from martlet.protocols import TrainResult
from martlet_train.api import fit

from .args import DpoArguments
from .checks import is_given
from .divergences import score
from .pairs import Pairs
from .terms import check_divergence


class Dpo(Pairs):
    """The losses of ``--loss_type`` on log-ratios to the reference model.

    ``--rpo_alpha`` adds the negative log-likelihood of the chosen answers (RPO, arXiv 2404.19733); ``--ld_alpha`` is
    the weight of tokens beyond the length of the shorter answer, in model and reference (LD-DPO, arXiv 2409.06411).
    """

    reference = True

    def __init__(self, run: Run) -> None:
        settings = run.config[DpoArguments]
        super().__init__(run, settings.rpo_alpha or 0.0)
        self.tail_weight = settings.ld_alpha
        self.divergence = settings.f_divergence_type
        self.alpha = settings.f_alpha_divergence_coef
        if self.divergence != "reverse_kl":
            check_divergence(self.terms, self.divergence)
        if self.divergence != "alpha_divergence" and is_given(run, "f_alpha_divergence_coef"):
            run.warn("--f_alpha_divergence_coef has no effect: only --f_divergence_type alpha_divergence reads it.")

    def score(self, log_ratio: Tensor) -> Tensor:
        return score(log_ratio, self.divergence, self.alpha)


def dpo(run: Run) -> TrainResult:
    """Train on pairs against a reference model. Trainer ``dpo``."""
    return fit(run, Dpo(run))
