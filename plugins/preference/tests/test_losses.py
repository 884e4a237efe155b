"""The losses of pairs against their papers in float64, and what each must hold whatever the numbers are."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import martlet
from martlet import Loss, UsageError
from martlet_preference import losses
from martlet_preference.divergences import score
from martlet_preference.plugin import provide_losses

NAMES = [*(spec.name for spec in provide_losses()), "odds_ratio", "simpo"]
SUMS = ("chosen", "rejected", "ref_chosen", "ref_rejected")
SORTED = ("aot", "aot_unpaired")
NOT_MONOTONE = ("ipo", "sppo_hard", "nca_pair", "apo_down", "discopop")
"""They have a target, an anchor or a dip beyond which a likelier chosen answer costs again."""
SETTINGS = {"beta": 0.3, "label_smoothing": 0.1, "discopop_tau": 0.05, "simpo_gamma": 0.7}


def arguments(sums, tokens, **changed):
    """Return what a loss is given: ``sums`` (4, P), ``tokens`` (2, P)."""
    a = dict(zip(SUMS, sums, strict=True))
    a["chosen_score"] = a["chosen"] - a["ref_chosen"]
    a["rejected_score"] = a["rejected"] - a["ref_rejected"]
    a["chosen_tokens"], a["rejected_tokens"] = tokens
    a["nll"] = -a["chosen"]
    return a | SETTINGS | changed


def call(name, a):
    """Return (P,) losses of the loss ``name``."""
    found = getattr(losses, name)(**a)
    return found["chosen_tokens"] if name == "sft" else found


def some_pairs(pairs=9, seed=0, dtype=torch.float32):
    draw = torch.Generator().manual_seed(seed)
    tokens = torch.randint(1, 30, (2, pairs), generator=draw).to(dtype)
    policy = -tokens * torch.rand(2, pairs, generator=draw) * 2
    reference = policy + torch.randn(2, pairs, generator=draw).to(dtype)
    return torch.cat([policy, reference]).to(dtype), tokens


def log_sigmoid(x):
    return torch.log(1 / (1 + torch.exp(-x)))


def conservative(margin, e):
    return -(1 - e) * log_sigmoid(margin) - e * log_sigmoid(-margin)


def divergence_of_choices(margin, e):
    """KL of the model's choice within a pair from the choice (1 - e, e)."""
    choice = torch.stack([torch.exp(margin / 2), torch.exp(-margin / 2)])
    choice = choice / choice.sum(0)
    wanted = torch.tensor([1 - e, e], dtype=margin.dtype)[:, None]
    return (choice * torch.log(choice / wanted)).sum(0)


def odds(mean):
    return torch.exp(mean) / (1 - torch.exp(mean))


