"""DPO, packed, beside TRL's ``DPOTrainer``: supervised tokens per second and peak memory, same pairs, model, settings.

Each side runs in a process of its own, in turn; medians are printed. The memory is what a process takes at most, beyond
what its imports take. Usage: preference.py [--rounds N] [--pairs N]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the same for both; two threads on two cores measure the neighbours
CLOCK = '''
"""Write down how long training took, and what it took of memory."""

import json
import time
from pathlib import Path

from martlet import Callback, hookimpl


class Clock:
    def on_train_begin(self, args, state, control, **kwargs):
        self.begun = time.perf_counter()

    def on_train_end(self, args, state, control, **kwargs):
        Path(args.output_dir, "seconds.txt").write_text(repr(time.perf_counter() - self.begun))


@hookimpl
def provide_callbacks():
    yield Callback("clock", Clock)
'''
SHARED = {
    "num_train_epochs": 1, "learning_rate": 1e-6, "weight_decay": 0.1, "adam_beta2": 0.95, "max_grad_norm": 1.0,
    "lr_scheduler_type": "constant", "logging_steps": 10_000, "save_strategy": "no", "gradient_checkpointing": False,
    "dataloader_num_workers": 0, "beta": 0.1,
}  # fmt: skip


def resident(field: str) -> int:
    """Return a line of /proc/self/status in bytes: ``VmRSS`` now, ``VmHWM`` at most."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise SystemExit("this benchmark needs Linux: it reads /proc/self/status")


def make(folder: Path, pairs: int) -> int:
    """Write a model and rows whose lengths vary as answers do; return the number of supervised tokens."""
    import martlet
    from martlet_sdk.tiny import save_tiny_model

    save_tiny_model(folder / "model", layers=4, hidden=256, vocab_size=32_000)
    chance = random.Random(0)

    def text(most: int, middle: float) -> str:
        words = min(most, max(2, round(chance.lognormvariate(middle, 0.8))))
        return " ".join(chance.choice(("left", "right", "under", "over", "green", "blue")) for _ in range(words))

    rows = [
        {
            "messages": [{"role": "user", "content": text(60, 2.5)}, {"role": "assistant", "content": text(300, 4.0)}],
            "rejected_response": text(300, 4.0) + " !",
        }
        for _ in range(pairs)
    ]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "clock.py").write_text(CLOCK)
    run = martlet.prepare(roles=("model", "template"), model=str(folder / "model"))
    template = run.one("templates").bind(run.one("models").load_processor(run), run)
    sides = [row["messages"] for row in rows]
    sides += [[row["messages"][0], {"role": "assistant", "content": row["rejected_response"]}] for row in rows]
    encoded = template.encode_batch([{"messages": side} for side in sides])
    return sum(label != -100 for one in encoded for label in one.labels)


def ours(folder: Path, packing: int) -> tuple[float, int]:
    import peft  # noqa: F401
    import torch  # noqa: F401
    from transformers import Trainer  # noqa: F401

    import martlet

    before = resident("VmRSS")
    out = folder / f"ours-{time.time_ns()}"
    martlet.run(
        "rlhf", rlhf_type="dpo", model=str(folder / "model"), dataset=[str(folder / "rows.jsonl")], tuner_type="full",
        output_dir=str(out), add_version=False, external_plugins=[str(folder / "clock.py")], callbacks=["clock"],
        log_level="error", report_to=["none"], torch_dtype="float32", load_from_cache_file=False,
        packing=True, packing_length=packing, gradient_accumulation_steps=2, **SHARED,
    )  # fmt: skip
    return float((out / "seconds.txt").read_text()), resident("VmHWM") - before


def theirs(folder: Path, batch: int) -> tuple[float, int]:
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import DPOConfig, DPOTrainer

    before, times = resident("VmRSS"), []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            times.append(time.perf_counter())

        def on_train_end(self, *args: Any, **kwargs: Any) -> None:
            times.append(time.perf_counter())

    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    pairs = [
        {
            "prompt": row["messages"][:1],
            "chosen": row["messages"][1:],
            "rejected": [{"role": "assistant", "content": row["rejected_response"]}],
        }
        for row in rows
    ]
    settings = DPOConfig(
        output_dir=str(folder / "trl"), per_device_train_batch_size=batch, gradient_accumulation_steps=8 // batch,
        max_length=2048,
        report_to="none", disable_tqdm=True, use_cpu=True, bf16=False, loss_type="sigmoid", **SHARED,
    )  # fmt: skip
    trainer = DPOTrainer(
        AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32),
        args=settings,
        train_dataset=Dataset.from_list(pairs),
        processing_class=AutoTokenizer.from_pretrained(folder / "model"),
        callbacks=[Clock()],
    )
    trainer.train()
    return times[1] - times[0], resident("VmHWM") - before


def measured(side: str, folder: Path, packing: int, batch: int) -> tuple[float, int]:
    """Run one side in a process of its own; return seconds and bytes."""
    words = [sys.executable, __file__, "--side", side, "--folder", str(folder)]
    words += ["--packing", str(packing), "--batch", str(batch)]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "HF_HUB_DISABLE_TELEMETRY": "1"})
    if done.returncode:
        raise SystemExit(f"{side} failed:\n{done.stderr[-3000:]}")
    seconds, size = json.loads(done.stdout.splitlines()[-1])
    return seconds, size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=160)
    parser.add_argument("--packing", type=int, default=2048)
    parser.add_argument("--batch", type=int, default=8, help="pairs that TRL pads together; 8 make a step")
    parser.add_argument("--side", choices=("ours", "theirs"))
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    if options.side:
        mine = options.side == "ours"
        found = ours(options.folder, options.packing) if mine else theirs(options.folder, options.batch)
        print(json.dumps(found))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokens = make(folder, options.pairs)
        rounds = [
            {side: measured(side, folder, options.packing, options.batch) for side in ("ours", "theirs")}
            for _ in range(options.rounds)
        ]
    speed, memory = (
        {side: statistics.median(one[side][at] for one in rounds) for side in ("ours", "theirs")} for at in (0, 1)
    )
    print(f"supervised tokens/s over TRL's   {speed['theirs'] / speed['ours']:6.3f}   at least 1.5")
    print(f"peak memory over TRL's           {memory['ours'] / memory['theirs']:6.3f}   at most 0.7")
    for side in ("ours", "theirs"):
        print(f"{side:<7} {tokens / speed[side]:9.0f} supervised tokens/s {memory[side] / 2**20:8.0f} MiB")


if __name__ == "__main__":
    main()
