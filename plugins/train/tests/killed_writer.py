"""Programs that SIGKILL ends while they write checkpoints; run by test_checkpoint_kill.py.

``killed_writer.py boundaries SCENARIO ROOT``: for k = 0, 1, 2, ... prepare ROOT/k, then let a child process play the
scenario and kill itself before the k-th change it would make to the file system (a write is also cut in half). Ends
after the first child that comes through, and prints how many were killed.

``killed_writer.py forever ROOT``: write one checkpoint after the other, until somebody kills it.
"""

import itertools
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from martlet_train.checkpoint import prune, write_checkpoint

CHANGES = ("mkdir", "write", "fsync", "rename", "replace", "symlink", "unlink", "rmdir")


def files_of(version: int, size: int = 3000) -> dict[str, bytes]:
    """Return what a checkpoint of this version holds."""
    return {
        name: f"{version} {name} ".encode() * (size // 10)
        for name in ("model.safetensors", "optimizer.safetensors", "parts/rng.json")
    }


def writer(version: int, size: int = 3000) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        for name, data in files_of(version, size).items():
            path = folder / name
            if not path.parent.exists():
                os.mkdir(path.parent)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
            for start in range(0, len(data), size):
                os.write(descriptor, data[start : start + size])
            os.close(descriptor)

    return write


def save(root: Path, step: int, version: int, size: int = 3000) -> None:
    write_checkpoint(root / f"checkpoint-{step}", writer(version, size), facts={"step": step, "version": version})


def kill_before(number: int) -> None:
    """Patch ``os`` so that this process dies before the given change, counted from 0."""
    counter = itertools.count()

    def boundary() -> None:
        if next(counter) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    def patched(name: str) -> Callable[..., object]:
        original = getattr(os, name)

        def change(*args: object, **kwargs: object) -> object:
            boundary()
            if name == "write":
                descriptor, data = args
                half = original(descriptor, bytes(data)[: len(data) // 2])
                boundary()
                return half + original(descriptor, bytes(data)[half:])
            return original(*args, **kwargs)

        return change

    for name in CHANGES:
        setattr(os, name, patched(name))


SCENARIOS: dict[str, tuple[Callable[[Path], None], Callable[[Path], None]]] = {
    "first": (lambda root: None, lambda root: save(root, 1, 1)),
    "next": (lambda root: save(root, 1, 1), lambda root: save(root, 2, 2)),
    "same": (lambda root: save(root, 1, 1), lambda root: save(root, 1, 2)),
    "prune": (lambda root: [save(root, n, n) for n in (1, 2, 3)] and None, lambda root: prune(root, 1) and None),
}


def boundaries(scenario: str, root: Path) -> None:
    prepare, play = SCENARIOS[scenario]
    for number in itertools.count():
        folder = root / str(number)
        folder.mkdir(parents=True)
        prepare(folder)
        child = os.fork()
        if child == 0:
            kill_before(number)
            play(folder)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0:
            print(number)
            return
        if not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL):
            sys.exit(f"the child for boundary {number} ended with status {status}")


def forever(root: Path) -> None:
    for step in itertools.count(1):
        save(root, step, step, size=300_000)
        prune(root, 2)
        print(step, flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "boundaries":
        boundaries(sys.argv[2], Path(sys.argv[3]))
    else:
        forever(Path(sys.argv[2]))
