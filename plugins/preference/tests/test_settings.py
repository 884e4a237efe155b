"""What is refused or warned of before a row is read."""

from __future__ import annotations

import pytest

from martlet import MartletError, UsageError

PLUGIN = """
from martlet import Loss, hookimpl


@hookimpl
def provide_losses():
    yield Loss("odd", lambda chosen, **more: {body}, contract="pair")
"""


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0]}, "1 numbers? for the 2 losses sigmoid, sft"),
        ({"loss_type": ["sigmoid"], "loss_weights": [1.0, 2.0]}, "--loss_type names one, sigmoid"),
        ({"loss_weights": [0.5]}, "--loss_type names one, sigmoid"),
        ({"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, -2.0]}, "0 or more"),
        ({"loss_type": ["sigmoid", "sft"], "loss_weights": [0.0, 0.0]}, "at least one"),
        ({"loss_type": ["exo_pair"]}, "--label_smoothing greater than 0"),
        ({"beta": 0.0}, "--beta 0.0: dpo needs a number above 0"),
        ({"f_divergence_type": "forward_kl", "loss_type": ["sigmoid", "bco_pair"]}, "does not go with .* bco_pair:"),
        ({"f_divergence_type": "js_divergence", "loss_type": ["sft"]}, "does not go with --loss_type sft"),
        ({"label_smoothing": 0.5}, "label_smoothing"),
        ({"ld_alpha": 1.5}, "ld_alpha"),
        ({"discopop_tau": 0.0}, "discopop_tau"),
        ({"f_divergence_type": "chi"}, "f_divergence_type"),
        ({"metric_for_best_model": "rewards/accuracy"}, "Did you mean rewards/accuracies"),
        ({"metric_for_best_model": "nll_loss"}, "brings no such metric"),
        ({"metric_for_best_model": "loss_sigmoid"}, "brings no such metric"),
    ],
)
def test_dpo_refuses(algorithm, flags, words):
    with pytest.raises(UsageError, match=words):
        algorithm(**flags)


def test_a_divergence_goes_with_losses_of_a_difference(algorithm):
    made = algorithm(f_divergence_type="forward_kl", loss_type=["sigmoid", "sft"])
    assert [term.name for term in made.terms] == ["sigmoid", "sft"]


def test_a_run_without_data_is_refused(resolve):
    with pytest.raises(UsageError, match="rlhf needs data"):
        resolve("orpo", dataset=[]).execute()


def test_an_algorithm_that_no_plugin_provides_is_told_with_those_of_the_command(resolve):
    with pytest.raises(UsageError, match=r"--rlhf_type dpp: .* for rlhf. Did you mean dpo\?$"):
        resolve("dpp").execute()
    with pytest.raises(UsageError, match="Its algorithms: cpo, dpo, kto, orpo, rm, simpo"):
        resolve("reinforce").execute()
    with pytest.raises(UsageError, match=r"--rlhf_type sft: .* use cpo, dpo, kto, orpo, rm, simpo"):
        resolve("sft").execute()


@pytest.mark.parametrize(("kind", "listed"), [("kto", False), ("rm", False), ("orpo", False), ("cpo", True)])
def test_a_loss_is_listed_where_one_is_read(resolve, kind, listed):
    run = resolve(kind)
    run.emit("on_config", config=run.config)
    assert ("losses" in run.config.selections) == listed


@pytest.mark.parametrize("kind", ["orpo", "simpo"])
def test_an_algorithm_with_its_own_loss_takes_no_other(resolve, kind):
    with pytest.raises(UsageError, match=f"{kind} has a loss of its own"):
        resolve(kind, loss_type=["sigmoid"]).execute()


def test_a_token_loss_is_refused_with_the_losses_of_pairs(resolve):
    with pytest.raises(UsageError, match=r"dft is a token loss; dpo takes pair losses: .*apo_down.*sppo_hard"):
        resolve(loss_type=["dft"]).execute()


