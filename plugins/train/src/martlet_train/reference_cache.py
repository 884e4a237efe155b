"""``--precompute_ref_log_probs``: the log-probabilities of the reference, computed once and kept for later runs.

One file for each dataset and reference, below the cache folder of encoded datasets, found by the digest of everything
that the numbers depend on: the rows, the files of the model and its adapter, how it is loaded and computed. Written
whole or not at all, read through a memory map, and free of pickle.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, save
from tqdm import tqdm  # type: ignore[import-untyped]

from martlet import UsageError
from martlet_data.cache import cache_folder

from .args import TrainerArguments
from .batch import Batch
from .interruption import Interrupted
from .probing import base_of
from .resuming import OPTIMIZER, SCALER, SCHEDULER
from .scoring import TokenScores
from .sharded import fetching

if TYPE_CHECKING:
    from .reference import Reference

log = logging.getLogger("martlet")
LOADING = (
    "experts_impl", "init_strategy", "max_model_len", "model_kwargs", "model_patches", "new_special_tokens",
    "rope_scaling", "task_type",
)  # fmt: skip
"""Flags that say what is made of a model's files."""
LIBRARIES = ("torch", "transformers", "peft")
Array = Any


@dataclass
class Stored:
    """Log-probabilities of a dataset's supervised tokens, row behind row."""

    offsets: Array
    """(N + 1,) i64"""
    values: Any
    """(M,) f32, or what is sliced as it."""

    def __call__(self, batch: Batch) -> TokenScores:
        """Return those of a batch, on its device."""
        counts = torch.bincount(batch.sequence, minlength=batch.sequences).tolist()
        pieces = []
        for number, count in zip(batch.numbers.tolist(), counts, strict=True):
            if not count:  # a row that fills the place of one that counts
                continue
            start, end = int(self.offsets[number]), int(self.offsets[number + 1])
            if number < 0 or end - start != count:
                raise UsageError(
                    "--precompute_ref_log_probs true: this algorithm trains on other tokens than those of its rows, so "
                    "nothing can be computed in advance. Leave the flag out."
                )
            pieces.append(np.asarray(self.values[start:end]))
        found = np.concatenate(pieces) if pieces else np.zeros(0, np.float32)
        return TokenScores({"logp": torch.from_numpy(found).to(batch.targets.device)})


