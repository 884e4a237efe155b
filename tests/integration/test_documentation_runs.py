"""The pages that tell a reader to type something are typed here, the README among them."""

from __future__ import annotations

import glob
import io
import re
import runpy
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_jobs import Done

from martlet_sdk import preferences

ROOT = Path(__file__).parents[2]
PAGES = [
    "docs/how-to/reward.md",
    "docs/how-to/loss.md",
    "docs/how-to/dataset.md",
    "docs/how-to/callback.md",
    "docs/how-to/template.md",
    "docs/how-to/text.md",
    "docs/how-to/tuner.md",
    "docs/how-to/configure.md",
    "docs/how-to/talk.md",
    "docs/how-to/evaluate.md",
    "docs/how-to/packing.md",
    "docs/how-to/reference-model.md",
    "docs/how-to/cached-dataset.md",
    "docs/how-to/streaming.md",
    "docs/how-to/loss-scale.md",
    "docs/how-to/check-data.md",
    "docs/how-to/agents.md",
    "docs/algorithms/index.md",
    "docs/algorithms/dpo.md",
    "docs/algorithms/kto.md",
    "docs/algorithms/orpo.md",
    "docs/algorithms/cpo.md",
    "docs/algorithms/simpo.md",
    "docs/algorithms/rm.md",
    "docs/plugins/smallest.md",
    "docs/plugins/package.md",
    "docs/tutorials/first-fine-tune.md",
    "README.md",
]
FENCE = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ROWS = '{"query": "Which bird never lands?", "response": "The martlet."}\n{"query": "Say two", "response": "2"}\n'
PAIRS = "".join(f'{line[:-1]}, "rejected_response": "No idea"}}\n' for line in ROWS.splitlines())
SLOW = ("martlet quickstart",)
"""Commands with a test of their own."""
COMMENT = re.compile(r"(^|\s)#.*")
RUN = re.compile(r"v0-\d{8}-\d{6}")


@pytest.fixture
def desk(tmp_path, tiny_model, monkeypatch):
    """Return the working folder of a reader, with a model under every name that the pages use."""
    (tmp_path / "Qwen").mkdir()
    (tmp_path / "martlet-quickstart/full/v0-20260101-120000").mkdir(parents=True)
    for name in ("model", "base", "Qwen/Qwen3-0.6B", "martlet-quickstart/full/v0-20260101-120000/last"):
        (tmp_path / name).symlink_to(tiny_model)
    (tmp_path / "rows.jsonl").write_text(ROWS, encoding="utf-8")
    (tmp_path / "pairs.jsonl").write_text(PAIRS, encoding="utf-8")
    preferences.write(tmp_path / "preferences", count=16)  # as the page does with python -m, but few
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "cache"))
    return tmp_path


def commands(text: str) -> list[str]:
    lines = [" ".join(shlex.split(COMMENT.sub("", line))) for line in text.splitlines()]
    return [line for line in lines if re.match(r"([A-Z_]+=\S+ )*martlet ", line) and line not in SLOW]


def type_line(line: str, typed: Callable[..., Done], monkeypatch: pytest.MonkeyPatch) -> Done:
    """Do what a shell does with `NAME=value martlet ... * ... < FILE`."""
    before, _, rest = line.partition("martlet ")
    line, _, asked = rest.partition(" < ")
    words = [found for word in shlex.split(line) for found in (sorted(glob.glob(word)) if "*" in word else [word])]
    with monkeypatch.context() as shell:
        for setting in before.split():
            shell.setenv(*setting.split("=", 1))
        shell.setattr("sys.stdin", io.StringIO(Path(asked).read_text(encoding="utf-8") if asked else ""))
        return typed(*words)


@pytest.mark.parametrize("page", PAGES)
def test_commands_of_a_page_work(page, desk, typed, monkeypatch):
    count = 0
    for language, title, text in FENCE.findall((ROOT / page).read_text(encoding="utf-8")):
        if title:
            (desk / title).write_text(text, encoding="utf-8")
        for line in commands(text) if language == "bash" else ():
            made = next((path.name for path in sorted(desk.glob("output/*/v0-*"))), "")
            done = type_line(RUN.sub(made, line) if made else line, typed, monkeypatch)
            assert done.code == 0, f"{line}\n{done.out[-2000:]}\n{done.err[-2000:]}"
            count += 1
    assert count


def test_the_python_of_the_readme_runs(desk, capsys):
    blocks = [text for language, _, text in FENCE.findall((ROOT / "README.md").read_text()) if language == "python"]
    (block,) = [text for text in blocks if "martlet.run(" in text]
    (desk / "job.py").write_text(block.replace("max_steps=100", "max_steps=2"), encoding="utf-8")
    runpy.run_path(str(desk / "job.py"))
    assert "checkpoint-2 {" in capsys.readouterr().out
