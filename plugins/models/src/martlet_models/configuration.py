"""Read a model's configuration and apply the flags that change it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from martlet import MartletError, UsageError
from martlet.errors import suggest

from . import attention, rope, tasks
from .args import LoadingArguments, ModelArguments
from .check import read_config

RESERVED = {
    "attn_implementation": "--attn_impl",
    "experts_implementation": "--experts_impl",
    "dtype": "--torch_dtype",
    "torch_dtype": "--torch_dtype",
    "max_position_embeddings": "--max_model_len",
    "vocab_size": "--new_special_tokens",
    "quantization_config": "",
    "auto_map": "",
    "model_type": "",
    "architectures": "",
    "transformers_weights": "",
}
"""Keys of config.json that ``--model_kwargs`` leaves alone, and the flag that is meant instead."""


def build(folder: Path, settings: ModelArguments, loading: LoadingArguments) -> Any:
    """Return the transformers configuration of a folder, with the flags applied to it.

    Nothing of the folder is executed unless ``--trust_remote_code`` is given.
    """
    raw = read_config(folder)
    _check_known(folder, raw, trusted=settings.trust_remote_code)
    tasks.check(folder, raw, settings)
    attn = attention.choose(loading.attn_impl, raw, folder)
    if loading.experts_impl is None:
        attention.check_experts(raw, folder)
    config = _read(folder, trusted=settings.trust_remote_code)
    config._attn_implementation = attn
    config._experts_implementation = loading.experts_impl or _named_experts(raw)
    _override(config, loading.model_kwargs or {})
    rope.apply(config, loading.rope_scaling, settings.max_model_len)
    tasks.apply(config, settings)
    found = tasks.check_class(folder, config, raw, settings)
    if loading.experts_impl and found is not None and not found._can_set_experts_implementation():
        raise UsageError(f"--experts_impl {loading.experts_impl}: a {config.model_type} model has no experts.")
    return config


def _read(folder: Path, *, trusted: bool) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=trusted, local_files_only=True)
    except Exception as error:
        what = re.sub(r"^\w*Error: ", "", first_line(error)).rstrip(".")
        raise MartletError(
            f"{folder / 'config.json'}: transformers cannot read it: {what}. Mend it, or download it again."
        ) from error


def _named_experts(raw: Mapping[str, Any]) -> str | None:
    named = raw.get("experts_implementation") or raw.get("_experts_implementation")
    return named if isinstance(named, str) else None


def _check_known(folder: Path, raw: Mapping[str, Any], *, trusted: bool) -> None:
    """Refuse a model type that transformers does not have; say so where the folder brings its own code."""
    import transformers
    from transformers import CONFIG_MAPPING

    kind = raw.get("model_type")
    if kind in CONFIG_MAPPING or (trusted and raw.get("auto_map")):
        return
    if raw.get("auto_map"):
        raise UsageError(
            f"--model {folder}: this model runs Python code of its own (auto_map in config.json); "
            "read the .py files in the folder and, if you trust them, add --trust_remote_code true."
        )
    raise MartletError(
        f"{folder / 'config.json'}: model_type {kind!r} is not known to transformers {transformers.__version__}. "
        f"{suggest(str(kind), CONFIG_MAPPING) if kind else 'The file names none.'}".split(" Known:")[0]
    )


def _override(config: Any, settings: Mapping[str, Any]) -> None:
    text = config.get_text_config()
    for key, value in settings.items():
        if key in RESERVED or key.startswith("_"):
            instead = RESERVED.get(key, "")
            raise UsageError(f"--model_kwargs: {key} cannot be set here{f'; use {instead}' if instead else ''}.")
        place = next((place for place in (config, text) if hasattr(place, key)), None)
        if place is None:
            known = [name for name in text.to_dict() if name not in RESERVED and not name.startswith("_")]
            raise UsageError(f"--model_kwargs: {config.model_type} has no setting {key!r}. {suggest(key, known)}")
        try:
            setattr(place, key, value)
        except Exception as error:
            raise UsageError(f"--model_kwargs: {key} cannot be {value!r}: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says that is more than a heading, or its type."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if not line.endswith(":")), lines[0] if lines else type(error).__name__)
