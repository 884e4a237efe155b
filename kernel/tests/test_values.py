"""What a flag accepts: types, ranges, choices; the same from every source."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import martlet
from martlet import UsageError
from martlet.cli import main

DEMO = str(Path(__file__).parent / "plugins" / "demo.py")


@pytest.fixture
def value(cli):
    """Run ``martlet demo`` with these words and return the value of one flag."""

    def call(flag: str, *words: str) -> Any:
        result = cli("demo", "--external_plugins", DEMO, *words)
        assert result.code == 0, result.err
        return result.json[flag]["value"]

    return call


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--bold"], True),
        (["--bold", "true"], True),
        (["--bold", "True"], True),
        (["--bold=true"], True),
        (["--bold", "false"], False),
        (["--maybe"], True),
        (["--maybe", "false"], False),
        (["--maybe", "null"], None),
        (["--title", "null"], None),
        (["--title", "None"], None),
        (["--title", ""], ""),
        (["--title", "two words"], "two words"),
        (["--title=--looks like a flag"], "--looks like a flag"),
        (["--label", "5"], "5"),
        (["--label", "null"], "null"),
        (["--steps", "7"], 7),
        (["--rate", "1e-5"], 1e-5),
        (["--rate", "3"], 3.0),
        (["--shift", "-0.5"], -0.5),
        (["--shift", "-2"], -2.0),
        (["--shift", "-1e-5"], -1e-5),
        (["--shift=-1e-5"], -1e-5),
        (["--names"], []),
        (["--names", "a"], ["a"]),
        (["--names", "a", "b c"], ["a", "b c"]),
        (["--names", '["a", "b c"]'], ["a", "b c"]),
        (["--names", "1", "2"], ["1", "2"]),
        (["--sizes", "1", "2"], [1, 2]),
        (["--sizes", "[1, 2]"], [1, 2]),
        (["--sizes", "null"], None),
        (["--extra", '{"a": [1, {"b": null}]}'], {"a": [1, {"b": None}]}),
        (["--extra", "{}"], {}),
        (["--extra", "null"], None),
        (["--limit", "3"], 3),
        (["--limit", "some"], "some"),
        (["--color", "green"], "green"),
        (["--colors", "green", "red"], ["green", "red"]),
        (["--steps", "1", "--steps", "2"], 2),
    ],
)
def test_words_of_the_command_line(value, words, expected):
    found = value(words[0].lstrip("-").partition("=")[0], *words)
    assert found == expected
    assert type(found) is type(expected)


def test_a_bare_switch_does_not_swallow_the_next_flag(value):
    assert value("steps", "--bold", "--steps", "3") == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--steps", "many"], ["--steps", "a whole number", "'many'"]),
        (["--steps", "1.5"], ["--steps", "a whole number"]),
        (["--steps", ""], ["--steps", "a whole number"]),
        (["--steps", "0"], ["--steps", "0", "greater than 0"]),
        (["--rate", "-1"], ["--rate", "at least 0"]),
        (["--rate", "10"], ["--rate", "less than 10"]),
        (["--rate", "nan"], ["--rate", "nan"]),
        (["--rate", "fast"], ["--rate", "a number"]),
        (["--bold", "perhaps"], ["--bold", "true or false"]),
        (["--sizes", "1", "b"], ["--sizes", "a list of numbers"]),
        (["--extra", "{a: 1}"], ["--extra", "JSON", "character"]),
        (["--extra", "words"], ["--extra", "a JSON object"]),
        (["--extra", "[1]"], ["--extra", "a JSON object"]),
        (["--color", "gren"], ["--color", "Did you mean green?", "red"]),
        (["--colors", "red", "gren"], ["--colors", "green"]),
        (["--color", "blue"], ["'blue' is not one of red, green"]),
        (["--steps"], ["--steps"]),
        (["--title"], ["--title"]),
        (["--steps", "1", "2"], ["2"]),
    ],
)
def test_wrong_words_are_named(refused, words, said):
    message = refused("demo", "--external_plugins", DEMO, *words)
    assert all(part in message for part in said), message
    assert "pydantic" not in message


def test_the_choices_are_listed_once(refused):
    assert refused("demo", "--external_plugins", DEMO, "--color", "blue").count("green") == 1


def test_a_dict_may_be_written_as_python_writes_it(value):
    assert value("extra", "--extra", "{'a': {0: True}}") == {"a": {"0": True}}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("steps: many", "a whole number"),
        ("steps: true", "a whole number"),
        ("rate: true", "a number"),
        ("bold: 2", "true or false"),
        ("label: 5", "text"),
        ("label: no", "text"),
        ("names: {a: 1}", "a list of words"),
        ("names: [1, 2]", "a list of words"),
        ("sizes: [1, true]", "a list of numbers"),
        ("extra: [1]", "a JSON object"),
        ("steps: 0", "greater than 0"),
        ("color: blue", "green"),
        ("steps:", "a whole number"),
    ],
)
def test_wrong_lines_of_a_file_are_named_with_file_and_line(refused, tmp_path, line, said):
    file = tmp_path / "run.yaml"
    file.write_text(f"seed: 1\n{line}\n")
    message = refused("demo", "--external_plugins", DEMO, "--config", file)
    assert f"{file}:2" in message and said in message


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("rate: 1e-5", 1e-5),
        ("rate: 5e-1", 0.5),
        ("rate: 1", 1.0),
        ("bold: true", True),
        ("title:", None),
        ("title: null", None),
        ("title: two words", "two words"),
        ('label: "5"', "5"),
        ("names: a", ["a"]),
        ("names: [a, b]", ["a", "b"]),
        ("names:\n  - a\n  - b", ["a", "b"]),
        ("sizes: [1, 2]", [1, 2]),
        ("extra: {a: 1, b: [x, null]}", {"a": 1, "b": ["x", None]}),
        ("extra:\n  min_lr: 1e-5\n  deep: {lr: [2E-4]}", {"min_lr": 1e-5, "deep": {"lr": [2e-4]}}),
        ("extra: '{\"a\": 1}'", {"a": 1}),
        ("limit: 3", 3),
        ("limit: some", "some"),
    ],
)
def test_lines_of_a_file(value, tmp_path, line, expected):
    file = tmp_path / "run.yaml"
    file.write_text(line + "\n")
    found = value(line.partition(":")[0], "--config", str(file))
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"title": Path("/tmp/model")}, "/tmp/model"),
        ({"names": ("a", "b")}, ["a", "b"]),
        ({"names": "a"}, ["a"]),
        ({"places": [Path("/rows.jsonl")]}, ["/rows.jsonl"]),
        ({"rate": 1}, 1.0),
        ({"title": None}, None),
        ({"extra": {"a": object}}, {"a": object}),
        ({"limit": 3}, 3),
    ],
)
def test_native_values_of_the_python_api(settings, expected):
    run = martlet.prepare("demo", external_plugins=[DEMO], **settings)
    assert run.config.value(next(iter(settings))) == expected


@pytest.mark.parametrize(
    "settings", [{"steps": "many"}, {"steps": True}, {"steps": 0}, {"color": "blue"}, {"names": 5}, {"title": 5}]
)
def test_wrong_native_values_are_named(settings):
    name, value = next(iter(settings.items()))
    with pytest.raises(UsageError, match=name) as caught:
        martlet.prepare("demo", external_plugins=[DEMO], **settings)
    assert str(value) in str(caught.value)


# A value means the same wherever it is written

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=12)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
VALUES = st.one_of(
    st.tuples(st.just("shift"), st.floats(allow_nan=False, allow_infinity=False)),
    st.tuples(st.just("rate"), st.floats(0, 10, exclude_max=True)),
    st.tuples(st.just("steps"), st.integers(1, 10**9)),
    st.tuples(st.just("bold"), st.booleans()),
    st.tuples(st.just("maybe"), st.none() | st.booleans()),
    st.tuples(st.just("label"), TEXT),
    st.tuples(st.just("title"), st.none() | TEXT.filter(lambda text: text not in ("None", "null"))),
    st.tuples(st.just("names"), st.lists(TEXT, max_size=4)),
    st.tuples(st.just("sizes"), st.none() | st.lists(st.integers(), max_size=4)),
    st.tuples(st.just("extra"), st.none() | st.dictionaries(TEXT, JSON, max_size=3)),
    st.tuples(st.just("limit"), st.integers()),
    st.tuples(st.just("limit"), st.sampled_from(["all", "some", "10 %"])),
    st.tuples(st.just("color"), st.sampled_from(["red", "green"])),
)


def words_for(name: str, value: Any) -> list[str]:
    """Write a value as a person would on the command line."""
    if value is None:
        return [f"--{name}=null"]
    if isinstance(value, list | dict | bool):
        return [f"--{name}={json.dumps(value)}"]
    return [f"--{name}={value if isinstance(value, str) else repr(value)}"]


def everywhere(name: str, value: Any, folder: Path) -> list[Any]:
    """Return a flag's value as code, a YAML file and the command line give it."""
    found = [martlet.prepare("demo", external_plugins=[DEMO], **{name: value}).config.value(name)]
    file = folder / "run.yaml"
    file.write_text(yaml.safe_dump({name: value}, allow_unicode=True), encoding="utf-8")
    for words in (["--config", str(file)], words_for(name, value)):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            assert main(["demo", *words, "--external_plugins", DEMO]) == 0, words
        found.append(json.loads(out.getvalue())[name]["value"])
    return found


@given(VALUES)
@example(("shift", 1e-5))
@example(("shift", -0.0))
@example(("names", ["[a]"]))
@example(("names", ["-x", "--y"]))
@example(("label", "yes"))
@example(("label", "--rate 5"))
@example(("label", "1:30"))
@example(("title", "2024-01-01"))
@example(("extra", {"no": 1e-7, "": [None, ""]}))
@settings(max_examples=30, derandomize=True, suppress_health_check=list(HealthCheck))
def test_a_value_is_the_same_from_code_from_a_file_and_from_the_command_line(tmp_path, pair):
    name, value = pair
    assert everywhere(name, value, tmp_path) == [value] * 3
