"""A run: its folder, its record, what ends it, the settings it hands out."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

import martlet
from martlet import UsageError


@pytest.fixture
def record(demo, tmp_path):
    """Run the demo command into a folder and return its run.json."""

    def call(*more: str, **settings):
        folder = tmp_path / "out"
        martlet.run("demo", external_plugins=[demo, *more], folder=str(folder), **settings)
        return json.loads((folder / "run.json").read_text())

    return call


def test_the_record_says_what_was_used_and_where_each_value_came_from(record, demo):
    found = record(loss="steep", steps=3)
    assert found["command"] == "demo"
    assert found["settings"]["steps"] == {"value": 3, "origin": "code"}
    assert found["settings"]["rate"] == {"value": 9.0, "origin": "component (loss steep)"}
    assert found["settings"]["picked"] == {"value": 6, "origin": "chosen (twice the steps)"}
    assert [(row["kind"], row["name"], row["plugin"]) for row in found["components"]] == [
        ("losses", "flat", "demo"),
        ("losses", "steep", "demo"),
    ]
    assert found["python"] and found["platform"] and found["started"] and found["format"] == 1


def test_an_external_file_is_recorded_with_its_sum(record, demo):
    row = next(row for row in record()["plugins"] if row["name"] == "demo")
    assert row["sha256"] == hashlib.sha256(Path(demo).read_bytes()).hexdigest()
    assert row["origin"] == demo


def test_the_sum_of_a_package_changes_with_any_of_its_modules(plugin, demo):
    plugin("pack/more.py", "A = 1\n")
    folder = str(Path(plugin("pack/__init__.py", DICE)).parent)
    sums = []
    for text in ("A = 1\n", "A = 2\n"):
        plugin("pack/more.py", text)
        sums.append(martlet.prepare("demo", external_plugins=[demo, folder]).manager.plugins["pack"].sha256)
    assert len(set(sums)) == 2 and all(len(text) == 64 for text in sums)


def test_versions_of_installed_plugins_are_recorded(site, record):
    site.install(
        "steeper",
        "from martlet import Loss, hookimpl\n@hookimpl\ndef provide_losses():\n    yield Loss('s', len)\n",
        version="1.4",
    )
    row = next(row for row in record(loss="s")["plugins"] if row["name"] == "steeper")
    assert (row["origin"], row["version"]) == ("acme-steeper", "1.4")


def test_versions_of_libraries_are_recorded(record):
    libraries = record()["libraries"]
    assert all(isinstance(text, str) and text for text in libraries.values())


def test_args_json_holds_the_values_alone(record, tmp_path):
    record(steps=3, names=["a"])
    values = json.loads((tmp_path / "out" / "args.json").read_text())
    assert values["steps"] == 3 and values["names"] == ["a"] and values["label"] == "from the command"


def test_args_json_restores_the_same_settings(record, demo, tmp_path):
    record(steps=3, extra={"a": [1, None]}, maybe=True, limit=5, loss="steep", names=["a", "b"])
    run = martlet.prepare("demo", external_plugins=[demo], checkpoint=str(tmp_path / "out"), load_args=True)
    recorded = json.loads((tmp_path / "out" / "args.json").read_text())
    for flag, value, _ in run.config:
        if flag.group.name == "demo" and flag.name not in ("checkpoint", "key"):
            assert value == recorded[flag.name], flag.name


def test_options_of_a_component_are_recorded(record, plugin):
    source = "from martlet import Loss, hookimpl\nclass S:\n    def __init__(self, options):\n        pass\n"
    scaled = plugin("scales", source + "@hookimpl\ndef provide_losses():\n    yield Loss('scaled', S)\n")
    assert "loss.scaled.scale" in json.dumps(record(scaled, loss="scaled", set=["loss.scaled.scale=2.5"]))


def test_a_note_and_a_warning_are_kept(demo, tmp_path, caplog):
    run = martlet.prepare("demo", external_plugins=[demo])
    run.note("before", 1)
    run.open(tmp_path / "out")
    run.note("rows", {"read": 3})
    run.warn("mind the gap")
    run.warn("mind the gap")
    found = json.loads((tmp_path / "out" / "run.json").read_text())
    assert found["notes"] == {"before": 1, "rows": {"read": 3}}
    assert found["warnings"] == ["mind the gap"]
    assert caplog.messages.count("mind the gap") == 1


def test_open_sets_the_folder_and_makes_its_parents(demo, tmp_path):
    run = martlet.prepare("demo", external_plugins=[demo])
    assert run.folder is None
    run.open(tmp_path / "a" / "b")
    assert run.folder == tmp_path / "a" / "b"
    assert sorted(path.name for path in run.folder.iterdir()) == ["args.json", "run.json"]


def test_only_the_first_rank_writes(demo, tmp_path, monkeypatch):
    for name, number in {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, number)
    run = martlet.prepare("demo", external_plugins=[demo])
    run.open(tmp_path / "out")
    assert (run.process.rank, run.process.world_size, run.process.kind) == (1, 2, "rank")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_that_cannot_be_written_is_refused(refused, demo, tmp_path):
    tmp_path.joinpath("file").write_text("")
    said = refused("demo", "--external_plugins", demo, "--folder", tmp_path / "file" / "out")
    assert str(tmp_path / "file" / "out") in said and "cannot be written" in said


# Endings

ENDING = """
from pathlib import Path
from martlet import Command, DataError, hookimpl

