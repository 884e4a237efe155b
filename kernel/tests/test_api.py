"""The Python API: native values, our errors, no global state."""

from __future__ import annotations

import dataclasses
import os
import sys

import pytest

import martlet
from martlet import MartletError, UnknownComponent, UsageError

ECHO = """
from dataclasses import dataclass, field
from martlet import Arguments, Command, DataError, hookimpl

@dataclass
class Echo:
    text: str = "nothing"
    \"\"\"What to return.\"\"\"
    thing: object = None

@hookimpl
def provide_arguments():
    yield Arguments("echo", Echo, roles=("echo",))

def fail(run):
    raise DataError("row 3 is empty")

@hookimpl
def provide_commands():
    yield Command("echo", lambda run: run.config[Echo].text, roles=("echo",))
    yield Command("echo twice", lambda run: [run.config[Echo].text] * 2, roles=("echo",))
    yield Command("fail", fail)
    yield Command("exit", lambda run: 3)
"""


@pytest.fixture
def echo(plugin) -> str:
    return plugin("echo", ECHO)


def test_run_returns_what_the_command_returns(echo):
    assert martlet.run("echo", text="a", external_plugins=[echo]) == "a"
    assert martlet.run("echo twice", text="a", external_plugins=[echo]) == ["a", "a"]


def test_an_exit_status_is_returned_like_any_result(echo):
    assert martlet.run("exit", external_plugins=[echo]) == 3


@pytest.mark.parametrize(
    ("command", "settings", "error"),
    [
        ("fail", {}, martlet.DataError),
        ("ecko", {}, UnknownComponent),
        ("echo", {"test": "a"}, UsageError),
        ("echo", {"text": 5}, UsageError),
        ("echo", {"seed": -1}, UsageError),
        ("echo", {"disable_plugins": ["nothing"]}, UsageError),
        ("echo", {"set": ["echo"]}, UsageError),
    ],
)
def test_our_errors_are_raised_and_never_system_exit(echo, command, settings, error):
    with pytest.raises(error) as caught:
        martlet.run(command, external_plugins=[echo], **settings)
    assert isinstance(caught.value, MartletError)


