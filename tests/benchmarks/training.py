"""Cost of a training step and of starting: Martlet beside a bare PyTorch loop and the stock ``transformers.Trainer``.

Every comparison uses the same model, the same rows in the same order, the same optimizer and precision; the runs are
interleaved and medians are printed. Usage: training.py [--rounds N] [--steps N]
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the same for all; two threads on two cores measure the neighbours
CLOCK = Path(__file__).parent / "plugins" / "clock.py"
WARM = 10
"""Steps at the start that are not counted."""


def per_step(times: list[float]) -> float:
    """Median time of a step, in seconds, without the first ones."""
    return statistics.median(after - before for before, after in zip(times[WARM:], times[WARM + 1 :], strict=False))


class Setting:
    """One model, its rows, and the three ways to train it."""

    def __init__(
        self, folder: Path, name: str, *, layers: int, hidden: int, words: int, batch: int, steps: int
    ) -> None:
        from martlet_sdk.tiny import save_tiny_model

        self.folder = folder / name
        self.folder.mkdir()
        self.model = save_tiny_model(self.folder / "model", layers=layers, hidden=hidden)
        self.batch, self.steps = batch, steps
        self.rows = self.folder / "rows.jsonl"
        texts = (" ".join(f"word{(n * 31 + k) % 97}" for k in range(words)) for n in range(batch * steps))
        self.rows.write_text(
            "\n".join(json.dumps({"query": f"Q{n}", "response": text}) for n, text in enumerate(texts))
        )
        self.count = 0
        self.encoded = self._encode()

    def _encode(self) -> list[dict[str, list[int]]]:
        import martlet

        run = martlet.prepare(roles=("model", "template"), model=str(self.model))
        template = run.one("templates").bind(run.one("models").load_processor(run), run)
        rows = [json.loads(line) for line in self.rows.read_text().splitlines()]
        chats = [
            {"messages": [{"role": "user", "content": row["query"]}, {"role": "assistant", "content": row["response"]}]}
            for row in rows
        ]
        return [{"input_ids": list(one.input_ids), "labels": list(one.labels)} for one in template.encode_batch(chats)]

    def load(self) -> Any:
        import torch
        from transformers import AutoModelForCausalLM, set_seed

        set_seed(42)
        return AutoModelForCausalLM.from_pretrained(self.model, dtype=torch.float32)

    def collate(self, rows: list[dict[str, list[int]]]) -> dict[str, Any]:
        import torch

        width = max(len(row["input_ids"]) for row in rows)

        def padded(key: str, fill: int) -> Any:
            return torch.tensor([row[key] + [fill] * (width - len(row[key])) for row in rows])

        mask = torch.tensor([[1] * len(row["input_ids"]) + [0] * (width - len(row["input_ids"])) for row in rows])
        return {"input_ids": padded("input_ids", 0), "labels": padded("labels", -100), "attention_mask": mask}

    def bare(self) -> float:
        """A loop as one would write it by hand."""
        import torch

        model = self.load()
        model.train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / self.steps)
        times = []
        for step in range(self.steps):
            batch = self.collate(self.encoded[step * self.batch : (step + 1) * self.batch])
            loss = model(**batch, use_cache=False).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            times.append(time.perf_counter())
        return per_step(times)

    def stock(self) -> float:
        """``transformers.Trainer`` on the same batches."""
        from transformers import Trainer, TrainerCallback, TrainingArguments

        times: list[float] = []

        class Clock(TrainerCallback):
            def on_step_end(self, *args: Any, **kwargs: Any) -> None:
                times.append(time.perf_counter())

        self.count += 1
        settings = TrainingArguments(
            output_dir=str(self.folder / f"stock-{self.count}"), per_device_train_batch_size=self.batch,
            max_steps=self.steps, logging_strategy="no", save_strategy="no", report_to="none", disable_tqdm=True,
            learning_rate=1e-5, weight_decay=0.1, adam_beta2=0.95, use_cpu=True, remove_unused_columns=False,
            dataloader_num_workers=0, dataloader_pin_memory=False, train_sampling_strategy="sequential",
        )  # fmt: skip
        trainer = Trainer(
            self.load(),
            settings,
            data_collator=self.collate,
            train_dataset=self.encoded,
            callbacks=[Clock()],  # type: ignore[arg-type]
        )
        trainer.train()
        return per_step(times)

    def ours(self) -> float:
        """``martlet sft``, through the Python API."""
        import martlet

        self.count += 1
        out = self.folder / f"ours-{self.count}"
        martlet.run("sft", **self.settings(out), external_plugins=[str(CLOCK)], callbacks=["clock"], log_level="error")
        return per_step([float(word) for word in (out / "times.txt").read_text().split()])

    def settings(self, out: Path) -> dict[str, Any]:
        return {
            "model": str(self.model), "dataset": [str(self.rows)], "output_dir": str(out), "add_version": False,
            "tuner_type": "full", "max_steps": self.steps, "per_device_train_batch_size": self.batch,
            "gradient_accumulation_steps": 1, "logging_steps": 10_000_000, "logging_first_step": False,
            "save_strategy": "no", "report_to": ["none"], "dataloader_num_workers": 0, "gradient_checkpointing": False,
            "torch_dtype": "float32", "train_dataloader_shuffle": False, "dataset_shuffle": False,
        }  # fmt: skip


def interleaved(rounds: int, **ways: Any) -> dict[str, float]:
    """Run each way in turn, ``rounds`` times; return the median of each."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            found[name].append(way())
    return {name: statistics.median(values) for name, values in found.items()}


