# mypy: disable-error-code="no-untyped-def"
"""A launcher: start the processes of a run on this machine, and end all of them when one has failed."""

import os
import signal
import socket
import subprocess
import sys
import time

from martlet import Launcher, UsageError, hookimpl
from martlet.specs import load

MAIN = "import sys; from martlet.cli import entry; entry()"


def my_name(run):
    """Start each rank with ``run.words``; return the exit status of the run."""
    count, choose = run.config.value("nproc_per_node"), run.config.command.folder
    if run.config.value("nnodes") > 1:
        raise UsageError("--nnodes: my-name starts the processes of one machine. Use --launcher torchrun.")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    place = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    if choose:  # once, and not in every rank
        place["MARTLET_RUN_FOLDER"] = str(load(choose)(run).absolute())
    words = [sys.executable, "-P", "-c", MAIN, *run.words]
    numbers = [{"RANK": str(number), "LOCAL_RANK": str(number)} for number in range(count)]
    # In sessions of their own: a signal reaches them through this process, and once.
    ranks = [subprocess.Popen(words, env=os.environ | place | n, start_new_session=True) for n in numbers]
    try:
        while not any(rank.poll() for rank in ranks) and any(rank.returncode is None for rank in ranks):
            time.sleep(0.1)
        return next((1 if rank.returncode < 0 else rank.returncode for rank in ranks if rank.returncode), 0)
    except KeyboardInterrupt:  # let them finish their step and save
        for rank in ranks:
            rank.send_signal(signal.SIGINT)
        for rank in ranks:
            rank.wait()
        raise
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()


@hookimpl
def provide_launchers():
    yield Launcher("my-name", my_name, summary="Processes of this machine, without torchrun.")