def formula(name, a):
    """Return the losses as the papers print them, in float64 and without care for overflow."""
    b, e, tau = a["beta"], a["label_smoothing"], a["discopop_tau"]
    c, r = a["chosen"] - a["ref_chosen"], a["rejected"] - a["ref_rejected"]
    cs, rs, nc, nr = a["chosen_score"], a["rejected_score"], a["chosen_tokens"], a["rejected_tokens"]
    d = b * (cs - rs)
    policy, reference = a["chosen"] - a["rejected"], a["ref_chosen"] - a["ref_rejected"]
    share = 1 / (1 + torch.exp(-d / tau))
    return {
        "sigmoid": lambda: conservative(d, e),
        "hinge": lambda: torch.clamp(1 - d, min=0),
        "ipo": lambda: (cs / nc - rs / nr - 1 / (2 * b)) ** 2,
        "exo_pair": lambda: divergence_of_choices(d, e),
        "nca_pair": lambda: -log_sigmoid(b * c) - (log_sigmoid(-b * c) + log_sigmoid(-b * r)) / 2,
        "robust": lambda: (-(1 - e) * log_sigmoid(d) + e * log_sigmoid(-d)) / (1 - 2 * e),
        "bco_pair": lambda: -log_sigmoid(b * c) - log_sigmoid(-b * r),
        "sppo_hard": lambda: (c - 1 / (2 * b)) ** 2 + (r + 1 / (2 * b)) ** 2,
        "aot": lambda: conservative(b * (policy.sort().values - reference.sort().values), e),
        "aot_unpaired": lambda: conservative(b * (c.sort().values - r.sort().values), e),
        "apo_zero": lambda: 1 - torch.exp(log_sigmoid(b * c)) + torch.exp(log_sigmoid(b * r)),
        "apo_down": lambda: torch.exp(log_sigmoid(b * c)) + 1 - torch.exp(log_sigmoid(b * (c - r))),
        "discopop": lambda: -(1 - share) * log_sigmoid(d) + share * torch.exp(-d),
        "sft": lambda: -a["chosen"],
        "sigmoid_norm": lambda: -log_sigmoid(b * (cs / nc - rs / nr)),
        "odds_ratio": lambda: -b * log_sigmoid(torch.log(odds(a["chosen"] / nc) / odds(a["rejected"] / nr))),
        "simpo": lambda: conservative(b * a["chosen"] / nc - b * a["rejected"] / nr - a["simpo_gamma"], e),
    }[name]()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "changed", [{}, {"beta": 1.7, "label_smoothing": 0.3, "discopop_tau": 0.4, "simpo_gamma": 0.2}]
)
def test_value_and_gradient_are_those_of_the_paper(name, changed):
    sums, tokens = some_pairs()
    ours, exact = sums.clone().requires_grad_(), sums.double().requires_grad_()
    weights = torch.linspace(0.5, 2, sums.shape[1])
    found = call(name, arguments(ours, tokens, **changed))
    wanted = formula(name, arguments(exact, tokens.double(), **changed))
    assert found.shape == (9,) and found.dtype == torch.float32
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-6)
    (gradient,) = torch.autograd.grad((found * weights).sum(), ours)
    (slope,) = torch.autograd.grad((wanted * weights).sum(), exact)
    torch.testing.assert_close(gradient.double(), slope, rtol=1e-5, atol=1e-6)


def test_exo_without_smoothing_is_refused():
    sums, tokens = some_pairs()
    with pytest.raises(UsageError, match="--label_smoothing greater than 0"):
        losses.exo_pair(**arguments(sums, tokens, label_smoothing=0.0))


def test_sft_is_averaged_over_the_tokens_of_chosen_answers():
    sums, tokens = some_pairs()
    assert list(losses.sft(**arguments(sums, tokens))) == ["chosen_tokens"]


logp = st.floats(min_value=-1e4, max_value=0, width=32)


@pytest.mark.parametrize("name", NAMES)
@given(
    sums=st.lists(st.tuples(logp, logp, logp, logp), min_size=1, max_size=4),
    tokens=st.tuples(st.integers(0, 2000), st.integers(0, 2000)),
    beta=st.floats(0.01, 5),
    divergence=st.sampled_from(["reverse_kl", "forward_kl", "js_divergence", "alpha_divergence"]),
)
@settings(max_examples=40)
def test_loss_and_gradient_are_finite_for_any_answers(name, sums, tokens, beta, divergence):
    leaf = torch.tensor(sums).T.contiguous().requires_grad_()
    counts = torch.tensor(tokens, dtype=torch.float32)[:, None].expand(2, len(sums))
    a = arguments(leaf, counts, beta=beta, discopop_tau=0.05)
    a["chosen_score"] = score(a["chosen_score"], divergence, 0.5)
    a["rejected_score"] = score(a["rejected_score"], divergence, 0.5)
    found = call(name, a)
    assert found.isfinite().all(), found
    (gradient,) = torch.autograd.grad(found.sum(), leaf)
    assert gradient.isfinite().all(), gradient


@pytest.mark.parametrize("name", [name for name in NAMES if name not in NOT_MONOTONE])
@given(step=st.floats(0.01, 3), seed=st.integers(0, 100))
@settings(max_examples=20)
def test_a_likelier_chosen_answer_never_costs_more(name, step, seed):
    sums, tokens = some_pairs(seed=seed)
    sums = sums - 5
    better = sums + torch.tensor([step, 0, 0, 0])[:, None]
    before = call(name, arguments(sums, tokens, label_smoothing=1e-30))
    after = call(name, arguments(better, tokens, label_smoothing=1e-30))
    assert (after <= before + 1e-6).all() and (after < before).any()


