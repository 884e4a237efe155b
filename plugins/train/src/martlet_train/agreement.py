"""Are the processes of a run about to do the same? Compared before anything is loaded, and told line by line if not."""

from __future__ import annotations

import hashlib
import json
import platform
import socket
from importlib import metadata

from martlet import MartletError, Run
from martlet.run import LIBRARIES

from .joining import Meeting

Facts = dict[str, tuple[str, str]]
"""What is compared, by what to call it: ``(value, where it comes from)``."""


def agree(meeting: Meeting, topic: str, mine: Facts, remedy: str) -> None:
    """Return when all processes have the same values; else ``MartletError`` with the lines in which they differ."""
    host = socket.gethostname()
    meeting.store.set(f"{topic}/facts/{meeting.rank}", json.dumps([host, mine]))
    digest = hashlib.sha256(json.dumps({name: value for name, (value, _) in sorted(mine.items())}).encode())
    digests = meeting.exchange(f"{topic}/digest", digest.hexdigest())
    if len(set(digests)) == 1:
        return
    ranks = [digests.index(one) for one in dict.fromkeys(digests)]  # one of each opinion
    told = [json.loads(meeting.read(f"{topic}/facts/{rank}", rank)) for rank in ranks]
    lines = []
    for name in sorted({name for _, facts in told for name in facts}):
        values = [facts.get(name, ("absent", "")) for _, facts in told]
        if len({value for value, _ in values}) > 1:
            for rank, (where, _), (value, origin) in zip(ranks, told, values, strict=True):
                lines.append(f"  rank {rank} on {where}: {name} {value}{f' ({origin})' if origin else ''}")
    raise MartletError("\n".join([f"The processes of this run differ, so it was not started. {remedy}", *lines]))


def agree_on_run(meeting: Meeting, run: Run) -> None:
    """Compare settings, plugins with the contents of their files, components, and versions of libraries."""
    remedy = "Give every process the same flags, environment, plugin files and packages."
    agree(meeting, "run", _run_facts(run), remedy)


def agree_on_rows(meeting: Meeting, fingerprint: str) -> None:
    """Compare the training rows, once they are known."""
    remedy = "Give every process the same data files; a cache of its own has to be of the same files."
    agree(meeting, "rows", {"training rows": (fingerprint[:16], "")}, remedy)


def _run_facts(run: Run) -> Facts:
    """Say what makes this run what it is. Flags marked ``local`` or ``secret`` may differ between machines."""
    facts: Facts = {"command": (run.command, ""), "python": (platform.python_version(), "")}
    for flag, value, origin in run.config:
        if not {"local", "secret"} & {key for key, yes in flag.field.metadata.items() if yes}:
            facts[f"--{flag.name}"] = (json.dumps(value, default=str, sort_keys=True), str(origin))
    record = run.record.facts()
    facts |= {f"--set {name}": (json.dumps(value, default=str), "") for name, value in record["options"].items()}
    for row in record["plugins"]:
        what = row["version"] or f"SHA-256 {row['sha256'][:12]}"
        facts[f"plugin {row['name']}"] = (what, str(row["origin"]))
    for kind, specs in run.config.selections.items():
        facts[f"components {kind}"] = (", ".join(f"{one.plugin}::{one.spec.name}" for one in specs), "")
    for name in LIBRARIES:
        found = next((one.version for one in metadata.distributions(name=name)), "absent")
        facts[f"library {name}"] = (found, "")
    return facts
