"""Flags of the tuners."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class TunerArguments:
    """Where adapters go: for every tuner that adds small weights to a model."""

    target_modules: list[str] = field(default_factory=lambda: ["all-linear"], metadata={"important": True})
    """Modules that get an adapter, by the end of their names; all-linear: every linear layer but the output head."""
    target_regex: str | None = None
    """Regular expression that whole module names must match to get an adapter; replaces target_modules."""
    target_parameters: list[str] = field(default_factory=list)
    """Parameters outside linear layers that get an adapter, such as fused experts, by the end of their names."""
    init_weights: bool | str = True
    """Start of the adapters: true, false, gaussian, pissa, pissa_niter_N, olora or orthogonal."""
    modules_to_save: list[str] = field(default_factory=list, metadata={"important": True})
    """Modules that are trained whole beside the adapters and saved with them, such as embed_tokens and lm_head."""


@dataclass
class FullArguments:
    """Which part of the weights is trained. What trainable_* names is trained whatever freeze_* says."""

    freeze_parameters: list[str] = field(default_factory=list)
    """Parameters to leave as they are, by the beginning of their names."""
    freeze_parameters_regex: str | None = None
    """Regular expression; parameters in whose names it is found are left as they are."""
    freeze_parameters_ratio: float = field(default=0.0, metadata={"ge": 0, "le": 1})
    """Share of the weights to leave as they are, counted from the input of the model."""
    trainable_parameters: list[str] = field(default_factory=list)
    """Parameters to train in spite of freeze_*, by the beginning of their names."""
    trainable_parameters_regex: str | None = None
    """Regular expression; parameters in whose names it is found are trained in spite of freeze_*."""


@dataclass
class LoraArguments:
    """Low-rank adapters."""

    lora_rank: int = field(default=8, metadata={"ge": 1, "important": True})
    """Rank of the adapter matrices: more is more capacity, memory and time."""
    lora_alpha: int = field(default=32, metadata={"ge": 1, "important": True})
    """Scale of the adapters; their product is multiplied by lora_alpha / lora_rank."""
    lora_dropout: float = field(default=0.05, metadata={"ge": 0, "lt": 1})
    """Dropout in front of the adapters while training."""
    lora_bias: str = field(default="none", metadata={"choices": ("none", "all", "lora_only")})
    """Which biases are trained too: none, all of the model's, or those of the adapted layers."""
    lora_dtype: str | None = field(default=None, metadata={"choices": ("float16", "bfloat16", "float32")})
    """Number type of the adapters. Not given: float32 on a half-precision model, else the model's."""
    use_dora: bool = False
    """Train the direction and the magnitude of the weights apart (DoRA)."""
    use_rslora: bool = False
    """Scale by lora_alpha / sqrt(lora_rank), which keeps high ranks stable (rsLoRA)."""
    lorap_lr_ratio: float | None = field(default=None, metadata={"gt": 0})
    """Learning rate of the B matrices over that of the A matrices (LoRA+); 10 to 16 is usual."""
