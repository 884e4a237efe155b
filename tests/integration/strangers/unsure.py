"""Cross entropy of the tokens that the model does not know yet."""

import torch.nn.functional as F

from martlet import Loss, hookimpl


def unsure(logits, labels):
    loss = F.cross_entropy(logits, labels, ignore_index=-100, reduction="none")
    return loss * (loss.detach() > 0.01)


@hookimpl
def provide_losses():
    yield Loss("unsure", unsure)
