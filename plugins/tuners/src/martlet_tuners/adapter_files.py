"""Adapter folders: written as PEFT writes them, and read with suspicion."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from martlet import CheckpointError, UsageError

from .start import Start

if TYPE_CHECKING:
    from torch import Tensor

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def write(tuned: Any, path: Path, state_dict: dict[str, Tensor] | None) -> None:
    """Write the active adapter of a PEFT model."""
    active, beside = tuned.active_adapter, _embeddings_beside(tuned)
    config = tuned.peft_config[active]
    if config.modules_to_save:  # PEFT adds the head of a classifier anew whenever it is loaded
        config.modules_to_save = list(dict.fromkeys(config.modules_to_save))
    tuned.save_pretrained(path, state_dict=state_dict, selected_adapters=[active], save_embedding_layers=beside)
    if active != "default":
        for file in (path / active).iterdir():
            file.replace(path / file.name)
        (path / active).rmdir()
    if beside:
        _drop_repeated(path)
    start: Start | None = getattr(tuned, "adapter_start", None)
    if start is None or start.plain:
        return
    if start.taken_out:
        _write_difference(path, start)
    start.write(path)


def _embeddings_beside(tuned: Any) -> bool:
    """Tell whether embeddings go with the adapter: they were extended, or an adapter lies on them.

    PEFT would find out by asking a hub for the base model's vocabulary. Those trained whole are in the adapter anyway.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import ModulesToSaveWrapper

    base = tuned.get_base_model()
    layers = [layer for layer in (base.get_input_embeddings(), base.get_output_embeddings()) if layer is not None]
    if getattr(base, "embeddings_resized", False):
        return not all(isinstance(layer, ModulesToSaveWrapper) for layer in layers)
    return any(isinstance(layer, BaseTunerLayer) for layer in layers)


def _drop_repeated(path: Path) -> None:
    """Rewrite the weights without the copies that PEFT adds of an embedding that is trained whole."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(path / WEIGHTS)
    kept = {n: t for n, t in tensors.items() if ".modules_to_save." not in n and ".original_module." not in n}
    if len(kept) < len(tensors):
        save_file(kept, path / WEIGHTS, {"format": "pt"})


def _write_difference(path: Path, start: Start) -> None:
    """Rewrite B A as [B, -B0] [A; A0]: what was learnt, for base weights from which nothing was taken."""
    import torch
    from safetensors.torch import load_file, save_file

    tensors = load_file(path / WEIGHTS)
    for name, first in start.matrices.items():
        now = tensors[name]
        first = first.to(now.dtype)
        tensors[name] = torch.cat([now, first] if ".lora_A." in name else [now, -first], dim=int(".lora_B." in name))
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path / WEIGHTS, {"format": "pt"})
    config = json.loads((path / CONFIG).read_text(encoding="utf-8"))
    growth = math.sqrt(2) if config["use_rslora"] else 2
    config |= {"r": 2 * start.rank, "lora_alpha": growth * start.alpha, "init_lora_weights": True}
    (path / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")


def trained_half(path: Path, start: Start) -> dict[str, Tensor]:
    """Return the weights of a difference without its start."""
    from safetensors.torch import load_file

    tensors = load_file(path / WEIGHTS)
    for name, tensor in tensors.items():
        if ".lora_A." in name:
            tensors[name] = tensor[: start.rank].contiguous()
        elif ".lora_B." in name:
            tensors[name] = tensor[:, : start.rank].contiguous()
    return tensors


def read_config(path: Path) -> Any:
    """Return the ``peft.LoraConfig`` of a folder; ``UsageError`` where there is no LoRA adapter in it."""
    from peft import LoraConfig

    file = path / CONFIG
    if not file.is_file():
        hint = " It holds a whole model: name it with --model." if (path / "config.json").is_file() else ""
        raise UsageError(f"{path}: there is no adapter in it ({CONFIG}).{hint}")
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
        kind = facts.get("peft_type")
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{file}: not a readable JSON object ({error}); download or save it again.") from error
    if kind != "LORA":
        raise UsageError(f"{path}: this is an adapter of the kind {kind}, and --tuner_type lora loads LoRA.")
    if facts.get("megatron_config"):
        raise UsageError(f"{file}: megatron_config names modules to import, and a checkpoint may not choose code.")
    if not (path / WEIGHTS).is_file() and not (path / "adapter_model.bin").is_file():
        raise CheckpointError(f"{path}: {WEIGHTS} is missing; download or save the adapter again.")
    try:
        return LoraConfig.from_pretrained(str(path))
    except Exception as error:
        raise CheckpointError(f"{file}: PEFT cannot read it: {error}") from error


def holds_base_weights(path: Path) -> bool:
    """Tell whether loading an adapter would replace weights of the base model: embeddings that were extended, say."""
    from peft.utils.save_and_load import load_peft_weights

    names = load_peft_weights(str(path), device="cpu")
    trained_whole = read_config(path).modules_to_save or ()
    return any(".lora_" not in name and not any(f".{one}." in name for one in trained_whole) for name in names)


def check_complete(tuned: Any, path: Path, name: str) -> None:
    """Refuse an adapter whose weights and the model's places for them differ: PEFT only warns, or says nothing."""
    from peft import set_peft_model_state_dict
    from peft.utils.save_and_load import load_peft_weights

    tensors = load_peft_weights(str(path), device="cpu")
    report: Any = set_peft_model_state_dict(tuned, tensors, adapter_name=name)
    of_adapter = re.compile(rf"\.(lora_\w+|modules_to_save)\.{re.escape(name)}(\.|$)")
    mine = [key for key in report.missing_keys if of_adapter.search(key)]
    for what, keys in (("lacks", mine), ("has", list(report.unexpected_keys))):
        if keys:
            belongs = tuned.peft_config[name].base_model_name_or_path
            raise CheckpointError(
                f"{path}: the adapter {what} {keys[0]}, unlike this model; it was made for {belongs or 'another one'}."
            )
