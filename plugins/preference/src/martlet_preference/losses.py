"""Losses of contract ``pair``: from the log-probabilities of two answers to one number a pair.

Each is called by keyword, takes what it names and ignores the rest. P pairs; all tensors (P,) f32:

- ``chosen``, ``rejected``, ``ref_chosen``, ``ref_rejected``: sums of the log-probabilities of an answer's tokens under
  the model and under the reference, which are zeros where there is none;
- ``chosen_score``, ``rejected_score``: ``chosen - ref_chosen``, or what ``--f_divergence_type`` makes of it;
- ``chosen_tokens``, ``rejected_tokens``: how many tokens that were;
- ``nll``: negative log-likelihood of the chosen answer, ``--ld_alpha`` left out;
- ``beta``, ``label_smoothing``, ``discopop_tau``, ``simpo_gamma``: numbers.

The result is (P,) and averaged over the pairs of the optimizer step; a dict names another divisor for each term. In the
formulas s is the logistic function, c and r are the log-ratios ``chosen - ref_chosen`` and ``rejected - ref_rejected``,
c' and r' the scores, b is beta and e is label_smoothing.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from martlet import UsageError


def sigmoid(chosen_score: Tensor, rejected_score: Tensor, beta: float, label_smoothing: float, **more: Any) -> Tensor:
    """DPO (arXiv 2305.18290, eq. 7): -log s(b (c' - r')).

    With e > 0 conservative DPO: -(1 - e) log s(b (c' - r')) - e log s(-b (c' - r')).
    """
    return _smoothed(beta * (chosen_score - rejected_score), label_smoothing)


def hinge(chosen_score: Tensor, rejected_score: Tensor, beta: float, **more: Any) -> Tensor:
    """SLiC-HF (arXiv 2305.10425): max(0, 1 - b (c' - r'))."""
    return (1 - beta * (chosen_score - rejected_score)).relu()


def ipo(
    chosen_score: Tensor,
    rejected_score: Tensor,
    chosen_tokens: Tensor,
    rejected_tokens: Tensor,
    beta: float,
    **more: Any,
) -> Tensor:
    """IPO (arXiv 2310.12036, eq. 17): (c'/tokens - r'/tokens - 1/(2 b))^2, averaged over the tokens of each answer."""
    return (_average(chosen_score, chosen_tokens) - _average(rejected_score, rejected_tokens) - 1 / (2 * beta)) ** 2


def exo_pair(chosen_score: Tensor, rejected_score: Tensor, beta: float, label_smoothing: float, **more: Any) -> Tensor:
    """EXO (arXiv 2402.00856, eq. 16): KL of (s(d), s(-d)) from (1 - e, e), with d = b (c' - r'); infinite for e = 0."""
    if not label_smoothing:
        raise UsageError("--loss_type exo_pair needs --label_smoothing greater than 0; its paper recommends 1e-3.")
    margin = beta * (chosen_score - rejected_score)
    smoothing = margin.new_tensor(label_smoothing)
    kept = margin.sigmoid() * (logsigmoid(margin) - (-smoothing).log1p())
    return kept + (-margin).sigmoid() * (logsigmoid(-margin) - smoothing.log())


def nca_pair(
    chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, beta: float, **more: Any
) -> Tensor:
    """NCA (arXiv 2402.05369): -log s(b c) - (log s(-b c) + log s(-b r)) / 2."""
    better, worse = beta * (chosen - ref_chosen), beta * (rejected - ref_rejected)
    return -logsigmoid(better) - 0.5 * logsigmoid(-better) - 0.5 * logsigmoid(-worse)


def robust(chosen_score: Tensor, rejected_score: Tensor, beta: float, label_smoothing: float, **more: Any) -> Tensor:
    """Robust DPO (arXiv 2403.00409): (-(1 - e) log s(d) + e log s(-d)) / (1 - 2 e), with d = b (c' - r')."""
    margin = beta * (chosen_score - rejected_score)
    clean, flipped = -logsigmoid(margin), -logsigmoid(-margin)
    return ((1 - label_smoothing) * clean - label_smoothing * flipped) / (1 - 2 * label_smoothing)


def bco_pair(
    chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, beta: float, **more: Any
) -> Tensor:
    """BCO without its reward shift (arXiv 2404.04656): -log s(b c) - log s(-b r)."""
    return -logsigmoid(beta * (chosen - ref_chosen)) - logsigmoid(-beta * (rejected - ref_rejected))


def sppo_hard(
    chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, beta: float, **more: Any
) -> Tensor:
    """SPPO with probabilities 1 and 0 (arXiv 2405.00675, eq. 4.7): (c - 1/(2 b))^2 + (r + 1/(2 b))^2."""
    return (chosen - ref_chosen - 0.5 / beta) ** 2 + (rejected - ref_rejected + 0.5 / beta) ** 2


def aot(
    chosen: Tensor,
    rejected: Tensor,
    ref_chosen: Tensor,
    ref_rejected: Tensor,
    beta: float,
    label_smoothing: float,
    **more: Any,
) -> Tensor:
    """AOT (arXiv 2406.05882): DPO of sort(chosen - rejected) - sort(ref_chosen - ref_rejected).

    Sorted within a batch: the one loss here, with ``aot_unpaired``, that depends on how a step is split.
    """
    margin = (chosen - rejected).sort().values - (ref_chosen - ref_rejected).sort().values
    return _smoothed(beta * margin, label_smoothing)


def aot_unpaired(
    chosen: Tensor,
    rejected: Tensor,
    ref_chosen: Tensor,
    ref_rejected: Tensor,
    beta: float,
    label_smoothing: float,
    **more: Any,
) -> Tensor:
    """AOT of unpaired answers (arXiv 2406.05882): DPO of sort(c) - sort(r), sorted within a batch."""
    margin = (chosen - ref_chosen).sort().values - (rejected - ref_rejected).sort().values
    return _smoothed(beta * margin, label_smoothing)


OF_A_BATCH = (aot, aot_unpaired)
"""Losses that compare the pairs of a batch with one another."""


def apo_zero(
    chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, beta: float, **more: Any
) -> Tensor:
    """APO-zero (arXiv 2408.06266, eq. 7): s(-b c) + s(b r)."""
    return (-beta * (chosen - ref_chosen)).sigmoid() + (beta * (rejected - ref_rejected)).sigmoid()


def apo_down(
    chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, beta: float, **more: Any
) -> Tensor:
    """APO-down (arXiv 2408.06266, eq. 8): s(b c) + s(-b (c - r))."""
    better, worse = chosen - ref_chosen, rejected - ref_rejected
    return (beta * better).sigmoid() + (-beta * (better - worse)).sigmoid()


def discopop(chosen_score: Tensor, rejected_score: Tensor, beta: float, discopop_tau: float, **more: Any) -> Tensor:
    """DiscoPOP (arXiv 2406.08414, eq. 5): -(1 - m) log s(d) + m exp(-d), with d = b (c' - r') and m = s(d / tau)."""
    margin = beta * (chosen_score - rejected_score)
    exponential = (logsigmoid(margin / discopop_tau) - margin).exp()  # m and exp(-d) apart would overflow
    return -(-margin / discopop_tau).sigmoid() * logsigmoid(margin) + exponential


def sft(nll: Tensor, **more: Any) -> dict[str, Tensor]:
    """Negative log-likelihood of the chosen answers, the mean over all their tokens; in MPO (arXiv 2411.10442)."""
    return {"chosen_tokens": nll}


def sigmoid_norm(
    chosen_score: Tensor,
    rejected_score: Tensor,
    chosen_tokens: Tensor,
    rejected_tokens: Tensor,
    beta: float,
    **more: Any,
) -> Tensor:
    """DPO on averages, as in Tülu 3 (arXiv 2411.15124): -log s(b (c'/tokens - r'/tokens))."""
    return -logsigmoid(beta * (_average(chosen_score, chosen_tokens) - _average(rejected_score, rejected_tokens)))


def odds_ratio(
    chosen: Tensor, rejected: Tensor, chosen_tokens: Tensor, rejected_tokens: Tensor, beta: float, **more: Any
) -> Tensor:
    """ORPO's second term (arXiv 2403.07691, eq. 7): -b log s(log odds(chosen) - log odds(rejected)).

    odds = p / (1 - p), where p is the geometric mean of the probabilities of an answer's tokens.
    """
    return -beta * logsigmoid(log_odds(chosen, chosen_tokens) - log_odds(rejected, rejected_tokens))


def simpo(
    chosen: Tensor,
    rejected: Tensor,
    chosen_tokens: Tensor,
    rejected_tokens: Tensor,
    beta: float,
    simpo_gamma: float,
    label_smoothing: float,
    **more: Any,
) -> Tensor:
    """SimPO (arXiv 2405.14734): -log s(b chosen/tokens - b rejected/tokens - gamma); e as in ``sigmoid``."""
    margin = _average(chosen, chosen_tokens) - _average(rejected, rejected_tokens)
    return _smoothed(beta * margin - simpo_gamma, label_smoothing)


def log_odds(logp: Tensor, tokens: Tensor) -> Tensor:
    """Return log(p / (1 - p)) of the average log-probability of answers: (P,)."""
    mean = _average(logp, tokens).clamp(max=-torch.finfo(logp.dtype).tiny)  # a certain answer has finite odds
    return mean - (-mean.expm1()).log()


def _smoothed(margin: Tensor, label_smoothing: float) -> Tensor:
    """Return -log s(margin), and for the share of pairs that are the wrong way round the same of -margin."""
    return -(1 - label_smoothing) * logsigmoid(margin) - label_smoothing * logsigmoid(-margin)


def _average(sums: Tensor, tokens: Tensor) -> Tensor:
    """Return sums over answers as means over their tokens; an answer without tokens has a sum of 0."""
    return sums / tokens.clamp(min=1)
