"""Losses and gradients of the preference trainers against TRL's trainers, on the same logits of the same pairs."""

from __future__ import annotations

from collections import defaultdict
from importlib.metadata import entry_points
from types import SimpleNamespace

import pytest
import torch

import martlet
from martlet.protocols import Encoded
from martlet_train.api import Collator, TokenScores

pytest.importorskip("trl")

VOCABULARY = 11
LENGTHS = [(3, 4, 9), (2, 7, 5), (5, 1, 6), (2, 6, 6), (4, 12, 2)]
"""Tokens of the prompt, of the chosen and of the rejected answer."""
OTHERS = sorted({entry.name for entry in entry_points(group="martlet")} - {"data", "train", "preference"})


class Pairs:
    """Random pairs, and the logits of a model and its reference for them; in TRL's order: first all chosen."""

    def __init__(self, prompts: bool = True, seed: int = 0) -> None:
        draw = torch.Generator().manual_seed(seed)
        lengths = [(prompt if prompts else 1, *answers) for prompt, *answers in LENGTHS]
        self.number, self.width = len(lengths), max(p + max(a) for p, *a in lengths)
        self.rows = []
        for side in (1, 2):
            for row in lengths:
                ids = torch.randint(1, VOCABULARY, (row[0] + row[side],), generator=draw).tolist()
                self.rows.append(Encoded(ids, [-100] * row[0] + ids[row[0] :]))
        shape = (2 * self.number, self.width, VOCABULARY)
        self.logits = (torch.randn(shape, generator=draw) * 2).requires_grad_()
        self.reference = self.logits.detach() + torch.randn(shape, generator=draw) * 0.3

    def padded(self, rows: list[Encoded]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return tokens and labels, both (B, T)."""
        ids = [row.input_ids + [0] * (self.width - len(row.input_ids)) for row in rows]
        labels = [row.labels + [-100] * (self.width - len(row.labels)) for row in rows]
        return torch.tensor(ids), torch.tensor(labels)


class Stub(torch.nn.Module):
    """A model that says what it was made with, as TRL's patched forward does."""

    is_gradient_checkpointing = False

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, labels=None, **more):
        if labels is None:
            return SimpleNamespace(logits=self.logits)
        targets = labels[:, 1:]
        logp = self.logits[:, :-1].log_softmax(-1).gather(-1, targets.clamp(min=0)[..., None])[..., 0]
        nothing = torch.zeros_like(logp)
        return SimpleNamespace(
            log_probs=logp.masked_fill(targets == -100, 0), entropy=nothing, mean_logits=nothing, is_top1=nothing.bool()
        )


ACCELERATOR = SimpleNamespace(device=torch.device("cpu"), gather=lambda x: x, gather_for_metrics=lambda x: x)


def of_trl_dpo(pairs: Pairs, **settings) -> tuple[torch.Tensor, dict[str, float]]:
    from trl import DPOTrainer

    trainer = object.__new__(DPOTrainer)
    defaults = {
        "model": Stub(pairs.logits),
        "ref_model": Stub(pairs.reference),
        "accelerator": ACCELERATOR,
        "args": SimpleNamespace(discopop_tau=settings.get("discopop_tau", 0.05), gradient_checkpointing_kwargs=None),
        "aux_loss_enabled": False,
        "precompute_ref_logps": False,
        "use_weighting": False,
        "beta": 0.1,
        "ld_alpha": None,
        "label_smoothing": 0.0,
        "f_divergence_type": "reverse_kl",
        "f_alpha_divergence_coef": 0.5,
        "loss_weights": [1.0] * len(settings["loss_types"]),
        "_metrics": {"train": defaultdict(list)},
        "_total_train_tokens": 0,
        "_tp_size": 1,
    }
    vars(trainer).update(defaults | settings)
    ids, labels = pairs.padded(pairs.rows)
    inputs = {"input_ids": ids, "attention_mask": (ids > 0).long(), "completion_mask": (labels != -100).long()}
    loss = trainer._compute_loss(trainer.model, inputs, return_outputs=False)
    return loss, {name: values[0] for name, values in trainer._metrics["train"].items()}


