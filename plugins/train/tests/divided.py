"""One of two processes that train a model which torch's FSDP2 divides: ``divided.py FOLDER``, started by torchrun.

Whole state is written after three steps and taken up by a second model; both go on, and must stay the same. A third
model takes the three steps whole.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch.distributed.fsdp import fully_shard
from torch.nn.functional import cross_entropy
from transformers import Qwen3Config, Qwen3ForCausalLM

from martlet_train.sharded import load_whole_optimizer, whole_optimizer, whole_weights
from martlet_train.state import load_state, save_state

IDS = torch.randint(0, 131, (6, 4, 9), generator=torch.Generator().manual_seed(1))


def make(weights=None, *, divide: bool):
    """Return a model, of whose sizes 2 divides few, and its optimizer."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 21, "intermediate_size": 37, "num_hidden_layers": 2, "head_dim": 10, "vocab_size": 131}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    model = Qwen3ForCausalLM(Qwen3Config(**sizes, **heads, tie_word_embeddings=True))
    if weights is not None:
        model.load_state_dict(weights)
    if divide:
        for layer in model.model.layers:
            fully_shard(layer)
        fully_shard(model)
    wide, narrow = ([p for p in model.parameters() if (p.dim() > 1) is chosen] for chosen in (True, False))
    groups = [{"params": wide, "weight_decay": 0.1}, {"params": narrow, "weight_decay": 0.0}]
    return model, torch.optim.AdamW(groups, lr=1e-3)


def step(model, optimizer, rows) -> torch.Tensor:
    loss = cross_entropy(model(input_ids=rows).logits[:, :-1].flatten(0, 1), rows[:, 1:].flatten())
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.detach()


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    dist.init_process_group("gloo")
    first = dist.get_rank() == 0
    mine = slice(0, 2) if first else slice(2, 4)
    model, optimizer = make(divide=True)
    for rows in IDS[:3]:
        step(model, optimizer, rows[mine])
    weights = whole_weights(model, keep=first)
    state = whole_optimizer(optimizer, [group["params"] for group in optimizer.param_groups], keep=first)
    if first:
        assert weights["lm_head.weight"].data_ptr() == weights["model.embed_tokens.weight"].data_ptr()
        save_file({name: tensor.clone() for name, tensor in weights.items()}, folder / "divided.safetensors")
        save_state(folder / "divided.state", state)
        torch.save(weights, folder / "weights")
        alone, of_alone = make(divide=False)
        for rows in IDS[:3]:
            step(alone, of_alone, rows)
        save_file({name: tensor.clone() for name, tensor in alone.state_dict().items()}, folder / "alone.safetensors")
        save_state(folder / "alone.state", of_alone.state_dict())
    else:
        assert not weights and not state["state"]
    dist.barrier()
    second, of_second = make(torch.load(folder / "weights", weights_only=True), divide=True)
    taken = load_whole_optimizer(of_second, load_state(folder / "divided.state"), [])
    assert taken
    for rows in IDS[3:]:
        assert torch.equal(step(model, optimizer, rows[mine]), step(second, of_second, rows[mine]))
    dist.destroy_process_group()
