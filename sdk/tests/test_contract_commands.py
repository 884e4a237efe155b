"""Commands and argument groups with one fault each fail the check that is about it."""

from __future__ import annotations

import pytest

NAME = 'name: list[str] = field(default_factory=list)\n    """Whom to greet."""'
TIMES = 'field(default=None, metadata={"ge": 1})'
GROUP = 'Arguments("greet", GreetArguments, roles=("greet",), resolve=choose)'
ARGUMENTS = [
    ("@dataclass\nclass", "class", "fields", "GreetArguments is not a dataclass"),
    (NAME, 'name: list[str]\n    """Whom to greet."""', "fields", "GreetArguments.name has no default"),
    ("    times: int", "    timesEach: int", "fields", "write flags in lower case"),
    (NAME, 'name: "Names" = ()\n    """Whom to greet."""', "fields", "cannot be read (NameError"),
    (GROUP, 'Arguments("greet", GreetArguments)', "roles", "name the roles"),
    ('    """How often."""\n', "", "help", "GreetArguments.times has no help"),
    ('metadata={"ge": 1}', 'metadata={"min": 1}', "metadata", "unknown metadata 'min'"),
    ('"component": "losses"', '"component": "loses"', "metadata", "there is no kind 'loses'. Did you mean losses"),
    (
        'field(default=None, metadata={"ge": 1})',
        'field(default=0, metadata={"ge": 1})',
        "defaults",
        "0 is out of range",
    ),
    ('default="warm"', 'default="hot"', "defaults", "'hot' is not one of warm, cool"),
    (
        "times: int | None = field(default=None",
        'times: int | None = field(default="x"',
        "defaults",
        "GreetArguments.times",
    ),
    ("extra: dict[str, Any] | None", "extra: type(lambda: 0) | None", "schema", "no JSON Schema can be made"),
    ("def choose(config):", "def choose():", "resolve", "resolve(config)"),
]


@pytest.mark.parametrize(("old", "new", "check", "said"), ARGUMENTS, ids=[row[2] for row in ARGUMENTS])
def test_arguments(old, new, check, said, fails):
    fails("command", old, new, f"arguments:greet:{check}", said)


def test_a_group_in_a_heavy_module_fails(fails, tmp_path, monkeypatch):
    group = 'from dataclasses import dataclass\n\n@dataclass\nclass Args:\n    name: str = ""\n    """A name."""\n'
    module = "import numpy\n" + group
    (tmp_path / "heavy_arguments.py").write_text(module)
    monkeypatch.syspath_prepend(str(tmp_path))
    other = 'Arguments("greet", "heavy_arguments:Args", roles=("greet",))'
    fails("command", GROUP, other, "arguments:greet:light", "heavy_arguments imports numpy")


COMMANDS = [
    ("def greet(run):", "def greet():", "takes_a_run", "its target cannot be called with the run"),
    ("def plan(run):", "def plan(run, words):", "plan", "its plan cannot be called with the run"),
    ('summary="Say hello."', 'summary=""', "summary", "it has no summary"),
    ('summary="Say hello."', 'summary="Say\\nhello."', "summary", "more than one line"),
    ('roles=("greet",), positional', 'roles=("nobody",), positional', "roles", "has the role ['nobody']"),
    ('positional="name"', 'positional="names"', "roles", "positional='names' is no flag of its roles"),
    ('positional="name"', 'positional="name", raw=True', "roles", "raw=True leaves its words unparsed"),
]


@pytest.mark.parametrize(("old", "new", "check", "said"), COMMANDS, ids=[row[2] for row in COMMANDS])
def test_command(old, new, check, said, fails):
    fails("command", old, new, f"commands:greet:{check}", said)
