"""How many processes a run has, and where they meet."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class LaunchArguments:
    nproc_per_node: int = field(default=1, metadata={"env": "NPROC_PER_NODE", "ge": 1, "local": True})
    """Processes to start on this machine, one for each device. Each of them runs the same command line."""
    nnodes: int = field(default=1, metadata={"env": "NNODES", "ge": 1, "local": True})
    """Machines of the run. The same command is started on each of them, with its own node_rank."""
    node_rank: int | None = field(default=None, metadata={"env": "NODE_RANK", "ge": 0, "local": True})
    """Which of the machines this is, from 0. The one with 0 chooses the output folder."""
    master_addr: str | None = field(default=None, metadata={"env": "MASTER_ADDR", "local": True})
    """Name or address of machine 0, where all processes meet."""
    master_port: int | None = field(default=None, metadata={"env": "MASTER_PORT", "ge": 1, "le": 65535, "local": True})
    """Port of machine 0 on which they meet. Default: any free one, with several machines 29500."""
    launcher: str | None = field(default=None, metadata={"component": "launchers", "local": True})
    """What starts the processes. Default: torchrun where there are several, nothing where there is one."""
