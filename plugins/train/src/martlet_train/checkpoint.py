"""Checkpoints that are whole or absent, whatever ends the process.

A checkpoint is written into a hidden folder beside its place, every file and folder is flushed to the disk, the
checkpoint index comes last, one rename gives the folder its name, and then the link ``last`` moves. Nothing that has
its final name is ever changed again, and a checkpoint that is deleted loses its name first. ``sweep`` removes what a
killed run left behind; it runs before every checkpoint, and belongs before a resume.

The newest checkpoint is the one written last, not the one of the highest step: the index counts them in
``sequence``. So after resuming from an older checkpoint, the later ones that were given up are never taken up again.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import re
import secrets
import shlex
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from martlet.errors import CheckpointError

from .checkpoint_index import INDEX, check, flush, has_index, known_checkpoints, seal, write_text
from .state import load_optimizer, load_state, rng_state, save_state, set_rng_state

try:
    import fcntl
except ImportError:  # not POSIX: the age alone tells a leftover folder from one in use
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "INDEX",
    "find_last",
    "follow",
    "load_optimizer",
    "load_state",
    "point",
    "prune",
    "rng_state",
    "save_state",
    "set_rng_state",
    "sweep",
    "verify",
    "write_checkpoint",
]

_log = logging.getLogger("martlet")
_TEMPORARY = re.compile(r"\.(?P<name>.+)\.(?P<state>writing|replaced|deleting)-[0-9a-f]{8}")
_LEFT_BEHIND_AFTER = 3600.0
"""Seconds without a change after which a folder that cannot be locked counts as left behind."""
_DISK_ERRORS = {
    errno.ENOSPC: "no space is left on the disk",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "a file would exceed the largest size allowed (ulimit -f, or the file system's own limit)",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "writing there is not permitted",
    errno.EPERM: "writing there is not permitted",
    errno.EIO: "the disk reported an error",
}


# Writing


def write_checkpoint(
    target: Path, write: Callable[[Path], None], *, facts: dict[str, Any], needs: int | None = None
) -> Path:
    """Let ``write(folder)`` fill a temporary folder, then make it the checkpoint ``target`` in one step.

    ``facts`` are JSON values kept in the index (``step`` above all); ``needs`` is the expected size in bytes, told
    when the disk is full (else that of the previous checkpoint). A checkpoint of the same name is replaced once the
    new one is complete. Raises ``CheckpointError`` when the disk refuses; what else ``write`` raises passes through.
    Either way the temporary folder is removed and earlier checkpoints are as they were.
    """
    target = Path(os.path.abspath(target))
    json.dumps(facts)  # a fact that cannot be written is found before anything is
    sweep(target.parent)
    temporary = _temporary(target, "writing")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        with _locked(temporary):
            write(temporary)
            seal(temporary, facts, 1 + max((known.sequence for known in known_checkpoints(target.parent)), default=0))
            _publish(temporary, target)
    except BaseException as error:
        written = _size(temporary)
        shutil.rmtree(temporary, ignore_errors=True)
        reason = _disk_error(error)
        if reason is None:
            raise
        raise CheckpointError(_failure(target, reason, needs, written)) from error
    try:
        point(target.parent / "last", target)
    except OSError as error:
        # The checkpoint is complete and find_last does not read the link: no reason to end a run.
        _log.warning("%s is complete, but the link 'last' beside it could not be moved (%s).", target, error)
    return target


def _publish(temporary: Path, target: Path) -> None:
    """Give the finished folder its name. An older one of that name steps aside, and ``sweep`` can bring it back."""
    aside = _temporary(target, "replaced") if os.path.lexists(target) else None
    if aside:
        os.rename(target, aside)
    try:
        os.rename(temporary, target)
    except BaseException:
        if aside and not target.exists():
            os.rename(aside, target)
        raise
    flush(target.parent)
    if aside:
        shutil.rmtree(aside, ignore_errors=True)


def point(link: Path, target: Path) -> None:
    """Make ``link`` (``last``, ``best``) a relative symbolic link to ``target``, atomically.

    Where the file system has no links it becomes a text file with the relative path; ``follow`` reads both.
    """
    where = os.path.relpath(target, link.parent)
    temporary = _temporary(link, "writing")
    try:
        try:
            os.symlink(where, temporary)
        except (OSError, NotImplementedError):
            write_text(temporary, where + "\n")
        os.replace(temporary, link)
        flush(link.parent)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def _temporary(path: Path, state: str) -> Path:
    return path.with_name(f".{path.name}.{state}-{secrets.token_hex(4)}")


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock by which ``sweep`` sees that somebody works in ``folder``; it ends with the process."""
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems cannot lock a folder
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _disk_error(error: BaseException) -> str | None:
    """Return what the disk refused, if that is what ``error`` (or what caused it) is about."""
    cause: BaseException | None = error if isinstance(error, Exception) else None
    while cause is not None:
        # Libraries written in Rust hand the operating system's error on as text.
        named = re.search(r"\(os error (\d+)\)", str(cause))
        code = cause.errno if isinstance(cause, OSError) else int(named[1]) if named else None
        if code in _DISK_ERRORS:
            file = getattr(cause, "filename", None)
            return f"{_DISK_ERRORS[code]} ({file})" if file else _DISK_ERRORS[code]
        cause = cause.__cause__ or cause.__context__
    return str(error) if isinstance(error, OSError) else None


