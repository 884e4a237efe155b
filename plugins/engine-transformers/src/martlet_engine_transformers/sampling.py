"""Turn a request's ``Sampling`` and the checkpoint's ``generation_config.json`` into one generation configuration."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from martlet.errors import UsageError
from martlet.protocols import Sampling

if TYPE_CHECKING:
    from transformers import GenerationConfig

UNLIMITED = 1 << 16
"""New tokens where neither the request, nor the checkpoint, nor the model's own length sets a limit."""

_NEUTRAL: dict[str, Any] = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "typical_p": 1.0, "min_p": None}
_NEUTRAL |= {"top_h": None, "epsilon_cutoff": 0.0, "eta_cutoff": 0.0}


def check(sampling: Sampling) -> None:
    """Raise ``UsageError`` for a value that no request could be answered with."""
    rules: list[tuple[str, Any, Callable[[Any], bool], str]] = [
        ("max_new_tokens", sampling.max_new_tokens, lambda v: v >= 1, "at least 1"),
        ("temperature", sampling.temperature, lambda v: v >= 0, "0 (greedy) or more"),
        ("top_k", sampling.top_k, lambda v: v >= -1, "at least 1, or 0 for no limit"),
        ("top_p", sampling.top_p, lambda v: 0 < v <= 1, "above 0 and at most 1"),
        ("repetition_penalty", sampling.repetition_penalty, lambda v: v > 0, "above 0"),
        ("num_beams", sampling.num_beams, lambda v: v >= 1, "at least 1"),
        ("top_logprobs", sampling.top_logprobs, lambda v: v >= 0, "0 or more"),
    ]
    for name, value, holds, wanted in rules:
        if value is not None and not holds(value):
            raise UsageError(f"{name}={value}: it must be {wanted}.")
    if sampling.num_beams > 1 and (sampling.logprobs or sampling.top_logprobs):
        raise UsageError("logprobs cannot be given together with num_beams above 1; set num_beams to 1.")


def new_tokens(model_config: GenerationConfig, sampling: Sampling) -> int:
    """Return how many tokens an answer may have before the model's own length is considered."""
    return sampling.max_new_tokens or model_config.max_new_tokens or UNLIMITED


def configure(
    model_config: GenerationConfig, sampling: Sampling, *, stop_ids: Iterable[int], pad_id: int, max_new_tokens: int
) -> GenerationConfig:
    """Return the configuration for one batch.

    What ``sampling`` leaves at None is taken from ``model_config``; what is unset there too is off (transformers
    would take the 50 most probable tokens). The repetition penalty is left out: it is applied by
    ``generation.RepetitionPenalty``, which knows padding.
    """
    config = copy.deepcopy(model_config)
    config.max_length, config.max_new_tokens = None, max_new_tokens
    config.num_beams, config.num_return_sequences = sampling.num_beams, 1
    config.eos_token_id, config.pad_token_id = sorted(stop_ids) or None, pad_id
    config.return_dict_in_generate = config.output_scores = config.output_logits = False
    config.output_attentions = config.output_hidden_states = False
    config.use_cache, config.repetition_penalty, config.stop_strings = True, 1.0, None
    for name in ("temperature", "top_k", "top_p"):
        given = getattr(sampling, name)
        if given is not None:
            setattr(config, name, given)
        elif getattr(config, name) is None:
            setattr(config, name, _NEUTRAL[name])
    config.top_k = max(0, config.top_k)
    given = [sampling.temperature, sampling.top_k, sampling.top_p]
    config.do_sample = any(value is not None for value in given) or bool(config.do_sample)
    if config.temperature == 0 or config.top_k == 1:
        config.do_sample = False
    if not config.do_sample:
        for name, value in {**_NEUTRAL, "top_k": 50}.items():  # 50: transformers warns of any other value here
            setattr(config, name, value)
    if sampling.num_beams == 1:
        config.early_stopping, config.length_penalty = False, 1.0
    return config


def repetition_penalty(model_config: GenerationConfig, sampling: Sampling) -> float:
    """Return the penalty in force; 1 for none."""
    given = sampling.repetition_penalty
    return float(given if given is not None else model_config.repetition_penalty or 1.0)
