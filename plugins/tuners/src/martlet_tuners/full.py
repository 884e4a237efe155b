"""Train all weights of a model, or a chosen part of them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from martlet import CheckpointError, UsageError

from .args import FullArguments, TunerArguments
from .ignored import warn_about_unused
from .naming import check_starts, pattern
from .refusal import first_line

if TYPE_CHECKING:
    from torch import Tensor, nn

    from martlet import Run

RECORD = "frozen_parameters.json"
"""Names of what was frozen, beside the weights, so that training goes on with the same."""


class FullTuner:
    """Every weight is trained but what the flags freeze; saved as ``save_pretrained`` saves it."""

    def apply(self, model: nn.Module, run: Run) -> nn.Module:
        """Choose what is trained: all, less what ``freeze_*`` names, and in any case what ``trainable_*`` names.

        Works on the meta device. ``UsageError`` for a name that fits nothing, and where nothing is left to train.
        """
        warn_about_unused(run, TunerArguments)
        settings = run.config[FullArguments]
        names = _names(model)
        frozen = _frozen(model, names, settings)
        for parameter, _ in names:
            parameter.requires_grad_(parameter.is_floating_point() and id(parameter) not in frozen)
        if not any(parameter.requires_grad for parameter, _ in names):
            raise UsageError(
                "freeze_* leaves nothing to train; freeze less, or name with --trainable_parameters what is trained."
            )
        return model

    def save(self, model: nn.Module, path: Path, state_dict: dict[str, Tensor] | None = None) -> None:
        """Write config.json and the weights as safetensors, for transformers to load."""
        saved: Any = model
        saved.save_pretrained(path, state_dict=state_dict)
        frozen = sorted(n for n, p in model.named_parameters() if not p.requires_grad and p.is_floating_point())
        if frozen:
            (path / RECORD).write_text(json.dumps(frozen, indent=0) + "\n", encoding="utf-8")

    def load(self, model: nn.Module, path: Path, *, trainable: bool = False, name: str = "default") -> nn.Module:
        """Replace the weights of a model by those that ``save`` wrote; ``name`` is not used.

        ``trainable`` trains what was trained when they were saved. ``CheckpointError`` where they do not fit.
        """
        if not (path / "config.json").is_file():
            kind = "an adapter" if (path / "adapter_config.json").is_file() else "no model"
            raise UsageError(f"{path}: there is {kind} in it, and --tuner_type full loads whole models.")
        _copy_weights(model, path)
        frozen = _recorded(path) if trainable else frozenset()
        for known, parameter in model.named_parameters():
            parameter.requires_grad_(trainable and parameter.is_floating_point() and known not in frozen)
        return model


def _names(model: nn.Module) -> list[tuple[nn.Parameter, list[str]]]:
    """Return every parameter with all its names, in the order of the model: tied weights have several."""
    found: dict[int, tuple[nn.Parameter, list[str]]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        found.setdefault(id(parameter), (parameter, []))[1].append(name)
    return list(found.values())


def _frozen(model: nn.Module, names: list[tuple[nn.Parameter, list[str]]], settings: FullArguments) -> set[int]:
    every = [name for _, many in names for name in many]
    frozen = _first_share(names, settings.freeze_parameters_ratio)
    frozen |= _chosen(names, every, "freeze_parameters", settings.freeze_parameters)
    frozen |= _found(names, "freeze_parameters_regex", settings.freeze_parameters_regex)
    frozen -= _chosen(names, every, "trainable_parameters", settings.trainable_parameters)
    return frozen - _found(names, "trainable_parameters_regex", settings.trainable_parameters_regex)


def _first_share(names: list[tuple[nn.Parameter, list[str]]], ratio: float) -> set[int]:
    """Return the first parameters, as many as have together at most ``ratio`` of all numbers."""
    sizes = [int(getattr(parameter, "ds_numel", parameter.numel())) for parameter, _ in names]  # ds: divided by ZeRO-3
    limit = ratio * sum(sizes)
    found: set[int] = set()
    seen = 0
    for (parameter, _), size in zip(names, sizes, strict=True):
        seen += size
        if seen > limit:
            break
        found.add(id(parameter))
    return found


def _chosen(
    names: list[tuple[nn.Parameter, list[str]]], every: Iterable[str], flag: str, starts: list[str]
) -> set[int]:
    check_starts(flag, starts, every)
    return {id(p) for p, many in names if any(name.startswith(tuple(starts)) for name in many)} if starts else set()


def _found(names: list[tuple[nn.Parameter, list[str]]], flag: str, text: str | None) -> set[int]:
    if text is None:
        return set()
    wanted = pattern(flag, text)
    found = {id(parameter) for parameter, many in names if any(wanted.search(name) for name in many)}
    if not found:
        raise UsageError(f"--{flag} {text}: it is found in no parameter's name; one is {names[-1][1][0]}.")
    return found


def _copy_weights(model: nn.Module, path: Path) -> None:
    """Read a saved model through transformers, which knows how names changed over the years, and copy it."""
    kind: Any = type(model)
    config: Any = model.config
    try:
        source, report = kind.from_pretrained(
            path, config=config, local_files_only=True, weights_only=True, output_loading_info=True
        )
    except Exception as error:
        raise CheckpointError(f"{path}: its weights cannot be loaded into this model: {first_line(error)}") from error
    for what, keys in (("lacks", report["missing_keys"]), ("has", report["unexpected_keys"])):
        if keys:
            raise CheckpointError(f"{path}: it {what} {sorted(keys)[0]}, unlike this model; it was saved from another.")
    model.load_state_dict(source.state_dict())
    for mine, theirs in zip(model.parameters(), source.parameters(), strict=True):
        if hasattr(mine, "ds_tensor"):  # ZeRO-3: the weights are slices, and every process copies its own
            mine.ds_tensor.data.copy_(theirs.ds_tensor.data)


def _recorded(path: Path) -> frozenset[str]:
    file = path / RECORD
    if not file.is_file():
        return frozenset()
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return frozenset(str(name) for name in found)
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{file}: not a list of names ({error}); delete it to train all weights.") from error
