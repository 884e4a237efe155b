"""Give a model that was built without its weights the number types that loading would give it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .check import weight_files


def stored_dtype(folder: Path) -> Any:
    """Return the type that transformers loads with where neither a flag nor config.json names one: the first stored."""
    from transformers.modeling_utils import get_state_dict_dtype, load_state_dict

    first = str(weight_files(folder)[0])
    return get_state_dict_dtype(load_state_dict(first, map_location="meta", weights_only=True))


def keep_wide(model: Any, dtype: Any) -> None:
    """Make float32 of the weights that stay so in a 16-bit model: what routes to experts, say."""
    from transformers.core_model_loading import build_glob_alternation

    wide = model._get_dtype_plan(dtype)
    if not wide:
        return
    names = build_glob_alternation(list(wide))[0]
    for name, tensor in model.state_dict(keep_vars=True).items():
        if names.search(name):
            tensor.data = tensor.data.float()