def _failure(target: Path, reason: str, needs: int | None, written: int) -> str:
    parent = target.parent
    previous = find_last(parent)
    if needs is None and previous:
        needs = next(known.size for known in known_checkpoints(parent) if known.folder == previous)
    size = f"about {_amount(needs)}" if needs else f"more than {_amount(written)}"
    try:
        free = f", and {_amount(shutil.disk_usage(parent).free)} are free there now"
    except OSError:
        free = ""
    kept = f"Earlier checkpoints are untouched, the newest is {previous}." if previous else "There is no earlier one."
    then = f"resume with --resume_from_checkpoint {previous}" if previous else "start again"
    return (
        f"{target} could not be written: {reason}. A checkpoint takes {size}{free}. {kept} Make room "
        f"(--save_total_limit keeps fewer checkpoints) or give a writable --output_dir, then {then}."
    )


def _size(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(parent, name)).st_size
    return total


def _amount(size: int) -> str:
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size / 2**10:.1f} KiB"


# Reading


def verify(folder: Path) -> dict[str, Any]:
    """Compare every file with the checkpoint index and return the index: ``facts``, ``files``, ``sequence``.

    ``folder`` may be the link ``last`` or ``best``. Files that the index does not name are not looked at. Raises
    ``CheckpointError`` that names every missing, shorter or altered file; a folder without an index is refused.
    """
    return check(follow(folder) or folder)


def find_last(output_dir: Path, *, since: float = 0.0) -> Path | None:
    """Return the ``checkpoint-N`` that was written last and whose files have their sizes; None where there is none.

    Contents are not read: ``verify`` it before use. Call ``sweep`` first where a run may have been killed. ``since``:
    seconds since 1970, for those written from then on.
    """
    for known in reversed(known_checkpoints(output_dir)):
        if known.complete():
            return known.folder if known.written >= since else None
    return None


def flags_to_continue(checkpoint: Path, *, only_model: bool) -> str:
    """Return what to add to a command that is to go on from a checkpoint, as a shell takes it."""
    only = " --resume_only_model true" if only_model else ""
    return f"--resume_from_checkpoint {shlex.quote(str(checkpoint))}{only}"


def follow(link: Path) -> Path | None:
    """Return the folder that ``last`` or ``best`` leads to; None where it leads nowhere or is no link."""
    try:
        if link.is_symlink():
            where = os.readlink(link)
        elif link.is_file() and link.stat().st_size < 4096:
            where = link.read_text(encoding="utf-8").strip()
        else:
            return None
        found = Path(os.path.normpath(link.parent / where))
        return found if where and found.is_dir() else None
    except (OSError, ValueError):
        return None


# Keeping order


def sweep(output_dir: Path) -> list[Path]:
    """Remove what dead runs left behind in ``output_dir``; return what was removed.

    A folder that a living process is writing is left alone. A checkpoint that had stepped aside for a new one that
    never came gets its name back.
    """
    removed = []
    try:
        entries = sorted(path for path in output_dir.iterdir() if _TEMPORARY.fullmatch(path.name))
    except OSError:
        return []
    for path in entries:
        match = _TEMPORARY.fullmatch(path.name)
        if match is None or _in_use(path):
            continue
        if match["state"] == "replaced" and not (place := path.with_name(match["name"])).exists() and has_index(path):
            with contextlib.suppress(OSError):
                os.rename(path, place)
                flush(output_dir)
                continue
        _delete(path)
        removed.append(path)
    return removed


def prune(output_dir: Path, keep: int, protect: Iterable[Path] = ()) -> list[Path]:
    """Delete the checkpoints written first until ``keep`` are left; return what was deleted.

    What ``last`` and ``best`` lead to, and ``protect``, are counted but never deleted, and folders without a
    checkpoint index are not ours to delete. Safe to be killed: a checkpoint loses its name before its files.
    """
    if keep < 1:
        raise ValueError(f"keep is {keep}: at least one checkpoint has to stay")
    links = (follow(output_dir / name) for name in ("last", "best"))
    kept = {os.path.realpath(path) for path in (*links, *protect) if path}
    checkpoints = [known.folder for known in known_checkpoints(output_dir)]
    doomed = [path for path in checkpoints[:-1] if os.path.realpath(path) not in kept]
    deleted = []
    for path in doomed[: max(0, len(checkpoints) - keep)]:
        aside = _temporary(path, "deleting")
        try:
            os.rename(path, aside)
            flush(output_dir)
        except OSError as error:
            _log.warning("%s could not be deleted (%s); --save_total_limit is exceeded.", path, error)
            continue
        _delete(aside)
        deleted.append(path)
    return deleted


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def _in_use(path: Path) -> bool:
    if path.is_symlink() or not path.is_dir():
        return False
    try:
        if fcntl is not None:
            descriptor = os.open(path, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            finally:
                os.close(descriptor)
            return False
    except BlockingIOError:
        return True
    except OSError:
        pass
    newest = max((p.stat().st_mtime for p in (path, *path.rglob("*")) if p.exists()), default=0.0)
    return time.time() - newest < _LEFT_BEHIND_AFTER
