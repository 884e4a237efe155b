"""``--init_strategy``: fill the weights that a checkpoint lacks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

MATRIX_ONLY = ("xavier_uniform", "xavier_normal", "kaiming_uniform", "kaiming_normal", "orthogonal")


def fill(model: Any, names: Iterable[str], strategy: str) -> None:
    """Initialise the named parameters in place.

    ``uniform`` draws from [-0.02, 0.02], ``normal`` with a standard deviation of 0.02. The strategies for matrices
    leave vectors (biases, norms) as the model's own initialisation made them.
    """
    import torch
    from torch.nn import init

    fillers: dict[str, Callable[[Any], Any]] = {
        "zero": init.zeros_,
        "uniform": lambda weight: init.uniform_(weight, -0.02, 0.02),
        "normal": lambda weight: init.normal_(weight, std=0.02),
        "xavier_uniform": init.xavier_uniform_,
        "xavier_normal": init.xavier_normal_,
        "kaiming_uniform": init.kaiming_uniform_,
        "kaiming_normal": init.kaiming_normal_,
        "orthogonal": init.orthogonal_,
    }
    wanted = set(names)
    with torch.no_grad():
        for name, weight in model.named_parameters(remove_duplicate=False):
            if name in wanted and not (strategy in MATRIX_ONLY and weight.dim() < 2):
                fillers[strategy](weight)
