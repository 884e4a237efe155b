"""What martlet-preference adds: trainers of ``martlet rlhf``, the losses of pairs, and their flags."""

from __future__ import annotations

from collections.abc import Iterable

from martlet import Arguments, Loss, Trainer, hookimpl

PAIR_LOSSES = {
    "sigmoid": "DPO, arXiv 2305.18290; conservative DPO with --label_smoothing",
    "hinge": "SLiC-HF, arXiv 2305.10425",
    "ipo": "identity preference optimisation, arXiv 2310.12036, averaged over tokens",
    "exo_pair": "exact optimisation, arXiv 2402.00856; needs --label_smoothing",
    "nca_pair": "noise contrastive alignment, arXiv 2402.05369",
    "robust": "robust DPO, arXiv 2403.00409; --label_smoothing is the share of flipped pairs",
    "bco_pair": "binary classifier optimisation, arXiv 2404.04656, without the reward shift",
    "sppo_hard": "self-play preference optimisation, arXiv 2405.00675, with hard labels",
    "aot": "alignment by optimal transport, arXiv 2406.05882; sorts the pairs of a batch, so give it large ones",
    "aot_unpaired": "alignment by optimal transport of unpaired answers, arXiv 2406.05882; as aot",
    "apo_zero": "anchored preference optimisation, arXiv 2408.06266: chosen answers better than the model's",
    "apo_down": "anchored preference optimisation, arXiv 2408.06266: chosen answers worse than the model's",
    "discopop": "discovered preference optimisation, arXiv 2406.08414",
    "sft": "negative log-likelihood of the chosen answers, for use beside others",
    "sigmoid_norm": "DPO on averages over tokens",
}


@hookimpl
def provide_arguments() -> Iterable[Arguments]:
    yield Arguments(
        "pairs",
        "martlet_preference.args:PairArguments",
        summary="losses of pairs",
        roles=("rlhf",),
        only_for=(("trainers", "dpo"), ("trainers", "cpo"), ("trainers", "simpo")),
    )
    yield Arguments(
        "dpo",
        "martlet_preference.args:DpoArguments",
        summary="direct preference optimisation",
        roles=("rlhf",),
        only_for=(("trainers", "dpo"),),
    )
    yield Arguments(
        "cpo",
        "martlet_preference.args:CpoArguments",
        summary="CPO and SimPO",
        roles=("rlhf",),
        only_for=(("trainers", "cpo"), ("trainers", "simpo")),
    )
    yield Arguments(
        "kto",
        "martlet_preference.args:KtoArguments",
        summary="Kahneman-Tversky optimisation",
        roles=("rlhf",),
        only_for=(("trainers", "kto"),),
    )
    yield Arguments(
        "reward",
        "martlet_preference.args:RewardArguments",
        summary="reward models",
        roles=("rlhf",),
        only_for=(("trainers", "rm"),),
    )


@hookimpl
def provide_trainers() -> Iterable[Trainer]:
    yield Trainer(
        "dpo",
        "martlet_preference.dpo:dpo",
        summary="direct preference optimisation: better than the reference model on chosen, worse on rejected",
        command="rlhf",
        contracts=("pair",),
        defaults={"beta": 0.1, "loss_type": ["sigmoid"]},
    )
    yield Trainer(
        "orpo",
        "martlet_preference.orpo:orpo",
        summary="odds ratio preference optimisation: fine-tuning and alignment in one, without a reference model",
        command="rlhf",
        contracts=(),
        defaults={"beta": 0.1},
    )
    yield Trainer(
        "cpo",
        "martlet_preference.cpo:cpo",
        summary="contrastive preference optimisation: DPO without a reference model, beside fine-tuning",
        command="rlhf",
        contracts=("pair",),
        defaults={"beta": 0.1, "loss_type": ["sigmoid"]},
    )
    yield Trainer(
        "simpo",
        "martlet_preference.cpo:simpo",
        summary="simple preference optimisation: average log-probabilities and a margin, without a reference model",
        command="rlhf",
        contracts=(),
        defaults={"beta": 2.0},
    )
    yield Trainer(
        "kto",
        "martlet_preference.kto:kto",
        summary="Kahneman-Tversky optimisation: answers that are each labelled good or bad, against a reference model",
        command="rlhf",
        contracts=(),
        defaults={"beta": 0.1},
    )
    yield Trainer(
        "rm",
        "martlet_preference.rm:rm",
        summary="reward model: a model with a score head that gives the chosen answer of a pair the higher score",
        command="rlhf",
        contracts=(),
        defaults={"task_type": "seq_cls", "num_labels": 1},
    )


@hookimpl
def provide_losses() -> Iterable[Loss]:
    for name, summary in PAIR_LOSSES.items():
        yield Loss(name, f"martlet_preference.losses:{name}", summary=summary, contract="pair")
