"""Flags about datasets."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class DataArguments:
    """Which rows are used, and how they are read."""

    dataset: list[str] = field(default_factory=list, metadata={"path": True, "important": True})
    """Data to train on, or to answer: files, folders, dataset names or hub ids, each as `NAME[:subset][#count]`.
    Several are joined."""
    val_dataset: list[str] = field(default_factory=list, metadata={"path": True, "important": True})
    """Evaluation data, written like --dataset."""
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
    dataset_num_proc: int = field(default=1, metadata={"ge": 1, "important": True})
    """Processes that read and encode rows. The result does not depend on it."""
    strict: bool = False
    """Stop at the first row that cannot be used, and name it, instead of dropping it."""
    max_dropped: float = field(default=0.1, metadata={"ge": 0.0, "le": 1.0})
    """Stop when more than this share of a dataset's rows cannot be used."""
    remove_unused_columns: bool = True
    """Forget columns that nothing asked for. With false they stay with each sample, where a loss can read them."""


@dataclass
class PreviewArguments:
    """What `data preview` shows."""

    n: int = field(default=3, metadata={"ge": 1, "important": True, "restore": False})
    """How many samples of each dataset to show."""
    json: bool = field(default=False, metadata={"important": True, "restore": False})
    """Print one JSON object per row: text, input_ids, labels (-100 where not supervised), token_weights."""
