"""Bring the processes of a run together: a store for words, a process group for tensors, and one deadline for both.

torchrun, or whoever starts the ranks, says in ``RANK``, ``WORLD_SIZE``, ``MASTER_ADDR`` and ``MASTER_PORT`` where they
meet. The group is made here and not by transformers, which forgets ``--ddp_timeout`` on a CPU.
"""

from __future__ import annotations

import atexit
import os
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from itertools import count
from typing import TYPE_CHECKING, Any

from martlet import MartletError, Run

from .args import TrainerArguments

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

_meetings = count()
"""Runs of this process so far: each has keys of its own in the store, which outlives it."""
PATIENCE = 3.0
"""Seconds of ``--ddp_timeout`` that are left for finding out who is missing, once a transfer has taken too long."""
AFTERWARDS = 60.0
"""Seconds after ``--ddp_timeout`` at which the watchdog of NCCL ends a process without words, if nothing else has."""


@dataclass
class Meeting:
    """Where the processes of one run tell one another in words."""

    rank: int
    size: int
    store: Store
    """A connection of its own, with the keys of this run."""
    timeout: float
    """Seconds (``--ddp_timeout``)."""

    def exchange(self, topic: str, text: str) -> list[str]:
        """Return what every process said on a topic, by rank; each topic is used once."""
        self.store.set(f"{topic}/{self.rank}", text)
        return [self.read(f"{topic}/{rank}", rank) for rank in range(self.size)]

    def read(self, key: str, rank: int) -> str:
        """Wait for what a process says; ``MartletError`` that names it if it never does."""
        from torch.distributed import DistStoreError

        deadline = time.monotonic() + self.timeout
        while time.monotonic() < deadline:  # asked again and again: a wait inside the store holds up other threads
            try:
                if self.store.check([key]):
                    return self.store.get(key).decode()
            except DistStoreError:
                break
            time.sleep(0.01)
        raise MartletError(
            f"Rank {rank} of {self.size} has not come within {self.timeout:g} s (--ddp_timeout). Look at what it said "
            "on its machine; if it takes that long to start, raise --ddp_timeout."
        )


def join(run: Run) -> Meeting | None:
    """Meet the other processes of the run and start the process group; None with one process."""
    process, flags = run.process, run.config[TrainerArguments]
    if process.world_size == 1:
        return None
    import torch.distributed as dist
    from torch.distributed.distributed_c10d import PrefixStore

    timeout, number = timedelta(seconds=flags.ddp_timeout), next(_meetings)
    try:
        store = _meet(process.rank, process.world_size, timeout)
        if not dist.is_initialized():
            backend = flags.ddp_backend or ("gloo" if flags.use_cpu or not _has_gpu() else "nccl")
            seconds = max(flags.ddp_timeout - PATIENCE, flags.ddp_timeout / 2)
            if backend != "gloo":
                seconds = flags.ddp_timeout + AFTERWARDS
            if backend == "nccl":
                _choose_gpu(process.local_rank)
            prefixed = PrefixStore(f"martlet/group/{number}", store)
            dist.init_process_group(
                backend,
                store=prefixed,
                rank=process.rank,
                world_size=process.world_size,
                timeout=timedelta(seconds=seconds),
            )
            atexit.register(part)
    except (dist.DistError, RuntimeError, ValueError) as error:
        place = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise MartletError(
            f"The {process.world_size} processes of the run did not come together at {place} within "
            f"{flags.ddp_timeout} s (--ddp_timeout): rank {process.rank} on {socket.gethostname()} waited in vain "
            f"({' '.join(str(error).split())[:200]}). Start all of them with one MASTER_ADDR and MASTER_PORT."
        ) from error
    mine = PrefixStore(f"martlet/run/{number}", store.clone())
    return Meeting(process.rank, process.world_size, mine, flags.ddp_timeout)


def part() -> None:
    """Close the connections to the others, if there are any."""
    import torch.distributed as dist

    if dist.is_initialized():
        with suppress(RuntimeError):
            dist.destroy_process_group()


@cache
def _meet(rank: int, size: int, timeout: timedelta) -> Any:
    """Return the store where the processes meet: torchrun's, which survives them, or one that rank 0 keeps."""
    from torch.distributed.rendezvous import rendezvous

    return next(rendezvous("env://", rank, size, timeout=timeout))[0]


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _choose_gpu(local_rank: int) -> None:
    import torch

    if local_rank >= torch.cuda.device_count():
        raise MartletError(
            f"Process {local_rank} of this machine has no GPU of its own: there are {torch.cuda.device_count()}. Start "
            "as many processes as there are GPUs, or train on the CPU (--use_cpu true)."
        )
    torch.cuda.set_device(local_rank)