def test_a_missing_plugin_file_is_our_error(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        martlet.run("echo", external_plugins=[str(tmp_path / "gone.py")])


@pytest.mark.parametrize(
    ("name", "nearest"), [("tekst", "text"), ("sed", "seed"), ("external_plugin", "external_plugins")]
)
def test_an_unknown_setting_suggests_the_nearest(echo, name, nearest):
    with pytest.raises(UsageError, match=rf"{name}.*{nearest}"):
        martlet.run("echo", external_plugins=[echo], **{name: "a"})


def test_one_option_needs_no_list(demo):
    assert martlet.run("demo", external_plugins=[demo], set="demo.steps=3")["steps"]["value"] == 3


def test_an_unknown_command_suggests_the_nearest(echo):
    with pytest.raises(UnknownComponent, match=r"'ecko'.*Did you mean echo"):
        martlet.run("ecko", external_plugins=[echo])


def test_the_command_line_of_the_process_is_never_read(echo, monkeypatch, capsys):
    monkeypatch.setattr(
        sys, "argv", ["program", "--text", "hostile", "--bogus", "--help", "--external_plugins", "/gone.py"]
    )
    assert martlet.run("echo", external_plugins=[echo]) == "nothing"
    assert martlet.prepare("echo", external_plugins=[echo]).config.value("text") == "nothing"
    assert capsys.readouterr() == ("", "")


def test_the_environment_is_as_it_was_before(echo):
    before = dict(os.environ)
    martlet.run("echo", external_plugins=[echo])
    with pytest.raises(MartletError):
        martlet.run("fail", external_plugins=[echo])
    assert dict(os.environ) == before


def test_a_plugin_of_one_run_is_not_there_in_the_next(echo):
    martlet.run("echo", external_plugins=[echo])
    with pytest.raises(UnknownComponent):
        martlet.run("echo")


def test_asking_for_a_component_or_arguments_leaves_the_environment_alone(echo, plugin):
    """Two cells of a notebook with two versions of one file, in two folders."""
    other = plugin("echo", ECHO.replace("nothing", "other"), "elsewhere")
    for path, text in ((echo, "nothing"), (other, "other")):
        assert martlet.run(martlet.arguments("echo", external_plugins=[path])(external_plugins=[path])) == text


CHILD = """
import subprocess, sys
from martlet import Command, hookimpl

def main(run):
    code = "import martlet.external.child as child; print(child.__name__)"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout

@hookimpl
def provide_commands():
    yield Command("child", main)
"""


def test_children_of_a_run_see_its_plugins(plugin):
    assert martlet.run("child", external_plugins=[plugin("child", CHILD)]) == "martlet.external.child\n"


# Typed arguments


def test_arguments_have_every_flag_as_a_typed_documented_field(echo):
    cls = martlet.arguments("echo", external_plugins=[echo])
    fields = {item.name: item for item in dataclasses.fields(cls)}
    assert cls.__name__ == "EchoArguments"
    assert fields["text"].type is str and fields["seed"].type is int
    assert {"text", "thing", "seed", "config", "external_plugins", "log_level"} <= set(fields)
    assert "text: What to return." in cls.__doc__


def test_arguments_of_a_two_word_command_have_a_name(echo):
    assert martlet.arguments("echo twice", external_plugins=[echo]).__name__ == "EchoTwiceArguments"


def test_run_takes_arguments_and_only_what_was_given_counts(demo):
    cls = martlet.arguments("demo", external_plugins=[demo])
    found = martlet.run(cls(steps=3, names=["a"], external_plugins=[demo]))
    assert found["steps"] == {"value": 3, "source": "code", "detail": ""}
    assert found["names"]["value"] == ["a"]
    assert found["label"]["source"] == "command"


def test_none_is_a_value_that_can_be_given(demo):
    cls = martlet.arguments("demo", external_plugins=[demo])
    assert martlet.run(cls(title=None, external_plugins=[demo]))["title"]["source"] == "code"


def test_further_settings_win_over_the_object(demo):
    cls = martlet.arguments("demo", external_plugins=[demo])
    assert martlet.run(cls(steps=3), steps=4, external_plugins=[demo])["steps"]["value"] == 4


def test_arguments_accept_no_positional_and_no_unknown_names(echo):
    cls = martlet.arguments("echo", external_plugins=[echo])
    with pytest.raises((TypeError, MartletError), match="tekst"):
        cls(tekst="a")
    with pytest.raises((TypeError, MartletError)):
        cls("a")


def test_arguments_of_an_unknown_command_suggest_the_nearest(echo):
    with pytest.raises(UnknownComponent, match="Did you mean echo"):
        martlet.arguments("ecko", external_plugins=[echo])


def test_code_and_command_line_resolve_to_equal_values(cli, demo):
    code = martlet.run(
        "demo", external_plugins=[demo], steps=3, extra={"a": [1.5]}, names=["a", "b"], maybe=True, limit=4
    )
    words = ["--steps", 3, "--extra", '{"a": [1.5]}', "--names", "a", "b", "--maybe", "--limit", 4]
    line = cli("demo", "--external_plugins", demo, *words).json
    assert {name: row["value"] for name, row in code.items()} == {name: row["value"] for name, row in line.items()}
    differing = {name for name in code if code[name]["source"] != line[name]["source"]}
    assert differing == {"steps", "extra", "names", "maybe", "limit"}


def test_every_public_name_exists():
    assert all(hasattr(martlet, name) for name in martlet.__all__)
    assert {"run", "prepare", "get", "arguments", "hookimpl", "PluginManager", "MartletError"} <= set(martlet.__all__)
