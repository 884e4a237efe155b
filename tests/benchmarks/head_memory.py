"""Peak memory of the loss and its gradient, through the output layer in chunks and through the full logits.

Each side runs in a process of its own: a vocabulary of 150k, 8k tokens, float32. Usage: head_memory.py [--tokens N]
Needs about 16 GB for the full logits.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
HIDDEN = 64


def peak(side: str, tokens: int, vocabulary: int) -> int:
    """Return the bytes that a forward and a backward pass take at most, beyond the layer and its input."""
    import torch

    from martlet_train.head import in_chunks
    from martlet_train.scoring import log_probabilities

    torch.manual_seed(0)
    layer = torch.nn.Linear(HIDDEN, vocabulary, bias=False)
    hidden = torch.randn(tokens, HIDDEN, requires_grad=True)
    targets = torch.randint(0, vocabulary, (tokens,))
    log_probabilities(layer(hidden[:2]), targets[:2])["logp"].sum().backward()  # what the first call sets up
    layer.zero_grad(set_to_none=True)
    hidden.grad = None
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    if side == "chunks":
        values = in_chunks(layer, hidden, targets, log_probabilities)["logp"]
    else:
        values = log_probabilities(layer(hidden).float(), targets)["logp"]
    values.mean().backward()
    return _resident("VmHWM") - before


def _resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--vocabulary", type=int, default=150_000)
    parser.add_argument("--side", choices=("chunks", "full"))
    options = parser.parse_args()
    if options.side:
        print(json.dumps(peak(options.side, options.tokens, options.vocabulary)))
        return
    found = {}
    for side in ("chunks", "full"):
        words = [sys.executable, __file__, "--side", side]
        words += ["--tokens", str(options.tokens), "--vocabulary", str(options.vocabulary)]
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{side} failed (exit {done.returncode}):\n{done.stderr[-2000:]}")
        found[side] = json.loads(done.stdout)
    print(f"peak memory of chunks over full logits   {found['chunks'] / found['full']:6.3f}   at most 0.25")
    for side, size in found.items():
        print(f"{side:<7} {size / 2**20:8.0f} MiB")


if __name__ == "__main__":
    main()