@pytest.mark.parametrize("name", [name for name in NAMES if name not in (*SORTED, "sft", "discopop")])
def test_at_the_reference_every_loss_widens_the_margin(name):
    """Discopop has a dip there, which its paper points out."""
    sums, tokens = some_pairs()
    sums[2:] = sums[:2]
    leaf = sums.requires_grad_()
    (gradient,) = torch.autograd.grad(call(name, arguments(leaf, tokens)).sum(), leaf)
    assert (gradient[0] < gradient[1]).all()


@pytest.mark.parametrize("name", [name for name in NAMES if name not in (*NOT_MONOTONE, *SORTED, "sft")])
def test_of_a_pair_and_the_pair_the_other_way_round_the_better_costs_less(name):
    sums, tokens = some_pairs()
    tokens[1] = tokens[0]
    sums[2:] = -10.0
    there = call(name, arguments(sums, tokens, simpo_gamma=0.0))
    back = call(name, arguments(sums[[1, 0, 3, 2]], tokens, simpo_gamma=0.0))
    assert ((there < back) == (sums[0] > sums[1])).all()


@pytest.mark.parametrize("name", NAMES)
@given(at=st.integers(1, 8), seed=st.integers(0, 50))
@settings(max_examples=10)
def test_a_pair_costs_the_same_in_any_batch(name, at, seed):
    sums, tokens = some_pairs(seed=seed)
    whole = call(name, arguments(sums, tokens))
    parts = [call(name, arguments(sums[:, part], tokens[:, part])) for part in (slice(0, at), slice(at, None))]
    if name in SORTED:  # a batch is compared as a whole; the order of its pairs is free
        shuffled = torch.randperm(9, generator=torch.Generator().manual_seed(seed))
        parts = [call(name, arguments(sums[:, shuffled], tokens[:, shuffled]))]
    torch.testing.assert_close(torch.cat(parts), whole)


def test_one_pair_makes_aot_a_comparison_of_that_pair():
    sums, tokens = some_pairs(pairs=1)
    a = arguments(sums, tokens)
    for name in SORTED:
        torch.testing.assert_close(call(name, a), call("sigmoid", a))


@pytest.mark.parametrize(
    ("divergence", "alpha"),
    [("reverse_kl", 0.5), ("forward_kl", 0.5), ("js_divergence", 0.5)]
    + [("alpha_divergence", alpha) for alpha in (0.3, 0.5, 2.0, 1 - 1e-3)],
)
def test_a_score_is_the_slope_of_the_divergence(divergence, alpha):
    """f'(u) of the generators f of arXiv 2309.16240, up to a constant that cancels in a pair."""
    u = torch.linspace(0.05, 4, 40, dtype=torch.float64, requires_grad=True)
    generator = {
        "reverse_kl": lambda: u * torch.log(u),
        "forward_kl": lambda: -torch.log(u),
        "js_divergence": lambda: u * torch.log(u) - (u + 1) * torch.log((u + 1) / 2),
        "alpha_divergence": lambda: (u**alpha - alpha * u - (1 - alpha)) / (alpha * (alpha - 1)),
    }[divergence]()
    (slope,) = torch.autograd.grad(generator.sum(), u)
    found = score(u.detach().log().float(), divergence, alpha).double()
    torch.testing.assert_close(found - found[20], slope - slope[20], rtol=1e-4, atol=1e-5)
    at_the_reference = score(torch.zeros(1), divergence, alpha)
    assert at_the_reference.item() == pytest.approx(0, abs=1e-6)


def test_alpha_one_is_the_reverse_divergence():
    ratios = torch.linspace(-3, 3, 7)
    assert torch.equal(score(ratios, "alpha_divergence", 1.0), ratios)
    torch.testing.assert_close(score(ratios, "alpha_divergence", 1.0 + 1e-4), ratios, rtol=1e-3, atol=1e-3)


def test_every_loss_is_of_the_contract_pair_and_names_its_paper():
    found = [martlet.get("losses", spec.name) for spec in provide_losses()]
    assert [function.__name__ for function in found] == [spec.name for spec in provide_losses()]
    assert all(isinstance(spec, Loss) and spec.contract == "pair" for spec in provide_losses())
    assert [function.__name__ for function in found if "arXiv" not in (function.__doc__ or "")] == []
