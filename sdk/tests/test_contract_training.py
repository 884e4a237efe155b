"""Rewards, losses, tuners, callbacks and trainers with one fault each fail the check that is about it."""

from __future__ import annotations

import pytest

REWARDS = [
    ("return [1.0 / (1 + len(text)) for text in completions]", "return [1.0]", "one_score_each", "1 scores for 4"),
    ("return [1.0 / (1 + len(text)) for text in completions]", "return 1.0", "one_score_each", "returned float"),
    ("1.0 / (1 + len(text))", "str(len(text))", "scores_are_numbers", "is a str"),
    ("1.0 / (1 + len(text))", "float('nan')", "scores_are_numbers", "is nan"),
    (
        "(completions, **columns)",
        "(completions, messages, prompt, solution, answer)",
        "unknown_columns",
        "accept **columns",
    ),
    ("(completions, **columns)", "(completions, solution, **columns)", "names_its_columns", "argument: 'solution'"),
    ("    return [", "    completions.reverse()\n    return [", "changes_nothing", "changes the list of completions"),
    ("    return [", "    columns['answer'][0] = ''\n    return [", "changes_nothing", "changes the column answer"),
]


@pytest.mark.parametrize(("old", "new", "check", "said"), REWARDS, ids=[row[2] for row in REWARDS])
def test_reward(old, new, check, said, fails):
    fails("reward", old, new, f"rewards:my-name:{check}", said)


RETURN = "return -(0.9 * picked + 0.1 * log_probs.mean(-1)) * supervised"
LOSSES = [
    ('"my-name", my_name,', '"my-name", my_name, contract="pairwise",', "contract", "'pairwise' is not one of"),
    (RETURN, f"{RETURN[:-13]}.mean() * supervised.any()", "one_loss_a_token", "of shape (); return one float a token"),
    (RETURN, "return (picked < 0) * supervised", "one_loss_a_token", "torch.bool"),
    (RETURN, "return 0.0", "one_loss_a_token", "returned float, not a tensor"),
    ("logits.log_softmax(-1)", "logits.softmax(-1).log()", "finite", "not finite for logits in the hundreds"),
    (RETURN, f"{RETURN} / supervised.any()", "finite", "where every label is -100 it returns"),
    (
        "logits.log_softmax(-1)",
        "logits.detach().log_softmax(-1)",
        "gradient_reaches_logits",
        "no gradient flows through it",
    ),
    (
        RETURN,
        "return logits.sum(-1) * 0 * supervised",
        "gradient_reaches_logits",
        "gradient of every supervised token's",
    ),
    (" * supervised", "", "ignores_unsupervised", "tokens with the label -100 have the loss"),
    (RETURN, f"{RETURN} + (supervised * 1e-3 * logits.mean())", "ignores_unsupervised", "get a gradient"),
    (RETURN, f"{RETURN} / supervised.sum()", "splits_exactly", "other losses than its parts"),
    (
        "    log_probs =",
        "    labels[~supervised] = 0\n    log_probs =",
        "changes_nothing",
        "changes the labels in place",
    ),
    ("    log_probs =", "    logits.data.mul_(2)\n    log_probs =", "changes_nothing", "changes the logits in place"),
]


@pytest.mark.parametrize(("old", "new", "check", "said"), LOSSES, ids=[row[2] for row in LOSSES])
def test_loss(old, new, check, said, fails):
    fails("loss", old, new, f"losses:my-name:{check}", said)


PAIR_RETURN = "return -logsigmoid(beta * margin)"
PAIR_LOSSES = [
    ("beta, **more", "beta", "takes_unknown_arguments", "accept **more"),
    (PAIR_RETURN, f"{PAIR_RETURN}.mean()", "one_loss_a_pair", "of shape (); return one float a pair"),
    (PAIR_RETURN, "return margin > 0", "one_loss_a_pair", "torch.bool"),
    (PAIR_RETURN, "return {'pairs': 0.0}", "one_loss_a_pair", "returned float, not a tensor"),
    (PAIR_RETURN, "return {'tokens': margin}", "one_loss_a_pair", "a term averaged over 'tokens'"),
    (PAIR_RETURN, "return (-100 * margin).exp()", "finite", "not finite for"),
    (PAIR_RETURN, "return margin.abs().sqrt()", "finite", "its gradient is not, for certain answers"),
    ("= chosen -", "= chosen.detach() -", "gradient_reaches_answers", "chosen answers, and their gradient"),
    ("- rejected +", "- rejected.detach() +", "gradient_reaches_answers", "the rejected answers, and their gradient"),
    (PAIR_RETURN, "return -margin.detach()", "gradient_reaches_answers", "no gradient flows through it"),
    ("    margin =", "    ref_chosen -= 1\n    margin =", "changes_nothing", "changes ref_chosen in place"),
]


@pytest.mark.parametrize(("old", "new", "check", "said"), PAIR_LOSSES, ids=[row[2] for row in PAIR_LOSSES])
def test_pair_loss(old, new, check, said, fails):
    fails("pair_loss", old, new, f"losses:my-name:{check}", said)


