"""Run command lines on two processes each, whatever becomes of them; run by test_lost_processes.py.

Reads jobs as JSON from standard input: ``words``, and maybe ``folders``, where each process is to run, with packages
and variables of its own (``environment.json``). Prints what became of each: ``status`` and ``said`` (standard error) of
both processes, and ``seconds`` from the first step to the end of rank 0. The processes are forks of this one, so torch
is imported once for all of them.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import peft  # noqa: F401

from martlet.cli import main
from martlet_train import curves

curves.draw = lambda *args, **settings: []


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def start(job: dict[str, Any], rank: int, port: int, place: Path) -> int:
    """Fork a process of a run; return its id."""
    child = os.fork()
    if child:
        return child
    file = os.open(place / str(rank), os.O_WRONLY | os.O_CREAT)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    if "folders" in job:
        os.chdir(job["folders"][rank])
        sys.path.insert(0, job["folders"][rank])
        if Path("environment.json").exists():
            os.environ |= json.loads(Path("environment.json").read_text(encoding="utf-8"))
    os._exit(main(job["words"]))


def status_of(child: int, seconds: float) -> int | None:
    """Wait for a process; None if it is still there."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    return None


def play(job: dict[str, Any], place: Path) -> dict[str, Any]:
    port, words = free_port(), job["words"]
    children = [start(job, rank, port, place) for rank in (0, 1)]
    log = Path(words[words.index("--output_dir") + 1], "logging.jsonl")
    deadline = time.monotonic() + (90 if "folders" not in job else 0)
    while not log.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    began = time.monotonic()
    statuses = [status_of(children[0], 60), status_of(children[1], 5)]
    seconds = time.monotonic() - began
    for child, status in zip(children, statuses, strict=True):
        if status is None:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    said = [(place / str(rank)).read_text(encoding="utf-8") for rank in (0, 1)]
    return {"status": statuses, "said": said, "seconds": seconds}


if __name__ == "__main__":
    done = []
    for job in json.loads(sys.stdin.read()):
        with TemporaryDirectory() as place:
            done.append(play(job, Path(place)))
    print(json.dumps(done))
