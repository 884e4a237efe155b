"""One process of a run, as torch's agent starts it: ``python -m martlet_launch.rank sft --model ...``.

It runs the command line as ``martlet`` does. What ends it with an error is left to the launcher, which tells it once
for all of them; the traceback is in the rank's log. Ranks other than 0 write to their log what they print, and to the
screen only what they warn of.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from types import FrameType

from martlet import MartletError
from martlet.cli import run_words
from martlet.errors import told
from martlet.run import write_json

FILES = "MARTLET_RANK_FILES"
"""Names a folder of this machine, in which ranks leave what the launcher reads."""
LAUNCHER = "MARTLET_LAUNCHER"
"""Process id of the launcher."""
LOGS = "MARTLET_RANK_LOGS"
"""Names the folder of the ranks' logs."""
SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}


def exit_file(files: Path, rank: int) -> Path:
    """Return where a rank says what ended it."""
    return files / f"exit-{rank}.json"


def log_file(logs: Path, rank: int) -> Path:
    """Return where a rank writes what is not for the screen."""
    return logs / f"rank-{rank}.log"


def main() -> int:
    """Run the command line; return its exit status."""
    here = os.getpid()

    def terminate(number: int, frame: FrameType | None) -> None:
        if os.getpid() != here:
            os._exit(128 + number)  # a forked child
        raise KeyboardInterrupt("SIGTERM")

    rank = int(os.environ["RANK"])
    log = log_file(Path(os.environ[LOGS]), rank)
    status, text, trace, own = 0, "", "", False
    try:
        signal.signal(signal.SIGTERM, terminate)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # a signal that came while this process started comes now
        threading.Thread(target=_end_with, args=(int(os.environ[LAUNCHER]),), daemon=True).start()
        log.unlink(missing_ok=True)
        if rank:
            _write_to(log, rank)
        result = run_words(sys.argv[1:])
        print(end="", flush=True)
        status = result if isinstance(result, int) and not isinstance(result, bool) else 0
    except KeyboardInterrupt as error:
        status = 143 if str(error) == "SIGTERM" else 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 141
    except Exception as error:
        own = isinstance(error, MartletError)
        status, text, trace = (
            error.exit_code if isinstance(error, MartletError) else 1,
            told(error, __file__),
            traceback.format_exc(),
        )
        with log.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(trace)
    if status:
        facts = {"status": status, "error": text, "own": own, "traceback": trace, "at": time.time()}
        write_json(exit_file(Path(os.environ[FILES]), rank), facts)
    return status


def _end_with(launcher: int) -> None:
    """Kill this process and its data workers once the launcher is gone: nobody would end them any more."""
    while os.getppid() == launcher:
        time.sleep(0.5)
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)


def _write_to(log: Path, rank: int) -> None:
    """Let standard output and error go to the log, and warnings to the screen as well."""
    screen, file = os.fdopen(os.dup(2), "w", buffering=1), os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)
    for stream in (screen, sys.stderr):
        handler = logging.StreamHandler(stream)
        handler.setFormatter(logging.Formatter(f"[rank {rank}] %(levelname)s: %(message)s"))
        logging.getLogger("martlet").addHandler(handler)


if __name__ == "__main__":
    sys.exit(main())
