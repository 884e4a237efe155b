"""Whatever is typed or written in a file: a result, or one sentence and exit code 2. Never a traceback."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from martlet.cli import main

DEMO = str(Path(__file__).parent / "plugins" / "demo.py")
QUICK = settings(max_examples=40, derandomize=True, suppress_health_check=list(HealthCheck))


def outcome(words: list[str]) -> int:
    """Run a command line; check that what is said fits the exit code, and return it."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words)
    said = err.getvalue().strip().splitlines()
    assert code in (0, 2), words
    if code == 2 and "--debug" not in " ".join(words):
        assert said[-1].startswith("error: ") and "Traceback" not in err.getvalue(), words
    return code


FLAGS = [
    "rate",
    "steps",
    "bold",
    "title",
    "names",
    "sizes",
    "extra",
    "limit",
    "color",
    "loss",
    "tuners",
    "chain",
    "set",
]
FIRST = ["config", "external_plugins", "disable_plugins", "strict_plugins", "debug", "ignore_args_error", "log_level"]
VALUES = [
    "",
    "1",
    "-1",
    "1e-5",
    "true",
    "null",
    "[",
    "[1]",
    '["a"]',
    "{",
    "{}",
    '{"a": 1}',
    "a=b",
    "a.b=c",
    "red",
    "::",
]
WORDS = st.one_of(
    st.sampled_from([f"--{name}" for name in [*FLAGS, *FIRST]]),
    st.sampled_from([f"--{name}={value}" for name in [*FLAGS, "log_level"] for value in VALUES]),
    st.sampled_from(
        [*VALUES, "--", "-", "-x", "---", "--=", "--=1", "@x", "%s", "demo", "twice", "steep", "flat+steep"]
    ),
    st.sampled_from(["loss.steep.x=1", "demo.steps=3", "demo.=3", "demo.steps", ".=", "=", "loss..x=1", "demo::steep"]),
    st.text(max_size=5).filter(lambda text: "\0" not in text),
)


@given(st.lists(WORDS, max_size=6))
@example(["--config", ""])
@example(["--external_plugins", ""])
@example(["--disable_plugins", ""])
@example(["--set", "loss.steep.x=1"])
@example(["--loss", ""])
@example(["--chain", "+"])
@example(["--loss", "::"])
@QUICK
def test_no_command_line_ends_in_a_traceback(monkeypatch, tmp_path, words):
    monkeypatch.chdir(tmp_path)
    outcome(["demo", "--external_plugins", DEMO, *words])


@pytest.mark.parametrize(
    "words", [[""], [" "], ["--"], ["-"], ["\n"], ["demo\n"], ["--=x"], ["a b"], [".yaml"], ["-h", "x"]]
)
def test_no_first_word_ends_in_a_traceback(monkeypatch, tmp_path, words):
    monkeypatch.chdir(tmp_path)
    outcome(words)


KEYS = st.sampled_from([*FLAGS, *FIRST, "command", "seed", "demo.steps", "1", "null", "<<"]) | st.text(max_size=4)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(VALUES) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@given(st.dictionaries(KEYS, PLAIN, max_size=3))
@example({"set": "demo.steps=3"})
@example({"set": 5})
@example({"set": [5]})
@example({"config": []})
@example({"command": 5})
@example({"external_plugins": None})
@example({"disable_plugins": {"a": 1}})
@example({"<<": 5})
@QUICK
def test_no_settings_in_a_file_end_in_a_traceback(monkeypatch, tmp_path, values):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "run.yaml"
    file.write_text(json.dumps(values, ensure_ascii=True))
    outcome(["demo", "--external_plugins", DEMO, "--config", str(file)])


@given(st.binary(max_size=20) | st.text("abest:-[]{}&*!?|>'\"\t\n #%@`,012.e+", max_size=20).map(str.encode))
@example(b"? [a]\n: 1\n")
@example(b"a: &x [*x]\n")
@example(b"steps: 1:30\n")
@example(b"seed: 0o7\n")
@QUICK
def test_no_file_ends_in_a_traceback(monkeypatch, tmp_path, content):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "run.yaml"
    file.write_bytes(content)
    outcome(["demo", "--external_plugins", DEMO, "--config", str(file)])


@given(st.dictionaries(st.sampled_from([*FLAGS, "external_plugins", "seed"]), PLAIN, max_size=3))
@example({"external_plugins": 5})
@example({"external_plugins": {"a": 1}})
@example({"external_plugins": "a.py"})
@example({"tuners": ["gone"]})
@QUICK
def test_no_args_json_ends_in_a_traceback(monkeypatch, tmp_path, values):
    monkeypatch.chdir(tmp_path)
    tmp_path.joinpath("args.json").write_text(json.dumps(values))
    outcome(["demo", "--external_plugins", DEMO, "--checkpoint", str(tmp_path), "--load_args"])