@pytest.mark.parametrize(
    ("kind", "flags", "flag"),
    [
        ("dpo", {"discopop_tau": 0.1}, "--discopop_tau"),
        ("dpo", {"loss_type": ["hinge"], "label_smoothing": 0.1}, "--label_smoothing"),
        ("cpo", {"simpo_gamma": 0.5}, "--simpo_gamma"),
        ("simpo", {"discopop_tau": 0.5}, "--discopop_tau"),
        ("simpo", {"loss_weights": [0.5]}, "--loss_weights"),
        ("orpo", {"loss_weights": [0.5]}, "--loss_weights"),
        ("dpo", {"f_alpha_divergence_coef": 0.7}, "--f_alpha_divergence_coef"),
        ("orpo", {"rpo_alpha": 0.7}, "--rpo_alpha"),
        ("orpo", {"label_smoothing": 0.1}, "--label_smoothing"),
        ("dpo", {"cpo_alpha": 0.7}, "--cpo_alpha"),
        ("dpo", {"label_smoothing_factor": 0.1}, "--label_smoothing_factor"),
        ("dpo", {"enable_channel_loss": True}, "--enable_channel_loss"),
    ],
)
def test_a_flag_that_nothing_reads_is_told_once(algorithm, capsys, kind, flags, flag):
    algorithm(kind, **flags)
    assert capsys.readouterr().err.count(f"{flag} has no effect") == 1


def test_a_loss_that_sorts_a_batch_of_one_is_told(algorithm, capsys):
    algorithm(loss_type=["aot_unpaired"], per_device_train_batch_size=2)
    algorithm(loss_type=["aot"], packing=True)
    assert "sorts the pairs" not in capsys.readouterr().err
    algorithm(loss_type=["sigmoid", "aot_unpaired"])
    assert "--loss_type aot_unpaired sorts the pairs of a batch" in capsys.readouterr().err


def test_flags_that_are_read_are_not_told(algorithm, capsys):
    algorithm("dpo", loss_type=["discopop"], discopop_tau=0.1, rpo_alpha=1.0)
    algorithm("cpo", label_smoothing=0.1, cpo_alpha=0.5)
    algorithm("simpo", label_smoothing=0.1, cpo_alpha=0.5, simpo_gamma=0.3)
    assert "no effect" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("chosen.mean()", r"--loss_type odd returned a tensor of shape \(\) for 2 pairs; a loss of pairs returns one"),
        ("3.0", "--loss_type odd returned float for 2 pairs"),
        ("{'tokens': chosen}", "averaged over 'tokens'; a loss of pairs averages over pairs or chosen_tokens"),
        ("chosen.nothing", "--loss_type odd failed: AttributeError: .*odd.py:"),
        ("{}", "--loss_type odd returned no term; a loss of pairs returns one number a pair"),
        ("more['ref_chosen'] * 1.0", "--loss_type odd has no gradient: it depends on nothing that the model computes"),
        ("{'pairs': chosen.detach(), 'chosen_tokens': more['chosen_tokens']}", "--loss_type odd has no gradient"),
    ],
)
def test_what_a_strangers_loss_does_wrong_is_told_before_anything_is_loaded(algorithm, tmp_path, body, words):
    file = tmp_path / "odd.py"
    file.write_text(PLUGIN.replace("{body}", body))
    with pytest.raises(MartletError, match=words):
        algorithm(loss_type=["odd"], external_plugins=[str(file)])


ONE_TERM = "{'pairs': chosen.detach(), 'chosen_tokens': -chosen}"


@pytest.mark.parametrize("body", ["{'chosen_tokens': more['nll']}", ONE_TERM])
def test_one_term_with_a_gradient_is_enough(algorithm, tmp_path, body):
    file = tmp_path / "odd.py"
    file.write_text(PLUGIN.replace("{body}", body))
    assert [term.name for term in algorithm(loss_type=["odd"], external_plugins=[str(file)]).terms] == ["odd"]


@pytest.mark.parametrize(
    ("kind", "flag", "value"),
    [
        ("dpo", "f_alpha_divergence_coef", float("nan")),
        ("dpo", "beta", float("inf")),
        ("dpo", "rpo_alpha", float("inf")),
        ("cpo", "cpo_alpha", float("inf")),
        ("kto", "desirable_weight", float("inf")),
        ("rm", "center_rewards_coefficient", float("inf")),
        ("simpo", "simpo_gamma", float("nan")),
        ("dpo", "loss_weights", [1.0, float("inf")]),
    ],
)
def test_a_number_without_end_is_refused(resolve, kind, flag, value):
    with pytest.raises(UsageError, match=f"--{flag} (inf|nan) is no finite number; give one"):
        resolve(kind, **{flag: value}).execute()


def test_a_loss_that_no_plugin_provides_is_told_with_all_that_there_are(resolve):
    words = r"--loss_type sigmod: .* Did you mean sigmoid or sigmoid_norm\? The pair losses: aot, .*, sppo_hard\.$"
    with pytest.raises(UsageError, match=words):
        resolve(loss_type=["sigmod"]).execute()
