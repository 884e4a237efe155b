"""``plugin.py`` and ``args.py`` are read to list names and flags: they import the standard library and ``martlet``."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

KERNEL = "martlet-kernel"

PROGRAM = """
import importlib, json, sys
import martlet
from martlet import KINDS, Arguments, PluginManager
from martlet.specs import load

package, name = sys.argv[1:]
before = set(sys.modules)
manager = PluginManager(strict=True)
manager.add(name, importlib.import_module(package + ".plugin"))
for kind in KINDS.values():
    manager.specs(kind)
for _, spec in manager.specs(Arguments):
    load(spec.target)
    if spec.resolve:
        load(spec.resolve)
new = {module.partition(".")[0] for module in set(sys.modules) - before}
print(json.dumps(sorted(new - set(sys.stdlib_module_names) - {package, "martlet"})))
"""


def test_listing_it_imports_nothing_else(distribution):
    """In a fresh interpreter: ``plugin.py``, every ``provide_*`` hook, every group of flags and its resolver."""
    if distribution.name == KERNEL:
        pytest.skip("the kernel's own plugin is what is imported before")
    command = [sys.executable, "-c", PROGRAM, distribution.package.name, distribution.plugin]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == []


def test_plugin_and_args_name_no_other_import(distribution):
    allowed = {
        "plugin": set(sys.stdlib_module_names) | {"martlet", distribution.package.name},
        "args": set(sys.stdlib_module_names),
    }
    heavy = [
        f"{distribution.place(file)}:{found.line} imports {found.module}"
        for file in distribution.sources
        if file.stem in allowed
        for found in distribution.imports(file)
        if found.root not in allowed[file.stem]
    ]
    assert not heavy, "\n" + "\n".join(heavy)
