"""The loss of KTO, its gradient, its estimate of the KL divergence and what it measures against TRL's trainer."""

from __future__ import annotations

from collections import defaultdict
from importlib.metadata import entry_points
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import martlet
from martlet.protocols import Encoded
from martlet_preference.kto import Kto
from martlet_train.api import Collator, TokenScores

pytest.importorskip("trl")

VOCABULARY = 11
LENGTHS = [(3, 4), (2, 7), (5, 1), (2, 6), (4, 12)]
"""Tokens of the prompt and of the answer."""
LABELS = {"mixed": [True, False, False, True, True], "good": [True] * 5, "bad": [False] * 5}
OTHERS = sorted({entry.name for entry in entry_points(group="martlet")} - {"data", "train", "preference"})
ACCELERATOR = SimpleNamespace(device=torch.device("cpu"), gather_for_metrics=lambda x: x)


class Rows:
    """Random rows and partners, and the logits of a model and its reference for them."""

    def __init__(self, drift: float, seed: int) -> None:
        draw = torch.Generator().manual_seed(seed)
        self.ids: dict[str, torch.Tensor] = {}
        self.mask: dict[str, torch.Tensor] = {}
        self.encoded: dict[str, list[Encoded]] = {}
        self.policy: dict[str, torch.Tensor] = {}
        self.reference: dict[str, torch.Tensor] = {}
        for name, shift in (("own", 0), ("kl", 1)):
            lengths = [(p, LENGTHS[(k + shift) % len(LENGTHS)][1]) for k, (p, _) in enumerate(LENGTHS)]
            width = max(map(sum, lengths))
            shape = (len(lengths), width)
            ids = torch.randint(1, VOCABULARY, shape, generator=draw)
            places = torch.arange(width)
            starts, ends = (torch.tensor(x)[:, None] for x in zip(*[(p, p + a) for p, a in lengths], strict=True))
            self.mask[name] = ((places >= starts) & (places < ends)).long()
            self.ids[name] = ids * (places < ends)
            self.encoded[name] = [
                Encoded(row[: p + a], [-100] * p + row[p : p + a])
                for row, (p, a) in zip(ids.tolist(), lengths, strict=True)
            ]
            self.policy[name] = (torch.randn(*shape, VOCABULARY, generator=draw) * 2).requires_grad_()
            noise = torch.randn(*shape, VOCABULARY, generator=draw) * 0.5
            self.reference[name] = self.policy[name].detach() + noise
            following = ids.roll(-1, dims=1)[..., None]
            self.reference[name].scatter_add_(-1, following, torch.full(following.shape, -drift))


