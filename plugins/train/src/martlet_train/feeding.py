"""From encoded rows to the loaders of a run, and what a place among its batches depends on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn
from transformers import TrainingArguments

from martlet import DataError, Run, UsageError
from martlet.protocols import BoundTemplate
from martlet_data.api import EncodedDataset, Packs, Prepared, SampleStream, pack
from martlet_data.args import DataArguments

from .algorithm import Algorithm
from .args import TrainArguments, TrainerArguments
from .batch import Collator, Row
from .documents import branches, by_document
from .isolation import check_isolation, check_left_padding
from .loading import Batches, Loader, make_loader
from .probing import base_of
from .sampling import BatchSampler, EpochOrder
from .streaming import Layout, StreamLoader

log = logging.getLogger("martlet")
PACK = 4096
"""Tokens in a pack where nobody says how many: what models are said to take would not fit into memory."""
Facts = dict[str, Any]
"""What ``resuming.SAME`` compares."""


@dataclass
class Feeding:
    """How the rows of a run become its batches."""

    run: Run
    algorithm: Algorithm
    args: TrainingArguments
    template: BoundTemplate
    prepared: Prepared
    processor: Any

    def __post_init__(self) -> None:
        self.flags = self.run.config[TrainerArguments]
        self.ours = self.run.config[TrainArguments]
        self.branches = False
        self.attention: dict[str, bool] = {}
        """How rows of one sequence are attended to, for ``run.json``."""

    def training(self) -> tuple[Loader | StreamLoader, Facts]:
        """Return the batches to train on; ``UsageError`` when there are none."""
        rows = self.prepared.train
        return self._stream(rows) if isinstance(rows, SampleStream) else self._map(rows)

    def evaluation(self) -> Loader | None:
        """Return the batches to evaluate on, if anything is evaluated."""
        rows = self.prepared.eval
        if rows is None or not len(rows) or (self.args.eval_strategy == "no" and not self.args.eval_on_start):
            return None
        order = EpochOrder(units=len(rows) // self.prepared.group, seed=0, shuffle=False)
        return self._loader(rows, BatchSampler(order, self.flags.per_device_eval_batch_size, **self._share()))

    def collator(self) -> Collator:
        """Return what lays rows out, whatever the algorithm makes of them."""
        tokenizer, packed = self.processor, self.ours.packing or self.ours.padding_free
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        return Collator(pad or 0, packed=packed, left=self.ours.padding_side == "left", branches=self.branches)

    def check_layout(self, model: nn.Module) -> None:
        """Raise ``UsageError`` where a model would score a row otherwise in the batches of this run than alone."""
        if self.ours.packing or self.ours.padding_free:
            documents = by_document(model, self._longest())
            able = documents and self.prepared.group == 2 and branches(model)
            if self.branches and not able:
                raise UsageError(
                    f"The reference, {type(base_of(model)).__name__}, cannot compute what a pair shares once, as the "
                    "model does. Use one of the model's own architecture, or leave --packing and --padding_free out."
                )
            self.branches = able
            self.attention = {"by_document": documents, "shared_prompt": able}
            check_isolation(model, "--packing true" if self.ours.packing else "--padding_free true")
        elif self.ours.padding_side == "left":
            check_left_padding(model)

    def _longest(self) -> int | None:
        """Return the tokens of the longest row, as far as it is known."""
        sets = [rows for rows in (self.prepared.train, self.prepared.eval) if rows is not None]
        known = [int(rows.lengths.max()) for rows in sets if isinstance(rows, EncodedDataset) and len(rows)]
        return max(known) if len(known) == len(sets) else self.template.max_length

    def _map(self, rows: Any) -> tuple[Loader, Facts]:
        """Take rows by number: an ``EncodedDataset``, or one that is encoded when fetched and knows no lengths."""
        flags, packs = self.flags, self._packs(rows) if self.ours.packing else None
        order = EpochOrder(
            units=len(rows) // self.prepared.group if packs is None else len(packs),
            seed=self.run.config[DataArguments].data_seed,
            shuffle=flags.train_dataloader_shuffle,
            lengths=self._lengths(rows).tolist() if flags.group_by_length else None,
            per_step=flags.per_device_train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size,
        )
        sampler = BatchSampler(
            order,
            flags.per_device_train_batch_size,
            packs=None if packs is None else [found.tolist() for found in packs],
            drop_last=flags.dataloader_drop_last,
            **self._share(),
        )
        if len(sampler) == 0:
            raise UsageError("--dataloader_drop_last true leaves no full batch: there are too few rows.")
        facts = {
            "rows": rows.fingerprint,
            "order": {
                "units": order.units,
                "seed": order.seed,
                "shuffle": order.shuffle,
                "by_length": order.lengths is not None,
                "packing": packs is not None and {"capacity": packs.capacity, "by": self.ours.packing_num_proc},
            },
            "units_per_step": order.per_step,
        }
        return self._loader(rows, sampler), facts

    def _lengths(self, rows: EncodedDataset) -> Any:
        """Return the tokens of each group of rows that stays together."""
        return rows.lengths.reshape(-1, self.prepared.group).sum(axis=1)

    def _packs(self, rows: EncodedDataset) -> Packs:
        lengths, group = self._lengths(rows), self.prepared.group
        roomy = max(PACK, int(lengths.max()))
        capacity = self.ours.packing_length or min(roomy, (self.template.max_length or roomy) * group)
        longest = int(lengths.argmax())
        if lengths[longest] > capacity:
            limit = capacity // group
            what = "has" if group == 1 else "and what stays beside it have"
            raise DataError(
                f"{rows.origin(longest * group)} {what} {lengths[longest]} tokens, too many for a pack of {capacity}. "
                f"Raise --packing_length, or let --max_length {limit} drop or cut such rows."
            )
        packs = pack(lengths, capacity, self.ours.packing_num_proc)
        log.info("%s rows fill %s packs of %s to %.1f%%.", len(lengths), len(packs), capacity, 100 * packs.fill)
        self.run.note("packing", {"packs": len(packs), "capacity": capacity, "fill": round(packs.fill, 4)})
        return packs

    def _stream(self, stream: SampleStream) -> tuple[StreamLoader, Facts]:
        flags = self.flags
        layout = Layout(
            flags.per_device_train_batch_size,
            self.args.gradient_accumulation_steps,
            drop_last=flags.dataloader_drop_last,
            capacity=self.ours.packing_length if self.ours.packing else None,
            seed=self.run.config[DataArguments].data_seed,
            reshuffle=flags.train_dataloader_shuffle,
            passes=flags.max_epochs,
            **self._share(),
        )
        loader = StreamLoader(stream, layout, self._collate(), **self._workers())
        return loader, loader.facts()

    def _loader(self, rows: Sequence[Row], sampler: BatchSampler) -> Loader:
        return make_loader(Batches(rows, self._collate()), sampler, **self._workers())

    def _collate(self) -> Any:
        """Return what makes a batch of rows and their numbers. Pickles."""
        return partial(self.algorithm.collate, collator=self.collator())

    def _share(self) -> dict[str, Any]:
        """Return which share of every batch is this process's, and what stays together in one."""
        group = self.prepared.group
        return {"rank": self.args.process_index, "world_size": self.args.world_size, "group": group}

    def _workers(self) -> dict[str, Any]:
        """Return how loaders use data workers."""
        flags = self.flags
        return {
            "workers": flags.dataloader_num_workers or 0,
            "prefetch": flags.dataloader_prefetch_factor,
            "pin_memory": flags.dataloader_pin_memory,
            "persistent": flags.dataloader_persistent_workers,
            "worker_init": self.run.worker_init,
        }
