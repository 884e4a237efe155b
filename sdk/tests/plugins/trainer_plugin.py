"""A trainer of a few lines: every row is rendered with the tokenizer's template, all of it is learnt."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from martlet import Arguments, Trainer, hookimpl
from martlet.protocols import TrainResult


@dataclass
class LoopArguments:
    model: str | None = None
    """Folder of the model."""
    dataset: list[str] = field(default_factory=list)
    """Files of rows."""
    output_dir: str = "output"
    """Folder to write into."""
    max_steps: int = field(default=1, metadata={"ge": 1})
    """Number of steps."""


def loop(run):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    chosen = run.config[LoopArguments]
    run.open(Path(chosen.output_dir))
    model, tokenizer = (kind.from_pretrained(chosen.model) for kind in (AutoModelForCausalLM, AutoTokenizer))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    rows = [json.loads(line) for file in chosen.dataset for line in Path(file).read_text("utf-8").splitlines()]
    for step in range(chosen.max_steps):
        text = tokenizer.apply_chat_template(rows[step % len(rows)]["messages"], tokenize=False)
        ids = tokenizer(text, return_tensors="pt").input_ids
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    checkpoint = run.folder / f"checkpoint-{chosen.max_steps}"
    model.save_pretrained(checkpoint)
    return TrainResult(run.folder, checkpoint, {"loss": loss.item()}, {"rows": len(rows)})


@hookimpl
def provide_arguments():
    yield Arguments("loop", LoopArguments, roles=("model", "data", "train"))


@hookimpl
def provide_trainers():
    yield Trainer("loop", loop)