TRAINABLE = "parameter.requires_grad_(trainable and key in weights)"
APPLIED = "        return model\n\n    def save"
UNUSED = """        from torch import nn
        model.requires_grad_(False)
        model.extra = nn.Parameter(model.lm_head.weight[0] * 1)
"""
COMPARED = """        return model

    def reference(self, model, adapter=None):
        from contextlib import nullcontext
        return nullcontext
"""
TUNERS = [
    ('"norm" in key or key.endswith("bias")', "False", "trains_something", "no parameter has requires_grad"),
    (APPLIED, "\n    def save", "trains_something", "apply() returned None"),
    (
        APPLIED,
        UNUSED + APPLIED,
        "trains_something",
        "gives no gradient to any of its 1 trained parameters (extra",
    ),
    (
        APPLIED,
        UNUSED + APPLIED,
        "changes_the_model",
        "leaves the logits as they were",
    ),
    (
        "from safetensors.torch import save_file\n",
        "from torch import save\n        save_file = lambda weights, place: save(weights, place.with_suffix('.bin'))\n",
        "saves_safely",
        "writes my_name.bin",
    ),
    ("        save_file(", "        (lambda *args: None)(", "saves_safely", "wrote no file"),
    ("        model.load_state_dict(weights, strict=False)\n", "", "load_restores", "the logits differ by"),
    (', name="default"', "", "load_restores", "unexpected keyword argument 'name'"),
    ("if parameter.requires_grad]", 'if "input" in key]', "load_restores", "the logits differ by"),
    ("state_dict or model.state_dict()", "model.state_dict()", "save_takes_a_state_dict", "did not write state_dict"),
    (TRAINABLE, "parameter.requires_grad_(trainable)", "load_to_go_on", "load(trainable=True) "),
    (TRAINABLE, "parameter.requires_grad_(False)", "load_to_go_on", "load(trainable=True) 0"),
    (
        '        """Nothing to fold in',
        '        model.model.norm.weight.data.mul_(2)\n        """Nothing to fold in',
        "merge_keeps_logits",
        "merging changes the logits",
    ),
    (
        '        """Nothing to fold in',
        '        model.register_buffer("left", model.lm_head.weight[0])\n        """Nothing to fold in',
        "merge_keeps_logits",
        "other weights than the base model: ['left']",
    ),
    (APPLIED, COMPARED + "\n    def save", "reference_is_the_base", "within reference() the logits differ from"),
]


@pytest.mark.parametrize(("old", "new", "check", "said"), TUNERS, ids=[row[2] for row in TUNERS])
def test_tuner(old, new, check, said, fails):
    fails("tuner", old, new, f"tuners:my-name:{check}", said)


def test_a_tuner_that_does_not_merge_is_not_asked_to(verdict):
    found = verdict("tuner", "mergeable=True, ", "")
    assert found["tuners:my-name:merge_keeps_logits"].outcome == "skipped"


CALLBACKS = [
    ("def on_log(", "def on_logged(", "knows_its_events", "Did you mean on_log"),
    ("def on_log(", "def log(", "knows_its_events", "listens to no event"),
    ("logs=None, **kwargs", "logs=None", "survives_a_run", "write on_log(self, args, state, control, **kwargs)"),
    ('(logs or {}).get("loss", self.lowest)', 'logs["loss"]', "survives_a_run", "KeyError: 'loss'"),
    ("            print(", "            return (", "survives_a_run", "on_log returned str"),
]


@pytest.mark.parametrize(("old", "new", "check", "said"), CALLBACKS, ids=[row[2] for row in CALLBACKS])
def test_callback(old, new, check, said, fails):
    fails("callback", old, new, f"callbacks:my-name:{check}", said)


def test_callback_that_raises_is_told_where(verdict):
    found = verdict("callback", '(logs or {}).get("loss", self.lowest)', 'logs["no such key"]')
    result = found["callbacks:my-name:survives_a_run"]
    assert result.outcome == "failed"
    assert "KeyError" in result.message and "callback_bench.py:" in result.message


TRAINERS = [
    ('Trainer("loop", loop)', 'Trainer("loop", loop, contracts=("words",))', "contracts", "contracts is ('words',)"),
    ("return TrainResult(run.folder,", "return (run.folder,", "trains_two_steps", "returned tuple, not TrainResult"),
    ("loss.item()", "loss.item() / 0.0 if False else float('nan')", "trains_two_steps", "not finite: {'loss': nan}"),
    (
        "TrainResult(run.folder, checkpoint",
        "TrainResult(run.folder, None",
        "trains_two_steps",
        "there is no checkpoint",
    ),
    ("TrainResult(run.folder,", "TrainResult(run.folder / 'x',", "trains_two_steps", "which does not exist"),
]


@pytest.mark.parametrize(("old", "new", "check", "said"), TRAINERS, ids=[row[2] for row in TRAINERS])
def test_trainer(old, new, check, said, fails):
    fails("trainer", old, new, f"trainers:loop:{check}", said)
