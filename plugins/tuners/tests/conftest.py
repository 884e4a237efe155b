"""Runs with the tuner flags alone, and models to tune."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM

import martlet
from martlet import Run

transformers.utils.logging.disable_progress_bar()
IDS = torch.arange(3, 23).view(2, 10)


class Bench:
    """What the tests do with a model, again and again."""

    def run(self, **settings: Any) -> Run:
        return martlet.prepare(roles=("tuner",), **settings)

    def model(self, folder: Path) -> Any:
        return AutoModelForCausalLM.from_pretrained(folder)

    def meta(self, folder: Path) -> Any:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))

    def apply(self, tuner: str, model: Any, **settings: Any) -> Any:
        run = self.run(**settings)
        return run.get("tuners", tuner).apply(model, run)

    def move(self, model: Any) -> Any:
        """Change every trained weight a little, as training would."""
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
        return model.eval()

    def logits(self, model: Any) -> torch.Tensor:
        with torch.no_grad():
            return model.eval()(input_ids=IDS).logits

    def trained(self, model: Any) -> set[str]:
        return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.fixture(scope="session")
def bench() -> Bench:
    return Bench()
