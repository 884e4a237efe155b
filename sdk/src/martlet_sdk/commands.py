"""``martlet plugin new`` and ``martlet plugin check``."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path

from martlet import Run, UsageError
from martlet.manager import kinds

from .args import CheckArguments, NewArguments
from .contract import Result, check_plugin
from .scaffold import SCAFFOLDS, scaffold, use


def new(run: Run) -> list[Path]:
    """Write a plugin, say how to check and use it, and return its files."""
    chosen = run.config[NewArguments]
    if len(chosen.what) != 2:
        known = ", ".join(SCAFFOLDS)
        raise UsageError(
            f"plugin new takes a kind and a name, such as `martlet plugin new loss focal`. Kinds: {known}."
        )
    kind, name = chosen.what
    folder = Path(chosen.folder).expanduser()
    files = scaffold(kind, name, folder, package=chosen.package, manager=run.manager)
    print("Wrote")
    for path in files:
        print(f"  {os.path.relpath(path)}")
    if chosen.package:
        root = os.path.relpath(folder / f"martlet-{name.replace('_', '-')}")
        print(f"Install it   pip install -e {root}\nCheck it     martlet plugin check {name}")
    else:
        print(f"Check it     martlet plugin check {os.path.relpath(files[0])}")
    print(f"Use it       {use(kinds(kind.replace('-', '_')).label, name, None if chosen.package else files[0])}")
    return files


def check(run: Run) -> int:
    """Run the contract kit on plugins; return 0 when nothing failed, else 1."""
    chosen = run.config[CheckArguments]
    if not chosen.plugins:
        raise UsageError(
            "plugin check takes a .py file, a package folder, a module or the name of an installed plugin."
        )
    failed = 0
    for plugin in chosen.plugins:
        counts = {"passed": 0, "failed": 0, "skipped": 0}
        results = check_plugin(plugin)
        while (result := _next(results)) is not None:
            counts[result.outcome] += 1
            _show(plugin, result, chosen.json)
        failed += counts["failed"]
        if not chosen.json:
            print(f"{plugin}: {', '.join(f'{count} {outcome}' for outcome, count in counts.items())}")
    return 1 if failed else 0


def _next(results: Iterator[Result]) -> Result | None:
    """Make the next check. What the plugin prints goes to stderr: stdout is for results."""
    with redirect_stdout(sys.stderr):
        return next(results, None)


def _show(plugin: str, result: Result, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"plugin": plugin, **dataclasses.asdict(result)}, ensure_ascii=False), flush=True)
    else:
        print(result, flush=True)