def of_trl(trainer_class: type, pairs: Pairs, **settings) -> tuple[torch.Tensor, dict[str, float]]:
    trainer = object.__new__(trainer_class)
    defaults = {
        "accelerator": ACCELERATOR,
        "aux_loss_enabled": False,
        "is_encoder_decoder": False,
        "padding_value": 0,
        "pad_token_id": 0,
        "alpha": 0.0,
        "label_smoothing": 0.0,
    }
    vars(trainer).update(defaults | settings)
    batch = {}
    for side, rows in (("chosen", pairs.rows[: pairs.number]), ("rejected", pairs.rows[pairs.number :])):
        ids, labels = pairs.padded(rows)
        batch |= {f"{side}_input_ids": ids, f"{side}_attention_mask": (ids > 0).long(), f"{side}_labels": labels}
    return trainer.get_batch_loss_metrics(Stub(pairs.logits), batch)


def of_martlet(pairs: Pairs, **flags) -> tuple[torch.Tensor, dict[str, float]]:
    """Return the loss of the trainer's own algorithm, split into two batches, and what it measures."""
    from martlet_preference.cpo import Cpo, Simpo
    from martlet_preference.dpo import Dpo
    from martlet_preference.orpo import Orpo

    run = martlet.prepare("rlhf", dataset=["pairs.jsonl"], disable_plugins=OTHERS, **flags)
    algorithm = {"dpo": Dpo, "orpo": Orpo, "cpo": Cpo, "simpo": Simpo}[flags["rlhf_type"]](run)
    whole = flags.get("loss_type", [""])[0].startswith("aot")  # sorts what is in a batch
    total, count, metrics = defaultdict(float), defaultdict(int), defaultdict(lambda: [0.0, 0.0])
    for part in [range(pairs.number)] if whole else [range(2), range(2, pairs.number)]:
        places = [place for pair in part for place in (pair, pair + pairs.number)]
        batch = Collator(pad_token_id=0)([pairs.rows[place] for place in places])

        def scores(logits, batch=batch, places=places):
            found = logits[places][batch.rows, batch.columns].log_softmax(-1)
            return TokenScores({"logp": found.gather(-1, batch.targets[:, None])[:, 0]})

        forward = lambda batch, scores=scores: scores(pairs.logits)  # noqa: E731
        forward.reference = lambda batch, scores=scores: scores(pairs.reference)
        forward.logged = True
        out = algorithm.loss(forward, batch)
        for name, number in algorithm.count(batch).items():
            total[name] = total[name] + out.total[name]
            count[name] += number
        for name, (found, of) in out.metrics.items():
            metrics[name][0] += float(found)
            metrics[name][1] += float(of)
    loss = sum(total[name] / count[name] for name in total)
    return loss, {name: found / of for name, (found, of) in metrics.items()}


def agree(pairs: Pairs, ours, theirs) -> None:
    (loss, metrics), (wanted, logged) = ours, theirs
    torch.testing.assert_close(loss, wanted, rtol=1e-5, atol=0)
    gradients = [torch.autograd.grad(one, pairs.logits)[0] for one in (loss, wanted)]
    assert gradients[1].abs().max() > 0
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-5 * float(gradients[1].abs().max()))
    known = set(metrics) & set(logged)
    assert known >= {"rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins", "logps/chosen"}
    for name in known:
        assert metrics[name] == pytest.approx(float(logged[name]), rel=1e-5, abs=1e-5), name


