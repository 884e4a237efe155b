"""``--rope_scaling`` and ``--max_model_len``: stretch a model's rotary positions to longer sequences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from martlet import UsageError

TYPES = ("linear", "dynamic", "yarn")
KEEPS_ORIGINAL = ("yarn", "llama3", "longrope")
"""Types whose settings record the length that the model was trained with."""


def apply(config: Any, scaling: Mapping[str, Any] | str | None, max_model_len: int | None) -> None:
    """Change a transformers configuration in place.

    A name needs ``max_model_len``: the factor is its ratio to ``max_position_embeddings`` of config.json, at least 1.
    A mapping replaces the scaling of config.json and keeps its base. "YaRN: Efficient Context Window Extension of
    Large Language Models" (arXiv:2309.00071) describes the three types.
    """
    text = config.get_text_config()
    trained: int | None = getattr(text, "max_position_embeddings", None)
    if scaling is not None:
        text.rope_parameters = _parameters(text, scaling, max_model_len, trained)
    if max_model_len is not None:
        if trained is None:
            raise UsageError(f"--max_model_len {max_model_len}: this model has no max_position_embeddings to replace.")
        text.max_position_embeddings = max_model_len
    if scaling is not None:
        text.validate_rope()


def _parameters(text: Any, scaling: Mapping[str, Any] | str, length: int | None, trained: int | None) -> dict[str, Any]:
    current = getattr(text, "rope_parameters", None)
    if not current:
        raise UsageError(f"--rope_scaling: a {text.model_type} model has no rotary positions to scale.")
    if "rope_theta" not in current:
        raise UsageError(
            f"--rope_scaling: a {text.model_type} model has rotary settings per kind of layer; "
            "set rope_parameters through --model_kwargs."
        )
    base = {key: current[key] for key in ("rope_theta", "partial_rotary_factor") if key in current}
    original = current.get("original_max_position_embeddings") or trained
    if isinstance(scaling, str):
        if current.get("rope_type") == scaling and length is not None and trained == length:
            return dict(current)  # a checkpoint that was saved stretched
        return base | _named(scaling, length, original)
    given = dict(scaling)
    kind = given.pop("type", None) or given.get("rope_type")
    if not isinstance(kind, str):
        raise UsageError('--rope_scaling: say which type, as in {"rope_type": "yarn", "factor": 4.0}.')
    if kind in KEEPS_ORIGINAL and original is not None:
        given.setdefault("original_max_position_embeddings", original)
    return base | given | {"rope_type": kind}


def _named(name: str, length: int | None, trained: int | None) -> dict[str, Any]:
    if name not in TYPES:
        raise UsageError(f"--rope_scaling {name}: not one of {', '.join(TYPES)}, nor a JSON object.")
    if length is None or trained is None:
        raise UsageError(f"--rope_scaling {name}: say with --max_model_len how long the sequences become.")
    found: dict[str, Any] = {"rope_type": name, "factor": max(1.0, length / trained)}
    if name in KEEPS_ORIGINAL:
        found["original_max_position_embeddings"] = trained
    return found
