"""Flags of the training commands. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class TrainerArguments:
    """The loop: batches, optimizer, schedule, evaluation, checkpoints, logs."""

    output_dir: str | None = field(default=None, metadata={"important": True})
    """Folder for everything the run writes. Default: `output/` and the name of the model."""
    per_device_train_batch_size: int = field(default=1, metadata={"ge": 1, "important": True})
    """Rows, or packs with `--packing`, that one device works on at a time."""
    per_device_eval_batch_size: int = field(default=1, metadata={"ge": 1})
    """Rows that one device evaluates at a time."""
    gradient_accumulation_steps: int | None = field(default=None, metadata={"ge": 1, "important": True})
    """Batches that are added up before the weights change. Default: enough for 16 rows a step over all devices."""
    learning_rate: float | None = field(default=None, metadata={"ge": 0, "important": True})
    """Highest learning rate. Default: what the tuner recommends (1e-5 in full, 1e-4 for adapters)."""
    num_train_epochs: float = field(default=3, metadata={"gt": 0, "important": True})
    """Passes over the training rows."""
    max_steps: int = field(default=-1, metadata={"ge": -1})
    """Stop after this many optimizer steps, at least 1; -1 lets `--num_train_epochs` decide."""
    max_epochs: int | None = field(default=None, metadata={"ge": 1})
    """Stop after this many epochs, evaluating and saving, with the schedule still made for `--num_train_epochs`."""
    lr_scheduler_type: str = "cosine"
    """How the learning rate falls: linear, cosine, constant, constant_with_warmup, cosine_with_min_lr, ..."""
    lr_scheduler_kwargs: dict[str, Any] | None = None
    """Settings of the schedule as a JSON object, such as `{"min_lr": 1e-6}`."""
    warmup_ratio: float = field(default=0.0, metadata={"ge": 0, "le": 1})
    """Share of the steps in which the learning rate rises from zero."""
    warmup_steps: int = field(default=0, metadata={"ge": 0})
    """Number of steps in which the learning rate rises from zero; wins over `--warmup_ratio`."""
    weight_decay: float = field(default=0.1, metadata={"ge": 0})
    """Decay of all weights but biases and norms."""
    adam_beta1: float = field(default=0.9, metadata={"ge": 0, "lt": 1})
    """First beta of Adam-like optimizers."""
    adam_beta2: float = field(default=0.95, metadata={"ge": 0, "lt": 1})
    """Second beta of Adam-like optimizers."""
    adam_epsilon: float = field(default=1e-8, metadata={"gt": 0})
    """Epsilon of Adam-like optimizers."""
    max_grad_norm: float = field(default=1.0, metadata={"ge": 0})
    """Clip gradients to this norm; 0 leaves them as they are. The log shows the norm before clipping."""
    optim: str = "adamw_torch_fused"
    """Optimizer, by one of the names that transformers knows."""
    optim_args: str | None = None
    """Further settings of the optimizer, as `name=value,name=value`."""
    neftune_noise_alpha: float = field(default=0, metadata={"ge": 0})
    """Strength of the noise added to embeddings (NEFTune); 0 adds none, 5 to 15 are usual."""
    label_smoothing_factor: float = field(default=0.0, metadata={"ge": 0, "lt": 1})
    """Share of the target probability that is spread evenly over the vocabulary."""
    gradient_checkpointing: bool = True
    """Recompute activations in the backward pass: less memory, more time."""
    gradient_checkpointing_kwargs: dict[str, Any] | None = None
    """Settings of gradient checkpointing as a JSON object, such as `{"every_n_layers": 2}`."""
    bf16: bool | None = None
    """Compute in bfloat16 under autocast. Default: when the weights are bfloat16."""
    fp16: bool | None = None
    """Compute in float16 under autocast, with loss scaling. Default: when the weights are float16."""
    tf32: bool | None = None
    """Allow TF32 in float32 matrix products on NVIDIA GPUs. Default: as torch is set."""
    use_cpu: bool = False
    """Train on the CPU although there is an accelerator."""
    full_determinism: bool = False
    """Use deterministic kernels only, at the cost of speed."""
    router_aux_loss_coef: float = field(default=0.0, metadata={"ge": 0})
    """Weight of the load-balancing loss of mixture-of-experts models."""
    enable_dft_loss: bool = False
    """Weight every token by the probability the model gives it (dynamic fine-tuning)."""
    enable_channel_loss: bool = False
    """Log the loss of each value of the column `channel` as well."""
    save_strategy: str = field(default="steps", metadata={"choices": ("no", "steps", "epoch")})
    """When to write a checkpoint."""
    save_steps: float = field(default=500, metadata={"gt": 0, "important": True})
    """Steps between checkpoints; below 1, a share of all steps."""
    save_total_limit: int | None = field(default=None, metadata={"ge": 1})
    """Checkpoints to keep, the best and the last always among them. Default: all."""
    save_only_model: bool = False
    """Leave optimizer, scheduler and random state out of checkpoints; training cannot be resumed exactly then."""
    save_on_each_node: bool = False
    """Write checkpoints on every machine, not on the first alone."""
    resume_from_checkpoint: str | None = field(
        default=None, metadata={"path": True, "checkpoint": True, "restore": False}
    )
    """Continue from this checkpoint folder (or the link `last`); keep all other flags as they were."""
    resume_only_model: bool = field(default=False, metadata={"restore": False})
    """With `--resume_from_checkpoint`: take the weights and the position, not optimizer and random state."""
    ignore_data_skip: bool = field(default=False, metadata={"restore": False})
    """With `--resume_from_checkpoint`: begin the epoch anew; with `--resume_only_model` as well, begin at step 0."""
    eval_strategy: str | None = field(default=None, metadata={"choices": ("no", "steps", "epoch")})
    """When to evaluate. Default: as `--save_strategy`, or never where there is nothing to evaluate on."""
    eval_steps: float | None = field(default=None, metadata={"gt": 0})
    """Steps between evaluations; below 1, a share of all steps. Default: `--save_steps`."""
    eval_on_start: bool = False
    """Evaluate once before the first step."""
    eval_delay: float = field(default=0, metadata={"ge": 0})
    """Steps, or epochs, to wait before the first evaluation."""
    metric_for_best_model: str | None = None
    """Evaluation metric that decides which checkpoint `best` leads to. Default: `loss`."""
    greater_is_better: bool | None = None
    """Whether a higher metric is better. Default: unless its name contains `loss`."""
    logging_strategy: str = field(default="steps", metadata={"choices": ("no", "steps", "epoch")})
    """When to log."""
    logging_steps: float = field(default=5, metadata={"gt": 0})
    """Steps between log lines; below 1, a share of all steps."""
    logging_first_step: bool = True
    """Log the first step as well."""
    logging_dir: str | None = None
    """Folder for TensorBoard files. Default: `runs` in the run's folder."""
    report_to: list[str] = field(default_factory=lambda: ["tensorboard"])
    """Where logs go beside the console: tensorboard, wandb, ..., `all` or `none`."""
    run_name: str | None = None
    """Name of the run in experiment trackers. Default: the run's folder."""
    dataloader_num_workers: int | None = field(default=None, metadata={"ge": 0})
    """Processes that prepare batches. Default: 1, on Windows 0. The result does not depend on it."""
    dataloader_prefetch_factor: int | None = field(default=None, metadata={"ge": 1})
    """Batches each of them prepares ahead. Default: 2."""
    dataloader_pin_memory: bool = True
    """Prepare batches in page-locked memory, for faster copies to a GPU."""
    dataloader_persistent_workers: bool = False
    """Keep these processes from one epoch to the next."""
    dataloader_drop_last: bool = False
    """Drop the rows at the end of an epoch that do not fill a batch."""
    train_dataloader_shuffle: bool = True
    """Put the rows in a new order in every epoch."""
    group_by_length: bool = False
    """Put rows of similar length into one batch, so that less is padded."""
    average_tokens_across_devices: bool = True
    """Divide by the supervised tokens of all devices: the exact mean. False: each device by its own."""
    torch_empty_cache_steps: int | None = field(default=None, metadata={"ge": 1})
    """Return unused memory to the device every so many steps."""
    ddp_find_unused_parameters: bool | None = None
    """Passed to DistributedDataParallel. Default: only without gradient checkpointing."""
    ddp_bucket_cap_mb: int | None = field(default=None, metadata={"ge": 1})
    """Passed to DistributedDataParallel: size of a bucket of gradients."""
    ddp_broadcast_buffers: bool | None = None
    """Passed to DistributedDataParallel."""
    ddp_backend: str | None = None
    """Communication library between processes: nccl, gloo, ... Default: by the device."""
    ddp_timeout: int = field(default=1800, metadata={"ge": 1})
    """Seconds that a process waits for the others before it gives up."""
    deepspeed: str | None = None
    """Divide the state of training over the processes with DeepSpeed: zero1, zero2, zero3, zero2_offload,
    zero3_offload, zero0 (nothing is divided), a JSON file of DeepSpeed's settings, or JSON itself."""
    zero_hpz_partition_size: int | None = field(default=None, metadata={"ge": 1})
    """With zero3: keep a second copy of the weights, divided over so many processes (ZeRO++), mostly those of one
    machine."""
    fsdp: str | None = None
    """Divide weights, gradients and optimizer state over the processes with torch's FSDP2: fsdp2, or a JSON file of
    its settings. Needs GPUs."""
    push_to_hub: bool = False
    """Upload the last checkpoint to the hub when training has ended."""
    hub_model_id: str | None = None
    """Repository to upload to, as `owner/name`."""
    hub_private_repo: bool = False
    """Make that repository private if it is created."""


