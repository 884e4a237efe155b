"""Tiny but real: tokenizers trained on the spot, and models of current architectures with random weights."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .chat_templates import CHATML, CHATML_THINKING, LLAMA3
from .quiet import quiet

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = ["CHATML", "CHATML_THINKING", "LLAMA3", "save_tiny_model", "tiny_tokenizer"]

PAD = "<|endoftext|>"
CHATML_TOKENS = ("<|im_start|>", "<|im_end|>")
LLAMA3_TOKENS = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
POSITIONS = 2048


@lru_cache
def _trained(vocab_size: int) -> str:
    """Train a byte-level BPE on our own text and return it as JSON."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, *CHATML_TOKENS, *LLAMA3_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    corpus = files(__package__).joinpath("corpus.txt").read_text(encoding="utf-8")
    tokenizer.train_from_iterator(corpus.splitlines(keepends=True), trainer)
    return str(tokenizer.to_str())


def tiny_tokenizer(template: str | None = CHATML, vocab_size: int = 512) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer that round-trips any text and carries ``template``.

    End of turn is ``<|im_end|>``, or ``<|eot_id|>`` where the template writes it (then with ``<|begin_of_text|>`` as
    the first token); padding is ``<|endoftext|>``. ``vocab_size`` is an upper bound, at least 263: the bytes and the
    special tokens. ``template=None`` leaves it without a chat template, like a base model's.
    """
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    smallest = 256 + 1 + len(CHATML_TOKENS) + len(LLAMA3_TOKENS)
    if vocab_size < smallest:
        raise ValueError(f"vocab_size={vocab_size}: a byte-level tokenizer needs at least {smallest}.")
    headers = template is not None and LLAMA3_TOKENS[-1] in template
    tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=Tokenizer.from_str(_trained(vocab_size)),
        bos_token=LLAMA3_TOKENS[0] if headers else None,
        eos_token=LLAMA3_TOKENS[-1] if headers else CHATML_TOKENS[-1],
        pad_token=PAD,
        clean_up_tokenization_spaces=False,
        model_max_length=POSITIONS,
        padding_side="left",
    )
    tokenizer.chat_template = template
    return tokenizer


def _config(architecture: str, layers: int, hidden: int, tokenizer: Any, overrides: dict[str, Any]) -> Any:
    """Return a configuration of ``architecture`` that is as small as ``layers`` and ``hidden`` say."""
    from transformers import AutoConfig

    heads = max(1, hidden // 16)
    size: dict[str, Any] = {
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": max(1, heads // 2),
        "head_dim": hidden // heads,
        "max_position_embeddings": POSITIONS,
    }
    if architecture == "gpt2":
        size = {"n_embd": hidden, "n_layer": layers, "n_head": heads, "n_positions": POSITIONS}
        size |= {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    if architecture.endswith("moe"):
        size |= {"moe_intermediate_size": hidden, "num_experts": 4, "num_experts_per_tok": 2}
    shared = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    return AutoConfig.for_model(architecture, **{**size, **shared, **overrides})


def save_tiny_model(
    folder: str | Path,
    *,
    architecture: str = "qwen3",
    layers: int = 2,
    hidden: int = 64,
    template: str | None = CHATML,
    seed: int = 0,
    **config: Any,
) -> Path:
    """Save a model with random weights as a checkpoint would be: configuration, safetensors, tokenizer, template.

    ``architecture`` is a model type that transformers knows (``qwen3``, ``qwen2``, ``qwen3_moe``, ``llama``,
    ``mistral``, ``gpt2``); ``hidden`` is a multiple of 16; ``config`` overrides fields of its configuration. The same
    ``seed`` gives the same weights, and the caller's random state is left as it was.
    """
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    folder = Path(folder)
    tokenizer = tiny_tokenizer(template)
    shape = _config(architecture, layers, hidden, tokenizer, config)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        model: Any = AutoModelForCausalLM.from_config(shape, dtype=torch.float32)  # type: ignore[no-untyped-call]
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=sorted({tokenizer.eos_token_id, tokenizer.pad_token_id}),
        pad_token_id=tokenizer.pad_token_id,
        do_sample=False,
        max_new_tokens=16,
    )
    with quiet():
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
