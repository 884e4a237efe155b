"""Flags of generation, of ``infer`` and of ``quickstart``."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class GenerationArguments:
    max_new_tokens: int | None = field(default=None, metadata={"ge": 1, "important": True})
    """Longest answer, in tokens. Unset, generation_config.json decides, then the length that the model takes."""
    temperature: float | None = field(default=None, metadata={"ge": 0, "important": True})
    """Randomness of the answer; 0 always takes the most probable token. Unset, generation_config.json decides."""
    top_k: int | None = field(default=None, metadata={"ge": -1})
    """Draw from this many most probable tokens; 0 or -1 from all. Unset, generation_config.json decides."""
    top_p: float | None = field(default=None, metadata={"gt": 0, "le": 1})
    """Draw from the most probable tokens that together reach this share. Unset, generation_config.json decides."""
    repetition_penalty: float | None = field(default=None, metadata={"gt": 0})
    """Above 1, tokens that were already used become less likely. Unset, generation_config.json decides."""
    num_beams: int = field(default=1, metadata={"ge": 1})
    """Search with this many beams; 1 searches none."""
    stream: bool | None = field(default=None, metadata={"important": True})
    """Print the answer while it is made. By default a chat does and a batch over a dataset does not."""
    stop_words: list[str] = field(default_factory=list)
    """End the answer behind one of these texts too, as at the model's own end of turn. The text stays in the answer."""
    logprobs: bool = False
    """Record the log-probability of each token: in the results, and in a chat as the mean of an answer."""
    top_logprobs: int | None = field(default=None, metadata={"ge": 1})
    """Record this many of the most probable tokens at each position as well (results of a dataset only)."""


@dataclass
class InferArguments:
    infer_backend: str = field(
        default="transformers", metadata={"component": "engines", "owner": "engine-transformers", "important": True}
    )
    """Inference engine."""
    result_path: str | None = field(default=None, metadata={"important": True})
    """File for the answers, one JSON object a line; a file that exists is added to. By default a new one in
    infer_result/ beside the checkpoint, or in ./result where the model has no args.json."""
    write_batch_size: int = field(default=1000, metadata={"ge": -1})
    """Write the answers to the file in batches of this many rows; 0 or -1 writes them all at the end."""
    val_dataset_sample: int | None = field(default=None, metadata={"ge": 1})
    """Answer this many rows, drawn at random with data_seed, instead of all."""


@dataclass
class QuickstartArguments:
    folder: str = field(default="martlet-quickstart", metadata={"important": True})
    """Where the data, models and checkpoints go. An earlier quickstart there is kept, and a number added."""