def main(run):
    run.open(Path({folder!r}))
    {end}

@hookimpl
def provide_commands():
    yield Command("end", main)
"""


@pytest.mark.parametrize(
    ("end", "code", "outcome"),
    [
        ("return None", 0, "completed"),
        ("return 3", 3, "completed"),
        ("return {'a': 1}", 0, "completed"),
        ("raise DataError('row 3 is empty')", 1, "DataError: row 3 is empty"),
        ("raise KeyboardInterrupt", 130, "KeyboardInterrupt"),
    ],
)
def test_what_ended_the_run_is_recorded(cli, plugin, tmp_path, end, code, outcome):
    folder = tmp_path / "out"
    path = plugin("ending", ENDING.format(folder=str(folder), end=end))
    assert cli("end", "--external_plugins", path).code == code
    ended = json.loads((folder / "run.json").read_text())["ended"]
    assert ended["outcome"].startswith(outcome) and ended["at"]


def test_an_unexpected_error_is_recorded_and_reaches_the_caller_unchanged(plugin, tmp_path):
    path = plugin("ending", ENDING.format(folder=str(tmp_path / "out"), end="raise ZeroDivisionError('by zero')"))
    with pytest.raises(ZeroDivisionError, match="by zero"):
        martlet.run("end", external_plugins=[path])
    assert json.loads((tmp_path / "out" / "run.json").read_text())["ended"]["outcome"] == "ZeroDivisionError: by zero"


DICE = """
import random
from martlet import Command, hookimpl

@hookimpl
def provide_commands():
    yield Command('dice', lambda run: random.random())
"""


def test_the_random_numbers_of_a_run_follow_its_seed(plugin):
    path = plugin("dice", DICE)
    rolls = [martlet.run("dice", external_plugins=[path], seed=seed) for seed in (1, 1, 2)]
    assert rolls[0] == rolls[1] != rolls[2]


def test_nothing_of_a_half_written_record_is_left(record, tmp_path):
    record()
    assert [path.name for path in (tmp_path / "out").iterdir() if path.name.startswith(".")] == []


# Configuration as a component sees it


def test_a_group_that_the_command_does_not_take_is_absent(plugin, demo):
    run = martlet.prepare(external_plugins=[demo])
    group = __import__("sys").modules["martlet.external.demo"].Demo
    assert group not in run.config
    with pytest.raises(KeyError, match="Demo"):
        run.config[group]


def test_roles_make_a_session_without_a_command(demo):
    run = martlet.prepare(roles=("demo",), external_plugins=[demo], steps=3)
    assert run.config.value("steps") == 3


def test_an_unknown_setting_of_a_session_is_refused(demo):
    with pytest.raises(UsageError, match="steps"):
        martlet.prepare(external_plugins=[demo], steps=3)


def test_values_of_a_list_flag_are_not_shared_between_runs(demo):
    first = martlet.prepare("demo", external_plugins=[demo])
    first.config.value("names").append("x")
    assert martlet.prepare("demo", external_plugins=[demo]).config.value("names") == []
