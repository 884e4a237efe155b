"""Low-rank adapters through PEFT.

"LoRA: Low-Rank Adaptation of Large Language Models" (arXiv:2106.09685), with DoRA (arXiv:2402.09353), rsLoRA
(arXiv:2312.03732), LoRA+ (arXiv:2402.12354), PiSSA (arXiv:2404.02948) and OLoRA (arXiv:2406.01775).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from martlet import CheckpointError, UsageError

from . import adapter_files
from .args import LoraArguments
from .placing import lora_config, task_of
from .reference import beside, switched
from .refusal import refused
from .start import Start, take_start

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from martlet import Run


class LoraTuner:
    """Small matrices beside frozen weights, in PEFT's format (adapter_model.safetensors, adapter_config.json)."""

    read_on_load = frozenset({"lorap_lr_ratio"})
    """Flags that count for a loaded adapter as well; the others are what its folder says."""

    def apply(self, model: nn.Module, run: Run) -> nn.Module:
        """Add adapters where the flags say and freeze the rest; return PEFT's model around ``model``.

        The start depends on the seed of the run alone. Works on the meta device.
        """
        from peft import get_peft_model
        from torch import device

        config = lora_config(model, run)
        settings = run.config[LoraArguments]
        meta = any(parameter.is_meta for parameter in model.parameters())
        start = Start.of(config, run.seed, settings.lora_dtype)
        if meta:
            config.init_lora_weights, start = True, replace(start, init_weights=True)
        with _seeded(run.seed, model), refused(), _quiet(), device("meta") if meta else nullcontext():
            tuned: nn.Module = take_start(get_peft_model(model, config), start)
        return tuned

    def save(self, model: nn.Module, path: Path, state_dict: dict[str, Tensor] | None = None) -> None:
        """Write the adapter that is trained, as PEFT writes it.

        Adapters that started by taking something out of the weights (``pissa``, ``olora``) are written as their
        difference from that start, at twice the rank, so that every reader of LoRA gets the trained model from the
        unchanged base model.
        """
        adapter_files.write(_peft(model), path, state_dict)

    def load(self, model: nn.Module, path: Path, *, trainable: bool = False, name: str = "default") -> nn.Module:
        """Put a saved adapter onto a model; further ones onto what this returned, each under its own name.

        An adapter that is to be trained is always called ``default``, the name that PEFT saves in the folder itself.
        ``UsageError`` for what is no LoRA adapter, ``CheckpointError`` where it does not fit the model.
        """
        from peft import PeftModel

        config = adapter_files.read_config(path)
        known = "default" if trainable else name
        if "." in known:
            raise UsageError(f"--adapters {name}={path}: a name has no dot in it; choose another.")
        if config.task_type == "CAUSAL_LM" and task_of(model) == "SEQ_CLS":
            raise UsageError(
                f"{path}: this adapter belongs to a model that writes, and this one gives scores. Merge it first "
                f"(martlet merge-lora --adapters {path}) and name the result with --model."
            )
        start = Start.read(path) if trainable else None
        if start is not None and start.taken_out:
            return self._restart(model, path, config, start)
        with refused(f"{path}: "), _quiet():
            if isinstance(model, PeftModel):
                model.load_adapter(str(path), adapter_name=known, is_trainable=trainable)
                tuned: PeftModel = model
            else:
                tuned = PeftModel.from_pretrained(model, str(path), adapter_name=known, is_trainable=trainable)
            adapter_files.check_complete(tuned, path, known)
        if not trainable:
            tuned.requires_grad_(False)
        return tuned if start is None else take_start(tuned, start)

    def merge(self, model: nn.Module) -> nn.Module:
        """Add the active adapters to the weights; return the base model, without PEFT."""
        tuned = _peft(model)
        _untie(tuned)
        try:
            merged: nn.Module = tuned.merge_and_unload(safe_merge=True)
        except ValueError as error:
            raise CheckpointError(f"The adapter cannot be merged: {error}") from error
        return merged

    def reference(
        self, model: nn.Module, adapter: Path | None = None
    ) -> Callable[[], AbstractContextManager[None]] | None:
        """Return a context in which the model is what training is compared with; None where that takes another model.

        Without ``adapter`` it is the base model, else the base model with this adapter, which is loaded beside the
        trained one, frozen and never saved. Another model is needed where training changes weights of the base itself.
        """
        tuned = _peft(model)
        start: Start | None = getattr(tuned, "adapter_start", None)
        if tuned.active_peft_config.bias != "none" or (start is not None and start.taken_out):
            return None
        if adapter is None:
            return lambda: switched(tuned, None)
        if adapter_files.read_config(adapter).bias != "none" or adapter_files.holds_base_weights(adapter):
            return None
        name = beside(tuned, adapter, self.load)
        return lambda: switched(tuned, name)

    def parameter_groups(self, model: nn.Module, run: Run) -> list[dict[str, Any]] | None:
        """Return optimizer groups for LoRA+, or None without ``--lorap_lr_ratio``.

        ``lr_scale`` multiplies the learning rate; vectors get no weight decay.
        """
        ratio = run.config[LoraArguments].lorap_lr_ratio
        if ratio is None:
            return None
        groups: dict[str, dict[str, Any]] = {
            "other": {"params": []},
            "b": {"params": [], "lr_scale": ratio},
            "vector": {"params": [], "weight_decay": 0.0},
            "b vector": {"params": [], "lr_scale": ratio, "weight_decay": 0.0},
        }
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                kind = "b" if ".lora_B." in name or ".lora_embedding_B." in name else ""
                kind = f"{kind} vector".strip() if parameter.dim() < 2 else kind or "other"
                groups[kind]["params"].append(parameter)
        return [group for group in groups.values() if group["params"]]

    def _restart(self, model: nn.Module, path: Path, config: Any, start: Start) -> nn.Module:
        """Take the same out of the weights as at the start, then put the trained matrices in their place."""
        from peft import get_peft_model, set_peft_model_state_dict

        start.restore(config)
        with _seeded(start.seed, model), refused(f"{path}: "), _quiet():
            tuned: nn.Module = get_peft_model(model, config)
            take_start(tuned, start)
            set_peft_model_state_dict(tuned, adapter_files.trained_half(path, start))
        return tuned