class Stub(torch.nn.Module):
    """A model that says what it was made with, as TRL's patched forward does."""

    is_gradient_checkpointing = False

    def __init__(self, rows: Rows, logits: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self.rows, self.logits = rows, logits

    def forward(self, input_ids: torch.Tensor, labels: torch.Tensor, **more: Any) -> Any:
        name = next(name for name, ids in self.rows.ids.items() if torch.equal(ids, input_ids))
        targets = labels[:, 1:]
        logp = self.logits[name][:, :-1].log_softmax(-1).gather(-1, targets.clamp(min=0)[..., None])[..., 0]
        nothing = torch.zeros_like(logp)
        return SimpleNamespace(log_probs=logp.masked_fill(targets == -100, 0), entropy=nothing, mean_logits=nothing)


def of_trl(rows: Rows, labels: list[bool], **settings: float) -> tuple[Any, dict[str, float]]:
    from trl import KTOTrainer

    trainer = object.__new__(KTOTrainer)
    vars(trainer).update(
        model=Stub(rows, rows.policy),
        ref_model=Stub(rows, rows.reference),
        accelerator=ACCELERATOR,
        args=SimpleNamespace(gradient_checkpointing_kwargs=None),
        aux_loss_enabled=False,
        precompute_ref_logps=False,
        calculate_KL=True,
        loss_type="kto",
        _metrics={"train": defaultdict(list)},
        _total_train_tokens=0,
        _tp_size=1,
        **settings,
    )
    batch = {"label": torch.tensor(labels)}
    for name, prefix in (("own", ""), ("kl", "KL_")):
        batch |= {f"{prefix}input_ids": rows.ids[name], f"{prefix}completion_mask": rows.mask[name]}
        batch[f"{prefix}attention_mask"] = (rows.ids[name] > 0).long()
    loss = trainer._compute_loss(trainer.model, batch, return_outputs=False)
    return loss, {name: values[0] for name, values in trainer._metrics["train"].items()}


def of_martlet(rows: Rows, labels: list[bool], **flags: float) -> tuple[Any, dict[str, float]]:
    """Return the mean over the rows of a step that is split into two batches."""
    run = martlet.prepare("rlhf", rlhf_type="kto", dataset=["rows.jsonl"], disable_plugins=OTHERS, **flags)
    algorithm, batches = Kto(run), []
    for part in (range(2), range(2, len(labels))):
        both = [rows.encoded[name][place] for place in part for name in ("own", "kl")]
        for number, row in enumerate(both):
            row.extra = {"label": labels[part[number // 2]]}
        batch = algorithm.collate(both, range(2 * part[0], 2 * part[-1] + 2), Collator(pad_token_id=0))
        batches.append(batch)

    def scores(logits: dict[str, torch.Tensor], batch: Any) -> TokenScores:
        name = "kl" if batch.numbers[0] % 2 else "own"
        found = logits[name][batch.numbers // 2][batch.rows, batch.columns].log_softmax(-1)
        return TokenScores({"logp": found.gather(-1, batch.targets[:, None])[:, 0]})

    forward: Any = lambda batch: scores(rows.policy, batch)  # noqa: E731
    forward.reference = lambda batch: scores(rows.reference, batch)
    forward.model, forward.sum, forward.logged = torch.nn.Linear(1, 1), lambda values: values, True
    forward.processes = SimpleNamespace(zeros=lambda count: torch.zeros(count, dtype=torch.float64))
    algorithm.begin(forward, batches)
    total: Any = 0.0
    count, sums = 0, defaultdict(lambda: [0.0, 0.0])
    for batch in batches:
        out = algorithm.loss(forward, batch)
        total, count = total + out.total["rows"], count + algorithm.count(batch)["rows"]
        for name, values in out.metrics.items():
            sums[name] = [have + float(value) for have, value in zip(sums[name], values, strict=True)]
    return total / count, {name: value / number for name, (value, number) in sums.items() if number}


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("drift", [-1.0, 1.5])
@pytest.mark.parametrize("weights", [(1.0, 1.0), (1.3, 0.6)])
@pytest.mark.parametrize("beta", [0.1, 0.5])
def test_loss_gradient_and_metrics_are_those_of_trl(labels, drift, weights, beta):
    settings = {"beta": beta, "desirable_weight": weights[0], "undesirable_weight": weights[1]}
    mine, theirs = Rows(drift, seed=1), Rows(drift, seed=1)
    loss, measured = of_martlet(mine, LABELS[labels], **settings)
    expected, known = of_trl(theirs, LABELS[labels], **settings)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-7)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(mine.policy["own"].grad, theirs.policy["own"].grad, rtol=1e-5, atol=1e-7)
    assert mine.policy["kl"].grad is None
    names = {name for name in known if name.partition("/")[0] in ("kl", "rewards", "logps")}
    assert set(measured) == names
    for name in names:
        assert measured[name] == pytest.approx(known[name], rel=1e-4, abs=1e-5), name


def test_both_sides_of_the_clamp_are_seen():
    kls = [of_martlet(Rows(drift, seed=1), LABELS["mixed"])[1]["kl"] for drift in (-1.0, 1.5)]
    assert min(kls) == 0 and max(kls) > 1
