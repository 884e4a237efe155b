"""A command that shows what its process is, and then does what it is told, in one of the ranks or in all."""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from martlet import Arguments, Command, DataError, UsageError, hookimpl


@dataclass
class WalkArguments:
    to: str = field(default="", metadata={"important": True})
    """Folder to write to."""
    do: str = ""
    """What happens: refuse, trip, fill, same, vanish, be_early, leave, status, wait, ignore, miss, late, finish."""
    who: int = -1
    """The rank that does it; -1: all of them."""
    note: str = ""
    """Any text."""
    seconds: float = 60.0
    """How long it takes."""
    ddp_timeout: int = 60
    """Seconds to wait for others."""


def facts(run):
    names = ("MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS", "MARTLET_RUN_FOLDER", "MARTLET_EXTERNAL_PLUGINS")
    flags = run.config[WalkArguments]
    process = vars(run.process) | {"session": os.getsid(0) == os.getpid()}
    return {
        **process,
        **{n: os.environ.get(n) for n in names},
        "note": flags.note,
        "seed": run.seed,
        "cwd": os.getcwd(),
    }


def main(run):
    flags, rank = run.config[WalkArguments], run.process.rank
    folder = Path(os.environ.get("MARTLET_RUN_FOLDER", flags.to))
    if flags.do == "refuse":
        raise UsageError("Nobody walks here.")
    run.open(folder)
    (folder / f"{rank}.json").write_text(json.dumps(facts(run)))
    print(f"printed by {rank}", flush=True)
    print(f"chatter of {rank}", file=sys.stderr)
    run.logger.info("info of %s", rank)
    run.logger.warning("warning of %s", rank)
    run.warn("found by all")
    if flags.who in (rank, -1) and flags.do:
        return globals()[flags.do](run, flags, folder)
    if flags.do:
        time.sleep(flags.seconds)
    return 0


def checkpoint(folder):
    whole = folder / "checkpoint-4"
    whole.mkdir()
    (whole / "checkpoint.json").write_text("{}")
    return whole


def trip(run, flags, folder):
    raise ValueError("a stone")


def fill(run, flags, folder):
    raise DataError(f"The disk is full; resume with {checkpoint(folder)}.")


def same(run, flags, folder):
    raise DataError("All rows are broken.")


def vanish(run, flags, folder):
    checkpoint(folder)
    for rank, host, step in ((run.process.rank, "hilltop", 4), (0, "valley", 5)):  # it had no time to tell its last
        note = {"host": host, "pid": os.getpid(), "step": step}
        Path(os.environ["MARTLET_RANK_FILES"], f"{rank}.json").write_text(json.dumps(note))
    os.kill(os.getpid(), signal.SIGKILL)


def be_early(run, flags, folder):
    return 0  # the others take their seconds


def leave(run, flags, folder):
    os._exit(7)


def status(run, flags, folder):
    return 5


def wait(run, flags, folder):
    child = subprocess.Popen(["sleep", "600"])  # as a data worker: in the group of its rank
    (folder / f"ready-{run.process.rank}").write_text(f"{os.getpid()} {child.pid}")
    try:
        time.sleep(flags.seconds)
    finally:
        child.kill()
        child.wait()


def ignore(run, flags, folder):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    (folder / f"ready-{run.process.rank}").write_text(str(os.getpid()))
    time.sleep(flags.seconds)


def miss(run, flags, folder):
    """Rank 1 does not notice the first signal: it comes where exceptions are ignored."""
    try:
        (folder / f"ready-{run.process.rank}").write_text(str(os.getpid()))
        time.sleep(flags.seconds)
    except KeyboardInterrupt:
        if run.process.rank == 0:
            raise
    time.sleep(flags.seconds)


def late(run, flags, folder):
    """Be killed by a second signal after everything was said."""

    def die():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)

    try:
        (folder / f"ready-{run.process.rank}").write_text(str(os.getpid()))
        time.sleep(flags.seconds)
    except KeyboardInterrupt:
        atexit.register(die)
        stopped = DataError("Stopped at step 3.")
        stopped.exit_code = 143
        raise stopped from None


def finish(run, flags, folder):
    """Count the signals, and end some time after the first, as training does that has to save."""
    seen = []

    def note(number, frame):
        seen.append(number)

    signal.signal(signal.SIGINT, note)
    signal.signal(signal.SIGTERM, note)
    (folder / f"ready-{run.process.rank}").write_text(str(os.getpid()))
    while not seen:
        time.sleep(0.05)
    time.sleep(flags.seconds)
    (folder / f"seen-{run.process.rank}").write_text(json.dumps(seen))
    stopped = DataError("Stopped at step 3.")
    stopped.exit_code = 128 + seen[0]
    raise stopped


def place(run):
    return Path(run.config[WalkArguments].to or "walked")


@hookimpl
def provide_arguments():
    yield Arguments("walk", WalkArguments, roles=("walk",))


@hookimpl
def provide_commands():
    yield Command("walk", main, roles=("train", "walk"), folder=place)
