"""Flags that say which model to use and how to load it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class ModelArguments:
    model: str | None = field(default=None, metadata={"important": True, "path": True, "checkpoint": True})
    """Folder of a model, or its id on a hub (hf::owner/name and ms::owner/name name the hub). A folder wins."""
    model_type: str | None = field(default=None, metadata={"component": "models", "unset": "default"})
    """Which family's loader to use. Chosen from the id and config.json when not given."""
    model_revision: str | None = None
    """Branch, tag or commit to download from a hub."""
    task_type: str = field(default="causal_lm", metadata={"choices": ("causal_lm", "seq_cls")})
    """What the model is used for: causal_lm writes text; seq_cls puts numbers to a conversation, as reward models and
    classifiers do."""
    num_labels: int | None = field(default=None, metadata={"ge": 1})
    """Numbers that a seq_cls model puts to a conversation. Taken from config.json where the checkpoint has such a
    head."""
    problem_type: str | None = field(
        default=None, metadata={"choices": ("regression", "single_label_classification", "multi_label_classification")}
    )
    """What these numbers stand for; written to config.json for transformers. Chosen by num_labels when not given."""
    trust_remote_code: bool = field(default=False, metadata={"restore": False})
    """Run Python files that the model folder brings along. Read them first."""
    new_special_tokens: list[str] = field(default_factory=list, metadata={"path": True})
    """Special tokens to add to the vocabulary, or .txt files with one token a line."""
    max_model_len: int | None = field(default=None, metadata={"ge": 1})
    """Longest sequence of the model; replaces max_position_embeddings of config.json."""
    adapters: list[str] = field(
        default_factory=list, metadata={"important": True, "path": True, "checkpoint": True, "restore": False}
    )
    """Folders or hub ids of adapters to load on top of the model; name=folder gives one a name."""


@dataclass
class LoadingArguments:
    """For commands that read weights."""

    torch_dtype: str | None = field(
        default=None, metadata={"choices": ("float16", "bfloat16", "float32"), "important": True}
    )
    """Number type of the weights. Taken from config.json when not given."""
    attn_impl: str | None = field(
        default=None,
        metadata={
            "choices": ("sdpa", "eager", "flash_attn", "flash_attention_2", "flash_attention_3", "flex_attention")
        },
    )
    """Attention implementation; flash_attn means flash_attention_2. Taken from config.json when not given."""
    experts_impl: str | None = field(default=None, metadata={"choices": ("grouped_mm", "batched_mm", "eager")})
    """How the experts of a mixture-of-experts model are computed."""
    device_map: dict[str, Any] | str | None = field(default=None, metadata={"path": True})
    """Where the layers go: auto, a device such as cpu or cuda:1, a JSON object, or the path of a JSON file."""
    max_memory: dict[int | str, Any] | None = None
    """Memory that device_map may use per device, such as {"0": "20GB", "cpu": "60GB"}; a number alone is bytes."""
    model_kwargs: dict[str, Any] | None = None
    """Settings of config.json to override for this run, such as {"attention_dropout": 0.1}."""
    rope_scaling: dict[str, Any] | str | None = None
    """Stretch rotary positions: linear, dynamic or yarn together with max_model_len, or the settings as JSON."""
    init_strategy: str | None = field(
        default=None,
        metadata={
            "choices": (
                "zero", "uniform", "normal", "xavier_uniform", "xavier_normal", "kaiming_uniform", "kaiming_normal",
                "orthogonal",
            )
        },
    )  # fmt: skip
    """How to fill weights that the model has and its files lack. Without it such files are refused."""
    model_patches: list[str] = field(default_factory=list, metadata={"component": "model_patches"})
    """Changes to make to the model around its loading, applied in this order."""
    tuner_type: str = field(default="lora", metadata={"component": "tuners", "owner": "tuners", "important": True})
    """What is trained: full for all weights, lora for small adapter matrices, or another tuner."""
    tuner_backend: str = field(default="peft", metadata={"choices": ("peft", "unsloth")})
    """Library that implements the tuner."""
