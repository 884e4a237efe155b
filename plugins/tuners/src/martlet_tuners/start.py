"""How adapters started: what a checkpoint needs to know besides the adapter itself, so that training can go on."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from martlet import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor, nn

RECORD = "adapter_start.json"


@dataclass
class Start:
    """What PEFT's own files do not say about an adapter in training."""

    init_weights: bool | str = True
    rank: int = 8
    alpha: float = 32
    seed: int = 42
    dtype: str | None = None
    matrices: dict[str, Tensor] = field(default_factory=dict, compare=False)
    """A and B before the first step, on the CPU, for starts that take something out of the weights."""

    @classmethod
    def of(cls, config: Any, seed: int, dtype: str | None) -> Start:
        """Return the start that a PEFT configuration describes."""
        return cls(config.init_lora_weights, config.r, config.lora_alpha, seed, dtype)

    @property
    def taken_out(self) -> bool:
        """The start took its own product out of the base weights."""
        return str(self.init_weights).startswith(("pissa", "olora"))

    @property
    def plain(self) -> bool:
        """PEFT's files say everything."""
        return not self.taken_out and self.dtype is None

    def restore(self, config: Any) -> None:
        """Give a configuration that was written as a difference its first rank, scale and start."""
        config.init_lora_weights, config.r, config.lora_alpha = self.init_weights, self.rank, self.alpha
        config.inference_mode = False

    def write(self, path: Path) -> None:
        facts = {key: value for key, value in asdict(self).items() if key != "matrices"}
        (path / RECORD).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Start | None:
        """Return what ``write`` wrote into a folder, or None."""
        file = path / RECORD
        if not file.is_file():
            return None
        try:
            found = cls(**json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise CheckpointError(f"{file}: not readable ({error}); delete it to train a plain adapter.") from error
        return found


def take_start(tuned: Any, start: Start) -> Any:
    """Cast a freshly made adapter and keep what its saving will need; return the model."""
    import torch

    if start.dtype is not None:
        cast_adapter(tuned, getattr(torch, start.dtype))
    if start.taken_out:
        start.matrices = {n: p.detach().to("cpu", copy=True) for n, p in _matrices(tuned).items()}
    tuned.adapter_start = start
    return tuned


def cast_adapter(tuned: Any, dtype: Any, name: str = "default") -> None:
    """Give the matrices of an adapter another number type."""
    for known, parameter in tuned.named_parameters():
        if ".lora_" in known and f".{name}" in known:
            parameter.data = parameter.data.to(dtype)


def _matrices(tuned: nn.Module) -> dict[str, Tensor]:
    """Return the A and B matrices under the names that PEFT writes them with."""
    found: dict[str, Tensor] = {}
    for name, parameter in tuned.named_parameters():
        if ".lora_A." in name or ".lora_B." in name:
            found[name.replace(".default.", ".")] = parameter
    return found
