"""The engine on a tiny real model, loaded as every command loads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import martlet
from martlet_engine_transformers.engine import TransformersEngine


@pytest.fixture(scope="session")
def make_run(tiny_model: Path) -> Any:
    """Return ``make_run(**settings)``: a run of no particular command."""

    def made(**settings: Any) -> Any:
        return martlet.prepare(roles=("model", "template", "infer"), **{"model": str(tiny_model), **settings})

    return made


@pytest.fixture(scope="session")
def load(make_run: Any) -> Any:
    """Return ``load(**settings)``: an engine with the model in it."""

    def loaded(**settings: Any) -> TransformersEngine:
        return TransformersEngine().load(run=make_run(**settings))

    return loaded


@pytest.fixture(scope="session")
def adapters(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two LoRA adapters with weights large enough to change every answer."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folders = []
    for name in ("red", "blue"):
        torch.manual_seed(len(name))
        model = get_peft_model(
            AutoModelForCausalLM.from_pretrained(tiny_model),
            LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM"),
        )
        folders.append(tmp_path_factory.mktemp("adapters") / name)
        model.save_pretrained(folders[-1])
    return folders
