"""The pages of docs/ that tell a reader to type something are typed here."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from martlet_sdk.tiny import save_tiny_model

DOCS = Path(__file__).parents[2] / "docs"
PAGES = [
    "how-to/reward.md",
    "how-to/loss.md",
    "how-to/dataset.md",
    "plugins/smallest.md",
    "tutorials/first-fine-tune.md",
]
FENCE = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ROWS = '{"query": "Which bird never lands?", "response": "The martlet."}\n{"query": "Say two", "response": "2"}\n'
SLOW = ("martlet quickstart",)
"""Commands with a test of their own."""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("documentation") / "model")


@pytest.mark.parametrize("page", PAGES)
def test_commands_of_a_page_work(page, model, tmp_path):
    (tmp_path / "model").symlink_to(model)
    (tmp_path / "rows.jsonl").write_text(ROWS, encoding="utf-8")
    typed = 0
    for language, title, text in FENCE.findall((DOCS / page).read_text(encoding="utf-8")):
        if title:
            (tmp_path / title).write_text(text, encoding="utf-8")
        elif language == "bash":
            for line in filter(None, text.splitlines()):
                if line not in SLOW:
                    type_in(line, tmp_path)
                    typed += 1
    assert typed


def type_in(line: str, folder: Path) -> None:
    words = shlex.split(line, comments=True)
    words[0] = str(Path(sys.executable).with_name(words[0]))
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=300, env=environment, check=False)
    assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
