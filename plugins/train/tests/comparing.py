"""An algorithm that compares with a reference model, and remembers what the reference said."""

from __future__ import annotations

from typing import ClassVar

from martlet import Trainer, hookimpl
from martlet_data.api import prepare
from martlet_train.api import Algorithm, LossOut, fit
from martlet_train.args import TrainArguments


class Compare(Algorithm):
    """Make answers likelier, and pay for every step away from the reference."""

    reference = True
    said: ClassVar[list[dict[int, tuple]]] = []
    """By batch: number of the row -> what (reference, policy) said of its tokens."""

    def data(self, run, template):
        return prepare(run, template, lazy=bool(run.config[TrainArguments].lazy_tokenize))

    def count(self, batch):
        return {"tokens": len(batch.targets)}

    def loss(self, forward, batch):
        mine, its = forward(batch).logp, forward.reference(batch).logp
        assert mine.requires_grad == mine.is_leaf or not its.requires_grad
        counts = batch.sequence.bincount(minlength=batch.sequences).tolist()
        pairs = zip(its.split(counts), mine.detach().split(counts), strict=True)
        self.said.append(dict(zip(batch.numbers.tolist(), pairs, strict=True)))
        return LossOut(
            {"tokens": ((mine - its).square() - mine).sum()}, {"gap": ((mine - its).detach().sum(), len(its))}
        )


class Asking(Compare):
    """Asks the reference for more than log-probabilities."""

    def loss(self, forward, batch):
        forward.reference(batch, lambda logits, targets: {"entropy": logits.softmax(-1).square().sum(-1)})
        return super().loss(forward, batch)


class Alone(Compare):
    """Needs no reference."""

    reference = False

    def loss(self, forward, batch):
        return LossOut({"tokens": -forward(batch).logp.sum()})


class Idle(Alone):
    """Has a reference loaded, and never asks it."""

    reference = True


def compare(run):
    Compare.said.clear()
    return fit(run, Compare())


def asking(run):
    return fit(run, Asking())


def alone(run):
    return fit(run, Alone())


def idle(run):
    return fit(run, Idle())


@hookimpl
def provide_trainers():
    for target in (compare, asking, alone, idle):
        yield Trainer(target.__name__, target, command="rlhf", contracts=())
