"""Choose ``--model`` where an adapter says which model it was trained on, and ``--problem_type``."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

from .adapters import split_name
from .args import ModelArguments
from .source import expand

if TYPE_CHECKING:
    from martlet import Config


def choose(config: Config) -> Iterable[tuple[str, str, str]]:
    """Yield the base model of the first adapter when no model is given, and what the numbers of a head stand for."""
    settings = config[ModelArguments]
    if settings.task_type == "seq_cls" and settings.problem_type is None and settings.num_labels is not None:
        kind = "regression" if settings.num_labels == 1 else "single_label_classification"
        yield "problem_type", kind, f"num_labels is {settings.num_labels}"
    if settings.model is not None:
        return
    for entry in settings.adapters:
        file = expand(split_name(entry)[1]) / "adapter_config.json"
        try:
            base = json.loads(file.read_text(encoding="utf-8")).get("base_model_name_or_path")
        except (OSError, ValueError, AttributeError):
            continue
        if isinstance(base, str) and base:
            yield "model", base, f"{file} says so"
            return
