"""Cross entropy with a tenth of the weight spread over all words (label smoothing)."""

from torch import Tensor


def my_name(logits: Tensor, labels: Tensor) -> Tensor:
    """Return one loss a token, 0 where the label is -100; the trainer weights them and takes the mean.

    ``logits`` (N, V) float32, ``labels`` (N,). A token's loss must not depend on the other tokens.
    """
    supervised = labels != -100
    log_probs = logits.log_softmax(-1)
    picked = log_probs.gather(-1, labels.where(supervised, 0)[:, None])[:, 0]
    return -(0.9 * picked + 0.1 * log_probs.mean(-1)) * supervised
