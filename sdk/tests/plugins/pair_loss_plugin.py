"""A loss of pairs that keeps its contract."""

from torch.nn.functional import logsigmoid

from martlet import Loss, hookimpl


def my_name(chosen, rejected, ref_chosen, ref_rejected, beta, **more):
    margin = chosen - ref_chosen - rejected + ref_rejected
    return -logsigmoid(beta * margin)


@hookimpl
def provide_losses():
    yield Loss("my-name", my_name, contract="pair")