BARE_START = """
import sys, json, torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments
import peft, datasets
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
model = peft.get_peft_model(model, peft.LoraConfig(target_modules="all-linear"))
rows = [json.loads(line) for line in open(sys.argv[2])]
def encode(row):
    text = [{"role": "user", "content": row["query"]}, {"role": "assistant", "content": row["response"]}]
    return torch.tensor([tokenizer.apply_chat_template(text, tokenize=True, return_dict=False)])
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
ids = encode(rows[0])
model(input_ids=ids, labels=ids).loss.backward()
optimizer.step()
"""


def start_ratio(setting: Setting, rounds: int) -> tuple[float, float]:
    """Seconds from the start of the process to the end of step 1: ours, bare."""
    martlet = str(Path(sys.executable).with_name("martlet"))
    words = [
        "--model",
        str(setting.model),
        "--dataset",
        f"{setting.rows}#16",
        "--max_steps",
        "1",
        "--save_strategy",
        "no",
    ]
    words += ["--per_device_train_batch_size", "1", "--gradient_accumulation_steps", "1", "--report_to", "none"]

    def timed(command: list[str]) -> float:
        begin = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, cwd=setting.folder)
        return time.perf_counter() - begin

    found = interleaved(
        rounds,
        ours=lambda: timed([martlet, "sft", *words]),
        bare=lambda: timed([sys.executable, "-c", BARE_START, str(setting.model), str(setting.rows)]),
    )
    return found["ours"], found["bare"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=120)
    options = parser.parse_args()
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small = Setting(folder, "small", layers=1, hidden=16, words=4, batch=1, steps=options.steps)
        cost = interleaved(options.rounds, bare=small.bare, stock=small.stock, ours=small.ours)
        large = Setting(folder, "large", layers=4, hidden=352, words=60, batch=4, steps=max(40, options.steps // 3))
        parameters = sum(p.numel() for p in large.load().parameters())
        step = interleaved(options.rounds, stock=large.stock, ours=large.ours)
        ours, bare = start_ratio(small, max(3, options.rounds // 2))
    table = [
        ("fixed cost per step over a bare loop, ms", 1e3 * (cost["ours"] - cost["bare"]), 1.5),
        ("fixed cost per step over the stock Trainer, ms", 1e3 * (cost["ours"] - cost["stock"]), 0.5),
        (f"step of a {parameters / 1e6:.1f}M model, over the stock Trainer", step["ours"] / step["stock"], 1.02),
        ("start to the end of step 1, over a bare loop", ours / bare, 1.25),
    ]
    for what, measured, target in table:
        print(f"{what:<50} {measured:7.3f}   at most {target}")
    print("a step: " + ", ".join(f"{name} {1e3 * value:.2f} ms" for name, value in cost.items()))
    print(f"start: ours {ours:.1f} s, bare {bare:.1f} s")


if __name__ == "__main__":
    main()
