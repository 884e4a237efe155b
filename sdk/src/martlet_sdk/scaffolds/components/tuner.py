"""Train nothing but the normalisation layers and biases."""

from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from martlet import Run

FILE = "my_name.safetensors"


class MyNameTuner:
    """Decide what is trained, and how it is saved, loaded and merged."""

    def apply(self, model: nn.Module, run: Run) -> nn.Module:
        """Return the model to train; its parameters with ``requires_grad`` are trained."""
        for key, parameter in model.named_parameters():
            parameter.requires_grad_("norm" in key or key.endswith("bias"))
        return model

    def save(self, model: nn.Module, path: Path, state_dict: dict[str, Tensor] | None = None) -> None:
        """Write what was trained. Given ``state_dict``, the weights are those: the model's may lie on other devices."""
        weights = state_dict or model.state_dict()
        trained = [key for key, parameter in model.named_parameters() if parameter.requires_grad]
        save_file({key: weights[key].contiguous() for key in trained}, path / FILE)

    def load(self, model: nn.Module, path: Path, *, trainable: bool = False, name: str = "default") -> nn.Module:
        """Put what was saved onto a base model."""
        weights = load_file(path / FILE)
        model.load_state_dict(weights, strict=False)
        for key, parameter in model.named_parameters():
            parameter.requires_grad_(trainable and key in weights)
        return model

    def merge(self, model: nn.Module) -> nn.Module:
        """Return the base model with the trained weights folded in: here they are its own."""
        return model
