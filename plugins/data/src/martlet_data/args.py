"""Flags about datasets."""

from __future__ import annotations

from dataclasses import dataclass, field

FORCE = "force_redownload"


@dataclass
class DataArguments:
    """Which rows are used, and how they are read."""

    dataset: list[str] = field(default_factory=list, metadata={"path": True, "important": True})
    """Data to train on, or to answer: files, folders, dataset names or hub ids, each as `NAME[:subset][#count]`.
    Several are joined."""
    val_dataset: list[str] = field(default_factory=list, metadata={"path": True, "important": True})
    """Evaluation data, written like --dataset."""
    cached_dataset: list[str] = field(default_factory=list, metadata={"path": True})
    """Training data that `martlet export --to_cached_dataset true` has encoded, beside or instead of --dataset: each
    a `FOLDER[#count]`."""
    cached_val_dataset: list[str] = field(default_factory=list, metadata={"path": True})
    """Evaluation data that `martlet export --to_cached_dataset true` has encoded, written like --cached_dataset."""
    split_dataset_ratio: float = field(default=0.0, metadata={"ge": 0.0, "le": 1.0, "important": True})
    """Share of each training dataset that is set aside for evaluation when no --val_dataset is given."""
    columns: dict[str, str] | None = field(default=None, metadata={"important": True})
    """Rename columns before the layout is recognised, as JSON: `{"question_text": "query", "reply": "response"}`."""
    dataset_shuffle: bool = True
    """Shuffle the training rows once, and draw `#count` and the evaluation split at random; otherwise in file order."""
    val_dataset_shuffle: bool = False
    """Shuffle the evaluation rows once, and draw `#count` of --val_dataset at random; otherwise in file order."""
    data_seed: int = field(default=42, metadata={"ge": 0})
    """Seed of everything random about datasets; independent of --seed."""
    streaming: bool = field(default=False, metadata={"important": True})
    """Read and encode rows while training, and hold only a few thousand of them; needs --max_steps. Shuffling is
    less thorough."""
    shuffle_buffer_size: int = field(default=1000, metadata={"ge": 1})
    """With --streaming and --dataset_shuffle, how many rows are held and shuffled among one another at a time."""
    interleave_prob: list[float] | None = None
    """Mix the training datasets: the probability with which each gives the next row, one number a dataset. Left out:
    one dataset after another."""
    stopping_strategy: str = field(
        default="first_exhausted", metadata={"choices": ("first_exhausted", "all_exhausted")}
    )
    """With --interleave_prob, stop when the first dataset ends, or when all have; then the shorter ones repeat."""
    download_mode: str = field(
        default="reuse_dataset_if_exists", metadata={"choices": ("reuse_dataset_if_exists", FORCE)}
    )
    """Use the copy of a hub's dataset that was downloaded before where it is still good, or fetch every file again."""
    model_name: list[str] | None = None
    """For the dataset `self-cognition`: what the model calls itself, in Chinese and in English."""
    model_author: list[str] | None = None
    """For the dataset `self-cognition`: who made the model, in Chinese and in English."""
    dataset_num_proc: int = field(default=1, metadata={"ge": 1, "important": True})
    """Processes that read and encode rows. The result does not depend on it."""
    load_from_cache_file: bool = False
    """Keep encoded datasets in the user's cache folder (or MODELSCOPE_CACHE), and use one that was made of the same
    rows with the same template, tokenizer, options and versions. False neither reads nor writes there."""
    strict: bool = False
    """Stop at the first row that cannot be used, and name it, instead of dropping it."""
    max_dropped: float = field(default=0.1, metadata={"ge": 0.0, "le": 1.0})
    """Stop when more than this share of a dataset's rows cannot be used."""
    remove_unused_columns: bool = True
    """Forget columns that nothing asked for. With false they stay with each sample, where a loss can read them."""


@dataclass
class NamingArguments:
    """Which datasets have a name, beside those of the plugins."""

    custom_dataset_info: list[str] = field(default_factory=list, metadata={"path": True})
    """JSON files that give names to datasets of yours: ids or path, subsets, split, columns."""


@dataclass
class ModeArguments:
    """What a command encodes rows for that does not train."""

    template_mode: str = field(
        default="train", metadata={"choices": ("train", "rlhf", "kto"), "important": True, "restore": False}
    )
    """What rows are encoded for: train (pt, sft), rlhf (a chosen and a rejected conversation each), kto (a label
    each)."""


@dataclass
class PreviewArguments:
    """What `data preview` shows."""

    n: int = field(default=3, metadata={"ge": 1, "important": True, "restore": False})
    """How many rows of each dataset to show."""
    json: bool = field(default=False, metadata={"important": True, "restore": False})
    """Print one JSON object per sample: text, input_ids, labels (-100 where not supervised), token_weights."""


@dataclass
class CheckArguments:
    """What `data check` reports."""

    report: str | None = field(default="data-report.html", metadata={"important": True, "restore": False})
    """HTML file to write; dropped rows are listed beside it, in NAME.dropped.jsonl. None writes neither."""
    n: int = field(default=3, metadata={"ge": 1, "important": True, "restore": False})
    """How many samples the report shows."""
    packing_length: int | None = field(default=None, metadata={"ge": 1, "restore": False})
    """Tokens of a pack, to see how well rows would fill it. Left out: as many as training with --packing takes."""
    json: bool = field(default=False, metadata={"important": True, "restore": False})
    """Print the numbers as one JSON object."""


@dataclass
class ListArguments:
    """What `data list` shows."""

    tag: list[str] = field(default_factory=list, metadata={"important": True, "restore": False})
    """Only datasets that have this tag; of several, all."""
    json: bool = field(default=False, metadata={"important": True, "restore": False})
    """Print one JSON array."""


@dataclass
class ShowArguments:
    """What `data show` shows."""

    name: str | None = field(default=None, metadata={"important": True, "restore": False})
    """Name of a dataset, or its id on a hub."""
    json: bool = field(default=False, metadata={"important": True, "restore": False})
    """Print one JSON object."""
