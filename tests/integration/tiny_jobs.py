"""Tiny jobs: rows, settings and command lines, and what a run leaves behind."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SENTENCE = "the small bird leaves its cliff at dawn and comes back when it is late"
QUICK = {
    "add_version": False,
    "report_to": ["none"],
    "gradient_checkpointing": False,
    "dataloader_num_workers": 0,
    "gradient_accumulation_steps": 1,
    "learning_rate": 1e-3,
    "use_cpu": True,
}
"""Settings of a run that takes a second."""
DESCENT: dict[str, Any] = {
    "max_steps": 1,
    "optim": "sgd",
    "learning_rate": 1.0,
    "lr_scheduler_type": "constant",
    "weight_decay": 0.0,
    "max_grad_norm": 0.0,
    "dataset_shuffle": False,
    "train_dataloader_shuffle": False,
    "save_only_model": True,
}
"""One step of plain gradient descent: what the weights change by is the gradient."""
TIMES = ("elapsed_seconds", "steps_per_second", "remaining_seconds", "memory_gib")
"""What differs from one run to the next in ``logging.jsonl``; so does whatever ends with ``runtime`` or ``_second``."""


@dataclass
class Done:
    """A command line that has been run."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one sentence on standard error that says what is wrong; nothing follows it."""
        lines = self.err.rstrip("\n").splitlines()
        said = [line for line in lines if line.startswith("error: ")]
        assert len(said) == 1 and lines[-1] == said[0], self.err
        assert "Traceback" not in self.err + self.out
        return said[0].removeprefix("error: ")


def words_of(settings: dict[str, Any]) -> list[str]:
    """Write settings as a person would type them."""
    words = []
    for name, value in settings.items():
        values = value if isinstance(value, list) else [value]
        words += [f"--{name}", *(json.dumps(one) if isinstance(one, bool | dict) else str(one) for one in values)]
    return words


def conversation(number: int) -> dict[str, Any]:
    """Return a row; lengths differ, and every third has a system message and two rounds."""
    words = SENTENCE.split()
    asked = " ".join(words[number % 5 : number % 5 + 2 + number % 4])
    answer = " ".join(words[(number * 7 + k) % len(words)] for k in range(1 + number * 5 % 9))
    turns = [("user", f"Say {number}: {asked}?"), ("assistant", f"{answer}.")]
    if number % 3 == 0:
        turns = [("system", "Be brief."), *turns, ("user", "And why?"), ("assistant", f"Because of {number}.")]
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


def write_rows(path: Path, rows: list[Any]) -> Path:
    """Write rows as JSON lines."""
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def digests(path: Path) -> dict[str, str]:
    """Return the SHA-256 of a file, or of every file below a folder."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    return {str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def logged(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of ``logging.jsonl``, times and memory aside."""
    lines = [json.loads(line) for line in (folder / "logging.jsonl").read_text(encoding="utf-8").splitlines()]
    clock = ("runtime", "_per_second")
    return [{k: v for k, v in line.items() if k not in TIMES and not k.endswith(clock)} for line in lines]


def losses(folder: Path, key: str = "loss") -> dict[int, float]:
    """Return the logged values of a metric by step."""
    return {line["step"]: line[key] for line in logged(folder) if key in line}


def record(folder: Path) -> dict[str, Any]:
    """Return ``run.json``."""
    found: dict[str, Any] = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    return found


def newest(folder: Path) -> Path:
    """Return the checkpoint of the highest step."""
    return max(folder.glob("checkpoint-*"), key=lambda path: int(path.name.partition("-")[2]))
