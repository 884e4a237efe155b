"""Choose the launcher, and refuse settings under which processes cannot meet. No heavy imports."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from martlet import Config, ConfigError, Process, Run, UsageError

from .args import LaunchArguments

PORT = 29500


def choose(config: Config) -> Iterable[tuple[str, Any, str]]:
    """Fill the flags that are None."""
    processes, nodes = config.value("nproc_per_node"), config.value("nnodes")
    if config.value("launcher") is None and processes * nodes > 1:
        yield "launcher", "torchrun", f"--nproc_per_node {processes}, --nnodes {nodes}"
    if config.value("master_port") is None and nodes > 1:
        yield "master_port", PORT, "several machines"


def check(config: Config) -> None:
    """Raise ``ConfigError`` for a place where nobody would be met. What was started already meets elsewhere."""
    if LaunchArguments not in config:
        return
    flags = config[LaunchArguments]
    if Process.current().kind != "main":
        if flags.nproc_per_node > 1 and "LOCAL_RANK" not in os.environ:
            raise ConfigError(
                f"RANK and WORLD_SIZE are set, so this is one of {os.environ['WORLD_SIZE']} processes already and "
                f"starts no others, but NPROC_PER_NODE is {flags.nproc_per_node}. If they count machines, give them as "
                "NODE_RANK and NNODES and unset both."
            )
        return
    if flags.nnodes == 1:
        if flags.node_rank:
            raise ConfigError(f"--node_rank {flags.node_rank}: with --nnodes 1 there is machine 0 alone. Set NNODES.")
        return
    if flags.node_rank is None:
        raise ConfigError(
            f"--nnodes {flags.nnodes} needs NODE_RANK on every machine: 0 on the first, then 1, and so on."
        )
    if flags.node_rank >= flags.nnodes:
        last = flags.nnodes - 1
        raise ConfigError(
            f"--node_rank {flags.node_rank}: with --nnodes {flags.nnodes} machines are numbered 0 to {last}."
        )
    if not flags.master_addr:
        raise ConfigError(
            f"--nnodes {flags.nnodes} needs MASTER_ADDR: the name or address of machine 0, on all of them."
        )


def tell_alone(run: Run) -> None:
    """Tell that code, unlike a command line, starts no processes."""
    if run.process.kind != "main" or LaunchArguments not in run.config:
        return
    flags = run.config[LaunchArguments]
    if flags.nproc_per_node * flags.nnodes == 1:
        return
    name = "nproc_per_node" if flags.nproc_per_node > 1 else "nnodes"
    origin, count = run.config.origin(name), run.config.value(name)
    raise UsageError(
        f"{name if origin.source == 'code' else name.upper()}={count}: nothing starts processes from code. Use the "
        f"command line, {name.upper()}={count} martlet {run.command} ..., start the program itself with torchrun, or "
        "leave it out for one process."
    )
