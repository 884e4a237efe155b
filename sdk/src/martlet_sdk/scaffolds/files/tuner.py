# mypy: disable-error-code="no-untyped-def"
"""A tuner: train nothing but the normalisation layers and biases."""

from martlet import Tuner, hookimpl


class MyNameTuner:
    def apply(self, model, run):
        """Decide what is trained."""
        for key, parameter in model.named_parameters():
            parameter.requires_grad_("norm" in key or key.endswith("bias"))
        return model

    def save(self, model, path, state_dict=None):
        """Write what was trained. Given ``state_dict``, the weights are those: the model's may lie on other devices."""
        from safetensors.torch import save_file

        weights = state_dict or model.state_dict()
        trained = [key for key, parameter in model.named_parameters() if parameter.requires_grad]
        save_file({key: weights[key].contiguous() for key in trained}, path / "my_name.safetensors")

    def load(self, model, path, *, trainable=False, name="default"):
        """Put what was saved onto a base model."""
        from safetensors.torch import load_file

        weights = load_file(path / "my_name.safetensors")
        model.load_state_dict(weights, strict=False)
        for key, parameter in model.named_parameters():
            parameter.requires_grad_(trainable and key in weights)
        return model

    def merge(self, model):
        """Nothing to fold in: the trained weights are the model's own."""
        return model


@hookimpl
def provide_tuners():
    yield Tuner("my-name", MyNameTuner, mergeable=True, summary="Normalisation layers and biases only.")