@dataclass
class TrainArguments:
    """What Martlet adds to the loop."""

    packing: bool = field(default=False, metadata={"important": True})
    """Fill batches of one length with whole rows that cannot see one another. Fewer, fuller steps."""
    packing_length: int | None = field(default=None, metadata={"ge": 1})
    """Tokens in a pack. Default: `--max_length`, else the longest row, but at least 4096 and at most what the model
    takes."""
    packing_num_proc: int = field(default=1, metadata={"ge": 1})
    """Processes that pack, each a share of the rows: with another number the packs are others. One is nearly always
    enough; a stream packs in one."""
    lazy_tokenize: bool | None = None
    """Turn rows into tokens when they are fetched, and not all of them before training. Default: false, for text. A row
    that turns out to be unusable is counted in the ledger, and the next one takes its place."""
    padding_free: bool = False
    """Lay the rows of a batch one behind another instead of padding them; they cannot see one another."""
    padding_side: str = field(default="right", metadata={"choices": ("right", "left")})
    """Where the shorter rows of a batch are filled up. The loss is the same. Inference always pads on the left."""
    loss_type: list[str] | None = field(
        default=None, metadata={"component": "losses", "unset": "cross_entropy", "late": True}
    )
    """Loss to minimise. Default: cross entropy, under `rlhf` what the algorithm says. Some mix several."""
    use_logits_to_keep: bool | None = None
    """Compute logits for supervised tokens alone: less memory. Default: where the model can."""
    acc_strategy: str = field(default="token", metadata={"choices": ("token", "seq")})
    """Whether `token_acc` counts right tokens, or answers in which every token is right."""
    callbacks: list[str] = field(default_factory=list, metadata={"component": "callbacks"})
    """Callbacks to run in the loop, in this order."""
    add_version: bool = True
    """Write into a new folder `vN-date-time` under `--output_dir`, so that nothing is overwritten."""
    create_checkpoint_symlink: bool = True
    """Keep the links `last` and `best` to checkpoints in the run's folder."""


@dataclass
class RlhfArguments:
    """What the algorithms that align a model have in common."""

    rlhf_type: str = field(
        default="dpo", metadata={"component": "trainers", "owner": "preference", "late": True, "important": True}
    )
    """Algorithm: how the preferences become a loss."""
    beta: float | None = field(default=None, metadata={"ge": 0, "important": True})
    """How strongly the model is held to the reference, or the preferences are scaled. Default: the algorithm's."""
    ref_model: str | None = field(default=None, metadata={"path": True})
    """Reference model. Default: without adapters the model as it was, with them the model without its adapter."""
    ref_adapters: list[str] = field(default_factory=list, metadata={"path": True, "restore": False})
    """Adapter of the reference model: where training goes on with an adapter, mostly that one."""
    ref_model_type: str | None = None
    """Family of the reference model. Chosen from its id and config.json when not given."""
    ref_model_revision: str | None = None
    """Branch, tag or commit of the reference model to download from a hub."""
    precompute_ref_log_probs: bool = False
    """Run the reference model once over all rows before training, keep what it says, and free its memory."""
