"""Launcher ``torchrun``: choose the folder, start the ranks, and tell how they ended."""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from martlet import MartletError, Run, UsageError
from martlet.errors import blame
from martlet.specs import load

from .args import LaunchArguments
from .ending import Places, conclude
from .rank import FILES, LAUNCHER, LOGS

if TYPE_CHECKING:
    from torch.distributed.elastic.agent.server.api import WorkerSpec

    from .machines import Machines

RUN_FOLDER = "MARTLET_RUN_FOLDER"
TORCH_LOGS = "TORCH_CPP_LOG_LEVEL"
"""What torch reads when it is imported."""
HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)  # by torch's agent
WAIT = 1800
"""Seconds to wait for other machines, where no ``--ddp_timeout`` says."""


def launch(run: Run) -> int:
    """Start the processes of a run with its own command line; return their exit status."""
    flags = run.config[LaunchArguments]
    if flags.nproc_per_node * flags.nnodes == 1:
        raise UsageError("--launcher torchrun: there is one process to start. Set NPROC_PER_NODE or NNODES.")
    with tempfile.TemporaryDirectory(prefix="martlet-") as files, _environment():
        places = Places(Path(files), _folder(run) if not flags.node_rank else None)
        with suppress(UsageError):  # a command without this flag
            places.only_model = run.config.value("save_only_model")
        all_logs = False
        try:
            return _start(run, flags, places)
        except MartletError as error:
            all_logs = error.exit_code == 2  # nothing had begun
            raise
        finally:
            places.tidy(all_logs=all_logs)


def _folder(run: Run) -> Path | None:
    """Ask the command where it will write."""
    command = run.config.command
    if command.folder is None:
        return None
    with blame(run.command, "choosing its folder"):
        folder: Path = load(command.folder)(run)
    return folder.absolute()


@contextmanager
def _environment() -> Iterator[None]:
    """Put the environment, which the ranks inherit, and the handlers of signals back as they were."""
    before = dict(os.environ)
    handlers = {number: signal.getsignal(number) for number in HANDLED}
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _start(run: Run, flags: LaunchArguments, places: Places) -> int:
    quiet = {TORCH_LOGS} - os.environ.keys()
    os.environ |= dict.fromkeys(quiet, "FATAL")  # here, not in the ranks: stack traces of what we say in a sentence
    from torch.distributed.elastic.multiprocessing import SignalException

    from .agent import Ranks

    _check_devices(run, flags)
    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)  # what it has to say, we say
    os.environ.setdefault("OMP_NUM_THREADS", str(threads(flags.nproc_per_node)))
    os.environ |= {LAUNCHER: str(os.getpid()), FILES: str(places.files)}

    def prepare(machines: Machines, ranks: list[int]) -> None:
        """All machines have met: take the folder of the first one."""
        name = machines.first(str(places.folder or ""))
        places.folder, places.ranks = Path(name) if name else None, ranks
        places.create()
        os.environ[LOGS] = str(places.logs)
        for name in (RUN_FOLDER, *quiet):
            os.environ.pop(name, None)
        if places.folder is not None:
            os.environ[RUN_FOLDER] = str(places.folder)

    agent = Ranks(_spec(run, flags), places, prepare)
    try:
        agent.run()
    except SignalException:
        raise KeyboardInterrupt from None
    return conclude(run, agent.ended, agent.signals, places, agent.machines)


def _spec(run: Run, flags: LaunchArguments) -> WorkerSpec:
    from torch.distributed.elastic.agent.server.api import WorkerSpec

    from .meeting import Meeting

    wait = WAIT
    with suppress(UsageError):  # a command without this flag
        wait = run.config.value("ddp_timeout")
    meeting = Meeting(flags.master_addr or "", flags.master_port or 0, flags.node_rank or 0, flags.nnodes, wait)
    words = [word.replace("$", "$$") for word in run.words]  # torch takes $ for the start of a name
    return WorkerSpec(
        role="rank",
        local_world_size=flags.nproc_per_node,
        rdzv_handler=meeting,
        entrypoint=sys.executable,
        # -P: without it, modules in the working directory would come before those that are installed.
        args=("-P", "-m", f"{__package__}.rank", *words),
        max_restarts=0,
        monitor_interval=0.1,
    )


def _check_devices(run: Run, flags: LaunchArguments) -> None:
    import torch

    with suppress(UsageError):  # a command without this flag
        if run.config.value("use_cpu"):
            return
    devices = torch.cuda.device_count()  # asks the driver and starts nothing on a device
    if 0 < devices < flags.nproc_per_node:
        raise UsageError(
            f"--nproc_per_node {flags.nproc_per_node}: each process needs a GPU of its own, and torch sees {devices} "
            "(CUDA_VISIBLE_DEVICES counts)."
        )


def threads(processes: int) -> int:
    """Return how many threads each of the processes may use of this machine's cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // processes)
