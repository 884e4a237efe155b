"""Train the norms alone, saved and loaded as a whole model is."""

from martlet import Tuner, hookimpl
from martlet_tuners.full import FullTuner


class Norms(FullTuner):
    def apply(self, model, run):
        for name, weight in model.named_parameters():
            weight.requires_grad_("norm" in name)
        return model


@hookimpl
def provide_tuners():
    yield Tuner("norms", Norms)