class ReferenceCache:
    """Computes what a reference says of a run's rows, unless an earlier run has kept it."""

    def __init__(self, reference: Reference) -> None:
        self.reference, self.run = reference, reference.run
        self.trainer, self.feeding = reference.trainer, reference.feeding
        self.processes = self.trainer.processes
        if reference.folder is None:
            reference.load()
        places = {"model": reference.folder, "adapter": reference.adapter}
        self._files = {name: digests(path) for name, path in places.items() if path is not None}

    def stored(self) -> dict[bool, Stored]:
        """Return the log-probabilities of the training set and, if it is used, of the evaluation set."""
        prepared = self.feeding.prepared
        found = {False: self._of(prepared.train, "training")}
        if self.trainer.job.eval_loader is not None:
            found[True] = self._of(prepared.eval, "evaluation")
        return found

    def _of(self, rows: Any, what: str) -> Stored:
        if not hasattr(rows, "lengths"):
            raise UsageError(
                "--precompute_ref_log_probs true runs the reference over all rows before training, and these are made "
                "while it runs. Leave the flag out."
            )
        file = self._place(rows)
        kept = self._read(file)
        if kept is not None:
            log.info("What the reference says of the %s rows is read from %s", what, file)
            return kept
        if self.reference.model is None:
            self.reference.load()
        model: Any = self.reference.model
        own = self.reference.switch is not None  # the trained model, before anything has prepared it for training
        with fetching(model, self.trainer.args.device) if own else nullcontext():
            made = self._compute(rows, what)
        if self.run.process.local_rank == 0:
            self._write(file, made)
        self.trainer.accelerator.wait_for_everyone()
        return self._read(file, quiet=True) or made

    def _place(self, rows: Any) -> Path:
        """Return the file of these rows' log-probabilities."""
        digest = hashlib.sha256(json.dumps(self._facts(rows), sort_keys=True, default=repr).encode()).hexdigest()
        return cache_folder().parent / "reference" / f"{digest}.safetensors"

    def _facts(self, rows: Any) -> dict[str, Any]:
        """Return everything that the numbers depend on."""
        base: Any = base_of(self.reference.policy.model)
        weights = next(parameter.dtype for parameter in base.parameters() if parameter.is_floating_point())
        kinds = ("models", "model_patches")
        used = {row["plugin"] for row in self.run.record.components if row["kind"] in kinds}
        options = {f"{kind}.{name}": given for (kind, name), given in self.run.config.options.items() if kind in kinds}
        plugins = {name: self.run.manager.plugins[name] for name in used}
        settings = {flag.name: value for flag, value, _ in self.run.config if flag.name in LOADING}
        return {
            "rows": rows.fingerprint,
            "files": self._files,
            "settings": settings,
            "options": options,
            "seed": self.run.seed if settings.get("init_strategy") else None,
            "plugins": {name: f"{row.version} {row.sha256}" for name, row in plugins.items()},
            "weights": str(weights),
            "attention": getattr(base.config, "_attn_implementation", None),
            "autocast": self.trainer.args.mixed_precision,
            "device": self.trainer.args.device.type,
            "libraries": {name: one.version for name in LIBRARIES for one in metadata.distributions(name=name)},
        }

    def _read(self, file: Path, *, quiet: bool = False) -> Stored | None:
        """Return what is in a file, if every process can read it."""
        found = None
        try:
            opened: Any = safe_open(file, framework="np")
            found = Stored(opened.get_tensor("offsets"), opened.get_slice("values"))
        except FileNotFoundError:
            pass
        except (SafetensorError, OSError) as error:
            if not quiet:
                self.run.warn(f"{file} cannot be read ({error}); what the reference says is computed anew.")
        readers = self.processes.sum(self.processes.zeros(1) + (found is not None))
        return found if int(readers) == self.processes.count else None

    def _write(self, file: Path, made: Stored) -> None:
        draft = file.with_name(f".{file.name}.{os.getpid()}")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            draft.write_bytes(save({"offsets": made.offsets, "values": made.values}))
            os.replace(draft, file)
        except OSError as error:
            with suppress(OSError):
                draft.unlink()
            self.run.warn(f"{file} cannot be written ({error.strerror or error}): the next run computes it again.")

    def _compute(self, rows: Any, what: str) -> Stored:
        """Run the reference over all rows: rows of like length together, every process its share of the batches."""
        units = len(rows) // self.feeding.prepared.group
        log.info("What the reference says of %s %s rows is computed once, before training.", f"{units:,}", what)
        flags, collator = self.run.config[TrainerArguments], self.feeding.collator()
        size = max(flags.per_device_train_batch_size, flags.per_device_eval_batch_size) * self.feeding.prepared.group
        longest_first = np.argsort(-np.asarray(rows.lengths), kind="stable")
        batches = [longest_first[at : at + size].tolist() for at in range(0, len(rows), size)]
        rank, count = self.trainer.args.process_index, self.processes.count
        found: dict[int, Array] = {}
        turns = range(rank, -(-len(batches) // count) * count, count)  # equally many for each process
        for turn in tqdm(turns, "reference", unit=" batches", delay=2, disable=rank > 0, leave=False, file=sys.stderr):
            if number := self.trainer.job.interruption.signal:
                name = signal.Signals(number).name
                raise Interrupted(f"Stopped by {name} before the first step; nothing was trained.", number)
            numbers = batches[turn % len(batches)]
            batch = collator([rows[number] for number in numbers], numbers).to(self.trainer.args.device)
            logp: Any = self.reference.compute(batch).logp.cpu()
            parts = logp.split(torch.bincount(batch.sequence, minlength=batch.sequences).tolist())
            found |= {number: part.numpy() for number, part in zip(numbers, parts, strict=True)}
        return self._gathered(found, len(rows))

    def _gathered(self, mine: Mapping[int, Array], rows: int) -> Stored:
        """Put the rows of all processes together."""
        tensors = {
            "numbers": np.asarray(list(mine), np.int64),
            "counts": np.asarray([len(values) for values in mine.values()], np.int64),
            "values": np.concatenate([*mine.values(), np.zeros(0, np.float32)]),
        }
        found: list[Array] = [np.zeros(0, np.float32)] * rows
        for data in self.processes.gather(save(tensors)):
            one = load(data)
            parts = np.split(one["values"], one["counts"].cumsum()[:-1])
            for number, values in zip(one["numbers"], parts, strict=True):
                found[number] = values
        return Stored(np.cumsum([0, *map(len, found)]), np.concatenate(found))


def digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file in a folder that says what its model computes."""
    found = {}
    for file in sorted(folder.iterdir()):
        of_training = file.name in (OPTIMIZER, SCHEDULER, SCALER) or file.name.startswith("random_state")
        if file.suffix in (".safetensors", ".bin", ".py") or file.name in ("config.json", "adapter_config.json"):
            if of_training:
                continue
            with file.open("rb") as stream:
                found[file.name] = hashlib.file_digest(stream, "sha256").hexdigest()
    return found
