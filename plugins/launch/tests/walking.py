"""``martlet walk`` in processes of its own, and what became of them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
COUNT = {"NPROC_PER_NODE": "2"}
CLEAN = {
    k: v for k, v in os.environ.items() if not k.startswith(("MARTLET_", "TORCHELASTIC")) and k != "OMP_NUM_THREADS"
}


class Walk:
    """``martlet walk`` in a process of its own."""

    def __init__(self, folder: Path, *words: str, variables: dict[str, str] = COUNT, plugin: str | None = None) -> None:
        self.folder = folder / "out"
        program = [str(Path(sys.executable).with_name("martlet")), "walk", "--to", "out"]
        plugin = os.path.relpath(HERE / "walk.py", folder) if plugin is None else plugin
        program += [*(["--external_plugins", plugin] if plugin else []), *words]
        self.process = subprocess.Popen(
            program,
            cwd=folder,
            env=CLEAN | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def __enter__(self) -> Walk:
        return self

    def __exit__(self, *error: object) -> None:
        for pid in self.pids() if self.process.poll() is None else ():
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
        self.process.kill()
        self.process.communicate()

    def done(self, timeout: float = 60) -> Walk:
        self.out, self.err = self.process.communicate(timeout=timeout)
        self.status = self.process.returncode
        return self

    def ready(self, count: int = 2) -> Walk:
        """Wait until the ranks are where they are told to be."""
        deadline = time.monotonic() + 60
        while len(list(self.folder.glob("ready-*"))) < count or not all(self.pids()):
            assert self.process.poll() is None and time.monotonic() < deadline, self.process.communicate(timeout=5)
            time.sleep(0.05)
        return self

    def pids(self) -> list[int]:
        """Return the ranks and their children."""
        return [int(pid) for file in self.folder.glob("ready-*") for pid in file.read_text().split() or ["0"]]

    def rank(self, number: int) -> dict[str, object]:
        return json.loads((self.folder / f"{number}.json").read_text())

    @property
    def error(self) -> str:
        lines = self.err.rstrip("\n").splitlines()
        said = [line for line in lines if line.startswith("error: ")]
        assert len(said) == 1 and lines[-1] == said[0] and "Traceback" not in self.err, self.err
        return said[0].removeprefix("error: ")


def walk(folder: Path, *words: str, **more: object) -> Walk:
    with Walk(folder, *words, **more) as one:
        return one.done()


def alive(pid: int) -> bool:
    """Tell whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(pids: list[int], within: float = 5.0) -> bool:
    deadline = time.monotonic() + within
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(map(alive, pids))


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return str(one.getsockname()[1])


def ended(one: Walk) -> str:
    return json.loads((one.folder / "run.json").read_text())["ended"]["outcome"]
