"""A forward and a backward pass over packed pairs: the prompt of a pair computed once, beside computed twice.

Usage: shared_prompt.py [--rounds N] [--prompt N] [--answer N]
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompt", type=int, default=200)
    parser.add_argument("--answer", type=int, default=100)
    options = parser.parse_args()

    import torch
    from transformers import AutoModelForCausalLM

    from martlet.protocols import Encoded
    from martlet_sdk.tiny import save_tiny_model
    from martlet_train.batch import Batch, Collator
    from martlet_train.documents import branches, by_document
    from martlet_train.scoring import Scorer

    torch.set_num_threads(1)
    prompt, rows = list(range(20, 20 + options.prompt)), []
    for number in range(8):
        ids = [*prompt, *(number * 7 + at for at in range(options.answer))]
        rows.append(
            Encoded([one % 500 for one in ids], [-100] * len(prompt) + [one % 500 for one in ids[len(prompt) :]])
        )
    with tempfile.TemporaryDirectory() as name:
        folder = save_tiny_model(Path(name, "model"), layers=4, hidden=256)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if not (by_document(model, options.prompt + options.answer) and branches(model)):
        raise SystemExit("this model does not attend by document")
    scorer = Scorer(model)

    def seconds(batch: Batch) -> float:
        begin = time.perf_counter()
        scorer(model, batch).logp.sum().backward()
        model.zero_grad()
        return time.perf_counter() - begin

    ways = {shared: Collator(0, packed=True, branches=shared)(rows) for shared in (False, True)}
    times: dict[bool, list[float]] = {shared: [] for shared in ways}
    for _ in range(options.rounds + 1):
        for shared, batch in ways.items():
            times[shared].append(seconds(batch))
    twice, once = (statistics.median(times[shared][1:]) for shared in (False, True))
    print(f"pairs with their prompt once over twice, speed   {twice / once:6.3f}   more than 1")
    print(f"prompt of {options.prompt}, answers of {options.answer} tokens: {1e3 * once:.0f} ms, {1e3 * twice:.0f} ms")


if __name__ == "__main__":
    main()
