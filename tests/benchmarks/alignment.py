"""Each algorithm of ``martlet rlhf`` on a made-up task: what it does to answers that it has not seen.

A small model learns from random weights to give the rejected answers of ``martlet_sdk.preferences``, and each algorithm
goes on from there. Held-out pairs are then scored with plain transformers: the margin is the mean difference
between the log-probabilities of the chosen and of the rejected answer, the accuracy is the share of pairs in which the
chosen one is likelier. Merits, 0 to 3, are those of answers that the model writes itself. Of a reward model, margin and
accuracy are those of its scores, as its evaluations say. Usage: alignment.py [--steps N] [NAME ...]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads that wait for one another take longer than these models
RATES = {"dpo": 5e-5, "orpo": 5e-4, "simpo": 5e-5, "cpo": 5e-5, "kto": 1e-4, "rm": 3e-4}
"""Learning rates: what moves so small a model in so few steps."""
SHARED = {
    "tuner_type": "full", "padding_free": True, "per_device_train_batch_size": 16, "gradient_accumulation_steps": 1,
    "gradient_checkpointing": False, "load_from_cache_file": False, "add_version": False, "save_only_model": True,
    "report_to": ["none"], "log_level": "error", "use_cpu": True,
}  # fmt: skip
Row = dict[str, Any]


def begin(folder: Path, steps: int = 200) -> Path:
    """Write the rows of the task and train the model that every algorithm begins with; return its folder."""
    import martlet
    from martlet_sdk import preferences
    from martlet_sdk.tiny import save_tiny_model

    preferences.write(folder)
    save_tiny_model(folder / "random")
    martlet.run(
        "sft", model=str(folder / "random"), dataset=[str(folder / "pairs.jsonl")], max_steps=steps, learning_rate=3e-3,
        columns={"response": "better", "rejected_response": "response"}, output_dir=str(folder / "begun"), **SHARED,
    )  # fmt: skip
    return folder / "begun" / "last"


def align(name: str, model: Path, folder: Path, steps: int = 50, **more: Any) -> Path:
    """Train with one algorithm on the rows in ``folder``; return the output folder."""
    import martlet

    rows = "labels" if name == "kto" else "pairs"
    settings = {"max_steps": steps, "learning_rate": RATES[name], "eval_on_start": True, "eval_steps": steps}
    martlet.run(
        "rlhf", rlhf_type=name, model=str(model), dataset=[str(folder / f"{rows}.jsonl")],
        val_dataset=[str(folder / f"{rows}-val.jsonl#100")], output_dir=str(folder / name),
        **{**SHARED, **settings, **more},
    )  # fmt: skip
    return folder / name


def held_out(folder: Path, count: int = 100) -> list[Row]:
    """Return pairs whose questions no model was trained on."""
    lines = (folder / "pairs-val.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines[:count]]


def preference(model_folder: Path, rows: list[Row]) -> tuple[float, float]:
    """Return the mean of log p(chosen) - log p(rejected), and the share of pairs where it is above 0."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_folder, padding_side="right")
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32).eval()
    sums = []
    for side in ("response", "rejected_response"):
        asked = [[{"role": "user", "content": row["query"]}] for row in rows]
        whole = [[*turns, {"role": "assistant", "content": row[side]}] for turns, row in zip(asked, rows, strict=True)]
        texts = [tokenizer.apply_chat_template(turns, tokenize=False) for turns in whole]
        prompts = [tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True) for turns in asked]
        inputs = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        begins = torch.tensor([len(tokenizer(prompt, add_special_tokens=False).input_ids) for prompt in prompts])
        with torch.no_grad():
            logp = model(**inputs).logits[:, :-1].log_softmax(-1)
        logp = logp.gather(-1, inputs.input_ids[:, 1:, None])[..., 0]
        answer = torch.arange(1, inputs.input_ids.shape[1]) >= begins[:, None]
        sums.append((logp * answer * inputs.attention_mask[:, 1:]).sum(1))
    margin = sums[0] - sums[1]
    return margin.mean().item(), (margin > 0).float().mean().item()


def merits(model_folder: Path, rows: list[Row]) -> float:
    """Let a model answer the questions, at temperature 1 and from one seed; return the mean of the merits, 0 to 3."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from martlet_sdk.preferences import merits as judged

    tokenizer = AutoTokenizer.from_pretrained(model_folder, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32).eval()
    asked = [[{"role": "user", "content": row["query"]}] for row in rows]
    texts = [tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True) for turns in asked]
    inputs = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        written = model.generate(**inputs, do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=96)
    answers = tokenizer.batch_decode(written[:, inputs.input_ids.shape[1] :], skip_special_tokens=True)
    found = [judged(row["query"], answer.strip()) for row, answer in zip(rows, answers, strict=True)]
    return sum(found) / len(found)


def scores(output: Path) -> list[tuple[float, float]]:
    """Return margin and accuracy of a reward model's scores at each evaluation."""
    lines = [json.loads(line) for line in (output / "logging.jsonl").read_text(encoding="utf-8").splitlines()]
    return [(line["eval_rewards/margins"], line["eval_rewards/accuracies"]) for line in lines if "eval_loss" in line]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(RATES)}; all when none is named")
    parser.add_argument("--steps", type=int, default=50)
    options = parser.parse_args()
    print(f"{'':<8}{'margin':>18}{'accuracy':>18}{'merits':>18}", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with redirect_stdout(sys.stderr):
            model = begin(folder)
        rows = held_out(folder)
        before = [*preference(model, rows), merits(model, rows)]
        for algorithm in options.names or RATES:
            with redirect_stdout(sys.stderr):
                output = align(algorithm, model, folder, options.steps)
            if algorithm == "rm":
                (*first,), (*last,) = scores(output)[0], scores(output)[-1]
            else:
                first, last = before, [*preference(output / "last", rows), merits(output / "last", rows)]
            cells = [f"{was:.2f} -> {now:.2f}" for was, now in zip(first, last, strict=True)]
            print(f"{algorithm:<8}" + "".join(f"{cell:>18}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
