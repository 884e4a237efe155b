"""Asking questions imports no heavy library, whatever is installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

HEAVY = ("torch", "numpy", "transformers", "datasets", "peft", "accelerate", "pandas", "pyarrow")

PROGRAM = """
import contextlib, io, json, sys
from martlet.cli import main
out = io.StringIO()
with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
    code = main(sys.argv[1:])
print(json.dumps({"code": code, "modules": sorted(sys.modules), "out": out.getvalue()}))
"""


def asked(*words: str) -> dict:
    """Run a command line in a fresh interpreter, with every plugin of this environment."""
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words], capture_output=True, text=True, check=True, env=os.environ
    )
    return json.loads(result.stdout)


def test_the_list_of_commands_imports_neither_torch_nor_pydantic():
    found = asked("--help")
    assert found["code"] == 0
    assert [name for name in (*HEAVY, "pydantic", "yaml") if name in found["modules"]] == []


def test_the_help_of_every_command_imports_no_heavy_library():
    program = (
        "import sys, martlet\nfrom martlet.cli import main\n"
        "manager = martlet.PluginManager()\nmanager.load_installed()\n"
        "names = [spec.name for _, spec in manager.specs(martlet.Command)]\n"
        "codes = [main([*name.split(), '--help', 'all']) for name in names]\n"
        f"print('heavy:', [name for name in {HEAVY} if name in sys.modules])\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=os.environ)
    assert result.stdout.splitlines()[-1] == "heavy: []"


def test_a_misspelt_flag_is_refused_before_a_heavy_library_is_imported(demo):
    found = asked("demo", "--external_plugins", demo, "--stesp", "3")
    assert found["code"] == 2
    assert [name for name in HEAVY if name in found["modules"]] == []


def test_importing_martlet_loads_no_plugin_and_no_heavy_library():
    program = (
        "import sys, martlet\n"
        "print([m for m in sys.modules if m.startswith('martlet_')], [m for m in sys.argv[1:] if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, *HEAVY, "pydantic", "yaml"], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[] []"


@pytest.mark.parametrize(
    "words", [["plugin", "list", "--json"], ["plugin", "list", "--kind", "losses"], ["schema", "demo"]]
)
def test_listing_imports_no_heavy_library(words, demo):
    pytest.importorskip("martlet_sdk")
    found = asked(*words, "--external_plugins", demo)
    assert found["code"] == 0, found["out"]
    assert [name for name in HEAVY if name in found["modules"]] == []