DPO_LOSSES = [
    *("sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired"),
    *("apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm"),
]
DIFFERENCES = ["sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "robust", "discopop"]


def dpo_agrees(loss_types: list[str], theirs: dict | None = None, **flags) -> None:
    """Compare both; flags that go by another name at TRL are given as ``theirs`` as well."""
    pairs = Pairs()
    same = {name: value for name, value in flags.items() if name != "rpo_alpha"}
    agree(
        pairs,
        of_martlet(pairs, rlhf_type="dpo", loss_type=loss_types, **flags),
        of_trl_dpo(pairs, **{"loss_types": loss_types, **same, **(theirs or {})}),
    )


@pytest.mark.parametrize("beta", [0.1, 1.3])
@pytest.mark.parametrize("loss", DPO_LOSSES)
def test_dpo_losses(loss, beta):
    # TRL does not smooth its loss "sigmoid": it is compared without
    smoothing = {} if loss == "sigmoid" else {"label_smoothing": 0.2}
    dpo_agrees([loss], beta=beta, **smoothing)


def test_discopop_tau():
    dpo_agrees(["discopop"], discopop_tau=0.3, beta=0.7)


@pytest.mark.parametrize("alpha", [0.5, 0.2, 1.0, 2.0])
def test_alpha_divergence(alpha):
    dpo_agrees(["sigmoid"], f_divergence_type="alpha_divergence", f_alpha_divergence_coef=alpha)


@pytest.mark.parametrize("divergence", ["forward_kl", "js_divergence", "alpha_divergence"])
@pytest.mark.parametrize("loss", DIFFERENCES)
def test_divergences(loss, divergence):
    smoothing = {} if loss == "sigmoid" else {"label_smoothing": 0.2}
    dpo_agrees([loss], f_divergence_type=divergence, **smoothing)


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("loss", ["sigmoid", "ipo", "sft", "apo_zero"])
def test_length_desensitised(loss, alpha):
    dpo_agrees([loss], ld_alpha=alpha)


def test_a_mix_of_losses_with_weights():
    dpo_agrees(["sigmoid", "bco_pair", "sft"], loss_weights=[0.8, 0.2, 1.5])
    dpo_agrees(["sigmoid", "ipo"])


def test_rpo_is_a_mix_with_sft():
    dpo_agrees(["hinge"], {"loss_types": ["hinge", "sft"], "loss_weights": [1.0, 0.7]}, rpo_alpha=0.7, ld_alpha=0.5)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize(("loss", "alpha"), [("sigmoid", 1.0), ("hinge", 0.3), ("ipo", 0.0)])
def test_cpo(loss, alpha, smoothing):
    from trl.experimental.cpo import CPOTrainer

    pairs = Pairs()
    flags = {"cpo_alpha": alpha, "beta": 0.4, "label_smoothing": smoothing}
    ours, metrics = of_martlet(pairs, rlhf_type="cpo", loss_type=[loss], **flags)
    theirs, logged = of_trl(CPOTrainer, pairs, loss_type=loss, **flags)
    if loss == "ipo":  # TRL logs averages over tokens with this loss, and sums with the others
        logged = metrics
    agree(pairs, (ours, metrics), (theirs, logged))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize(("gamma", "alpha"), [(1.0, 1.0), (0.5, 0.0), (0.0, 0.3)])
def test_simpo(gamma, alpha, smoothing):
    from trl.experimental.cpo import CPOTrainer

    pairs = Pairs()
    flags = {"cpo_alpha": alpha, "simpo_gamma": gamma, "label_smoothing": smoothing}
    agree(
        pairs,
        of_martlet(pairs, rlhf_type="simpo", **flags),
        of_trl(CPOTrainer, pairs, loss_type="simpo", beta=2.0, **flags),
    )


@pytest.mark.parametrize("beta", [0.1, 0.9])
def test_orpo(beta):
    """TRL trains ORPO on the tokens of the prompt as well, so these prompts are one token, which nothing predicts."""
    from trl.experimental.orpo import ORPOTrainer

    pairs = Pairs(prompts=False)
    agree(pairs, of_martlet(pairs, rlhf_type="orpo", beta=beta), of_trl(ORPOTrainer, pairs, beta=beta))
