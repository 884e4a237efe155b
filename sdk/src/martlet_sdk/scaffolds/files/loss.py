# mypy: disable-error-code="no-untyped-def"
"""A loss: cross entropy with a tenth of the weight spread over all words (label smoothing)."""

from martlet import Loss, hookimpl


def my_name(logits, labels):
    """Return one loss a token, 0 where the label is -100; the trainer weights them and takes the mean."""
    supervised = labels != -100
    log_probs = logits.log_softmax(-1)
    picked = log_probs.gather(-1, labels.where(supervised, 0)[:, None])[:, 0]
    return -(0.9 * picked + 0.1 * log_probs.mean(-1)) * supervised


@hookimpl
def provide_losses():
    yield Loss("my-name", my_name, summary="Cross entropy with label smoothing.")