def _peft(model: nn.Module) -> Any:
    """Return PEFT's model below wrappers for several devices or compilation."""
    from peft import PeftModel

    found: Any = model
    while not isinstance(found, PeftModel):
        found = getattr(found, "_orig_mod", None) or getattr(found, "module", None)
        if found is None:
            raise UsageError(f"a {type(model).__name__} has no adapter to save or merge; apply or load one first.")
    return found


def _untie(tuned: Any) -> None:
    """Give the output head a matrix of its own where an adapter lies on one of two tied embeddings.

    Merging into the shared matrix would change both.
    """
    import torch
    from peft.tuners.tuners_utils import BaseTunerLayer

    base: Any = tuned.get_base_model()
    source, head = base.get_input_embeddings(), base.get_output_embeddings()
    if head is None or not any(isinstance(layer, BaseTunerLayer) for layer in (source, head)):
        return
    inner: list[Any] = [
        layer.get_base_layer() if isinstance(layer, BaseTunerLayer) else layer for layer in (source, head)
    ]
    if inner[0].weight is inner[1].weight:
        inner[1].weight = torch.nn.Parameter(inner[1].weight.detach().clone(), requires_grad=False)
        base.config.tie_word_embeddings = False


@contextmanager
def _seeded(seed: int, model: nn.Module) -> Iterator[None]:
    """Draw random numbers from ``seed``, and leave the surroundings' random state as it was."""
    import torch

    devices: set[torch.device] = {p.device for p in model.parameters() if p.device.type not in ("cpu", "meta")}
    kind = next(iter(devices)).type if devices else "cuda"
    with torch.random.fork_rng(devices=[device.index or 0 for device in devices], device_type=kind):
        torch.manual_seed(seed)
        yield


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep PEFT's warnings back that we check for ourselves, or that concern other formats."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Found missing adapter keys")
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to")
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        warnings.filterwarnings("ignore", message=".*tie_word_embeddings.*")
        yield
