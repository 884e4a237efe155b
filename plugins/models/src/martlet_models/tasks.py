"""``--task_type``: language models, and models whose head puts numbers to a whole conversation. Light until used."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from martlet import CheckpointError, MartletError, UsageError

if TYPE_CHECKING:
    from martlet import Config, Run

    from .args import ModelArguments

AUTO_CLASSES = {"causal_lm": "AutoModelForCausalLM", "seq_cls": "AutoModelForSequenceClassification"}
"""``--task_type`` to the class of transformers that builds its models."""
MAPPINGS = {"causal_lm": "MODEL_FOR_CAUSAL_LM_MAPPING", "seq_cls": "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING"}
SAID = {"causal_lm": "a causal language model", "seq_cls": "a model that transformers can give a classification head"}
HEAD = "score"
"""Name of the head of decoder models in transformers: a linear layer over the state of the last token."""


def auto_class(task: str) -> Any:
    """Return the class of transformers that builds models for a task."""
    import transformers

    return getattr(transformers, AUTO_CLASSES[task])


def is_classifier(raw: Mapping[str, Any]) -> bool:
    """Tell whether ``config.json`` describes a model that has a classification head."""
    return any(str(name).endswith("ForSequenceClassification") for name in raw.get("architectures") or ())


def architectures(raw: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what ``config.json`` names and, for a classifier, the language model of its kind: they share a family."""
    named = tuple(raw.get("architectures") or ())
    if not is_classifier(raw):
        return named
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    base = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(str(raw.get("model_type")))
    return (*named, base) if base else named


def check_flags(config: Config) -> None:
    """Refuse flags of a head that the model will not have."""
    for flag in ("num_labels", "problem_type") if config.value("task_type") == "causal_lm" else ():
        if config.is_set(flag) and config.value(flag) is not None:
            raise UsageError(f"--{flag} belongs to --task_type seq_cls; leave it out for a language model.")


def check(folder: Path, raw: Mapping[str, Any], settings: ModelArguments) -> None:
    """Refuse a task that a checkpoint is not made for."""
    if settings.task_type == "causal_lm":
        if is_classifier(raw):
            raise UsageError(
                f"--model {folder}: it puts scores to conversations and writes no text ({raw['architectures'][0]}, "
                "--task_type seq_cls); name a language model."
            )
    elif not is_classifier(raw):
        if settings.num_labels is None:
            raise UsageError(
                f"--task_type seq_cls: {folder} has no classification head, so --num_labels has to say how many "
                "numbers a new one gives; 1 for a reward model."
            )
    elif settings.num_labels not in (None, known := _labels(raw)):
        raise UsageError(f"--num_labels {settings.num_labels}: the head of {folder} gives {known}; leave the flag out.")


def _labels(raw: Mapping[str, Any]) -> int:
    return len(raw["id2label"]) if raw.get("id2label") else int(raw.get("num_labels") or 2)


def check_class(folder: Path, config: Any, raw: Mapping[str, Any], settings: ModelArguments) -> Any:
    """Return the class of transformers for a configuration; None where the folder brings its own.

    ``MartletError`` where there is none.
    """
    import transformers

    task = settings.task_type
    found = getattr(transformers, MAPPINGS[task]).get(type(config), None)
    if found is None and not (settings.trust_remote_code and AUTO_CLASSES[task] in (raw.get("auto_map") or {})):
        raise MartletError(f"--model {folder}: a {config.model_type} model is not {SAID[task]}.")
    return found


def apply(config: Any, settings: ModelArguments) -> None:
    """Give a configuration the size and the meaning of the head."""
    if settings.task_type == "seq_cls":
        if settings.num_labels is not None:
            config.num_labels = settings.num_labels
        config.problem_type = settings.problem_type or config.problem_type


def set_padding(config: Any, raw: Mapping[str, Any], tokenizer: Any) -> None:
    """Let the head know the padding: transformers reads its state at the last token that is no padding.

    A head that exists keeps the token that it was made with.
    """
    text = config.get_text_config()
    if not is_classifier(raw) or text.pad_token_id is None:
        text.pad_token_id = tokenizer.pad_token_id


def check_head(model: Any) -> None:
    """Refuse a model whose head does not lie on the state of the last token, as an encoder's."""
    if not hasattr(model, HEAD):
        raise MartletError(f"--task_type seq_cls: {type(model).__name__} has no head over the last token of a text.")


def take_head(
    run: Run, folder: Path, model: Any, missing: list[str], adapters: Iterable[Path], *, for_training: bool
) -> list[str]:
    """Start a head that a checkpoint lacks, and return what else it lacks.

    The numbers depend on the seed of the run alone: every process and a resumed run have the same. For inference one of
    the ``adapters`` that are put onto the model has to bring its own.
    """
    check_head(model)
    rest = [name for name in missing if not name.startswith(f"{HEAD}.")]
    if len(rest) == len(missing):
        return rest
    brought = any(_brings_head(adapter) for adapter in adapters)
    if not for_training and not brought:
        raise CheckpointError(
            f"--model {folder}: it has no score head, so it gives no scores; train one first, or name with --adapters "
            "an adapter that brings one."
        )
    _start(getattr(model, HEAD), run.seed, getattr(model.config.get_text_config(), "initializer_range", 0.02))
    if not brought:
        run.logger.info("The model gets a new score head; it starts from --seed %d.", run.seed)
    return rest


def _start(head: Any, seed: int, spread: float) -> None:
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in head.parameters():
            matrix = weight.dim() > 1
            weight.copy_(torch.randn(weight.shape, generator=generator) * spread if matrix else torch.zeros(()))


def _brings_head(adapter: Path) -> bool:
    try:
        config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return HEAD in (config.get("modules_to_save") or ())


@contextmanager
def quiet(task: str) -> Iterator[None]:
    """Keep back what transformers reports of a head that is new: it is told in our words."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    if task != "causal_lm":
        logging.set_verbosity(40)  # errors alone
    try:
        yield
    finally:
        logging.set_verbosity(level)
