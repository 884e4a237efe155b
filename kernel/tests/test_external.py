"""``--external_plugins``: files, folders and modules that the user named."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import shlex
import sys
from pathlib import Path

import pytest

import martlet
from martlet import UsageError

REWARD = """
from martlet import Reward, hookimpl

SCALE = 1

def brevity(completions, **columns):
    return [SCALE / (1 + len(text)) for text in completions]

@hookimpl
def provide_rewards():
    yield Reward("brevity", brevity)
"""

LOSS = REWARD.replace("Reward", "Loss").replace("provide_rewards", "provide_losses").replace('"brevity"', '"curved"')


def reward(*references: str, name: str = "brevity"):
    return martlet.get("rewards", name, external_plugins=list(references))


def test_a_file_is_imported_under_its_own_name(plugin):
    found = reward(plugin("short", REWARD))
    assert found.__module__ == "martlet.external.short"
    assert importlib.import_module("martlet.external.short").brevity is found


def test_a_hyphen_in_the_file_name_becomes_an_underscore(plugin):
    assert reward(plugin("my-reward", REWARD)).__module__ == "martlet.external.my_reward"


def test_a_package_folder_may_have_modules_that_import_each_other(plugin):
    plugin("pack/scale.py", "SCALE = 6\n")
    file = plugin("pack/__init__.py", REWARD.replace("SCALE = 1", "from .scale import SCALE"))
    found = reward(str(Path(file).parent))
    assert found.__module__ == "martlet.external.pack"
    assert found(["", "a"]) == [6.0, 3.0]


def test_a_dotted_module_keeps_its_name(site):
    site.folder.joinpath("acme_rewards").mkdir()
    site.folder.joinpath("acme_rewards", "__init__.py").write_text("")
    site.folder.joinpath("acme_rewards", "short.py").write_text(REWARD)
    run = martlet.prepare(external_plugins=["acme_rewards.short"])
    assert run.get("rewards", "brevity").__module__ == "acme_rewards.short"
    assert run.get("rewards", "acme_rewards.short::brevity")([""]) == [1.0]
    assert run.manager.plugins["acme_rewards.short"].external


@pytest.mark.parametrize("write", [str, os.path.relpath, lambda path: str(Path(path).parent / "." / Path(path).name)])
def test_any_spelling_of_a_path_is_the_same_plugin(plugin, write):
    path = plugin("short", REWARD)
    run = martlet.prepare(external_plugins=[path, write(path)])
    assert run.manager.plugins["short"].external


def test_a_path_may_begin_with_a_tilde(plugin, monkeypatch):
    path = Path(plugin("short", REWARD))
    monkeypatch.setenv("HOME", str(path.parent))
    run = martlet.prepare(external_plugins=["~/short.py"])
    assert run.manager.plugins["short"].sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_one_plugin_may_be_given_without_a_list(plugin):
    assert martlet.get("rewards", "brevity", external_plugins=plugin("short", REWARD))([""]) == [1.0]


def test_a_path_object_is_as_good_as_text(plugin):
    assert martlet.get("rewards", "brevity", external_plugins=[Path(plugin("short", REWARD))])([""]) == [1.0]


@pytest.mark.parametrize("stem", ["digest", "os", "add"])
def test_a_file_may_have_any_name(plugin, python, stem):
    """Its module becomes an attribute of ``martlet.external``, which has names of its own."""
    program = """
        import sys, martlet
        for path, name in zip(sys.argv[1::2], sys.argv[2::2]):
            print(martlet.get("rewards", name, external_plugins=[path]).__module__)
    """
    words = [plugin(stem, REWARD), f"{stem}::brevity", plugin("other", REWARD), "other::brevity"]
    result = python(program, *words)
    assert result.stdout.split() == [f"martlet.external.{stem}", "martlet.external.other"], result.stderr


# Mistakes


def test_a_missing_file_is_refused_with_its_full_path(refused, demo, tmp_path):
    missing = tmp_path / "nowhere" / "short.py"
    said = refused("demo", "--external_plugins", demo, missing)
    assert str(missing) in said and "does not exist" in said


def test_a_folder_without_init_is_refused(refused, demo, tmp_path):
    tmp_path.joinpath("pack").mkdir()
    assert "__init__.py" in refused("demo", "--external_plugins", demo, tmp_path / "pack")


def test_a_module_that_is_not_installed_is_refused_by_name(refused, demo):
    assert "acme_rewards.short" in refused("demo", "--external_plugins", demo, "acme_rewards.short")


def test_a_file_that_is_no_python_file_is_refused_by_name(refused, demo, plugin):
    path = plugin("notes.txt", "Nothing to see.")
    assert "notes.txt" in refused("demo", "--external_plugins", demo, path)


def test_a_file_that_is_no_python_file_is_refused_without_a_slash_too(refused, demo, plugin, monkeypatch):
    monkeypatch.chdir(Path(plugin("notes.txt", "Nothing to see.")).parent)
    assert "is no .py file" in refused("demo", "--external_plugins", demo, "notes.txt")


def test_a_name_that_python_cannot_import_is_refused(refused, demo, plugin):
    assert "rename the file" in refused("demo", "--external_plugins", demo, plugin("2nd.reward.py", REWARD))


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("raise RuntimeError('no driver')", "no driver"),
        ("def x(:", "SyntaxError"),
        ("import sys; sys.exit(0)", "SystemExit"),
        ("x = 1", "@hookimpl"),
        (REWARD.replace("provide_rewards", "provide_reward"), "provide_rewards"),
        (LOSS + "    raise RuntimeError('half-way')\n", "half-way"),
        (LOSS + "    yield 5\n", "not a Loss"),
        (LOSS + '    yield Loss("curved", brevity)\n', "twice"),
    ],
)
def test_a_broken_file_is_fatal_and_named(refused, demo, plugin, source, said):
    message = refused("demo", "--external_plugins", demo, plugin("short", source))
    assert "'short'" in message and said in message


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("import json\n\njson.loads('{')", 3),
        ("import a_library_that_is_not_here", 1),
        (LOSS + "    raise RuntimeError('half-way')\n", 12),
    ],
)
def test_the_line_at_fault_is_named(refused, demo, plugin, source, line):
    path = plugin("short", source)
    assert f"({path}:{line})" in refused("demo", "--external_plugins", demo, path)


def test_the_line_at_fault_is_named_in_another_module_of_a_package(refused, demo, plugin):
    at_fault = plugin("pack/scale.py", "SCALE = 1 / 0\n")
    pack = Path(plugin("pack/__init__.py", "from .scale import SCALE\n")).parent
    assert f"({at_fault}:1)" in refused("demo", "--external_plugins", demo, pack)


def test_a_broken_file_is_forgotten(plugin):
    path = plugin("short", "raise RuntimeError('no driver')")
    with pytest.raises(martlet.PluginError):
        reward(path)
    Path(path).write_text(REWARD)
    assert reward(path)([""]) == [1.0]


def test_two_files_of_one_name_are_refused_with_both_paths(refused, plugin, demo):
    one, two = plugin("short", REWARD, "one"), plugin("short", REWARD, "two")
    said = refused("demo", "--external_plugins", demo, one, two)
    assert one in said and two in said


def test_a_hyphen_and_an_underscore_are_one_name(refused, plugin, demo):
    one, two = plugin("my-reward", REWARD), plugin("my_reward", REWARD)
    said = refused("demo", "--external_plugins", demo, one, two)
    assert one in said and two in said


def test_two_files_of_one_name_may_be_used_one_run_after_the_other(plugin):
    program = (
        "from martlet import Command, hookimpl\n"
        "@hookimpl\ndef provide_commands():\n    yield Command('where', lambda run: {!r})\n"
    )
    one, two = plugin("where", program.format("one"), "one"), plugin("where", program.format("two"), "two")
    assert [martlet.run("where", external_plugins=[path]) for path in (one, two)] == ["one", "two"]


def test_a_file_named_like_an_installed_plugin_is_refused(site, refused, plugin, demo):
    site.install("short", REWARD)
    assert "rename the file" in refused("demo", "--external_plugins", demo, plugin("short", REWARD))


def test_a_file_may_stand_in_for_an_installed_plugin_that_is_disabled(site, plugin):
    site.install("short", REWARD.replace("SCALE = 1", "SCALE = 9"))
    run = martlet.prepare(external_plugins=[plugin("short", REWARD)], disable_plugins=["short"])
    assert run.get("rewards", "brevity")([""]) == [1.0]


def test_an_edited_file_is_read_again_in_the_same_process(plugin, monkeypatch):
    """Even where Python's cache would not notice: an edit of equal length within a second."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    path = plugin("short", REWARD)
    os.utime(path, (1e9, 1e9))
    assert reward(path)([""]) == [1.0]
    plugin("short", REWARD.replace("SCALE = 1", "SCALE = 2"))
    os.utime(path, (1e9, 1e9))
    assert reward(path)([""]) == [2.0]


def test_an_edited_module_of_a_package_is_read_again_too(plugin):
    plugin("pack/scale.py", "SCALE = 1\n")
    folder = str(Path(plugin("pack/__init__.py", REWARD.replace("SCALE = 1", "from .scale import SCALE"))).parent)
    assert reward(folder)([""]) == [1.0]
    plugin("pack/scale.py", "SCALE = 25\n")
    assert reward(folder)([""]) == [25.0]


def test_an_unedited_file_is_not_read_again(plugin):
    path = plugin("short", REWARD)
    assert reward(path) is reward(path)


# Child processes

CHILDREN = """
import multiprocessing, os, pickle, subprocess, sys
from concurrent.futures import ProcessPoolExecutor
from martlet import Command, hookimpl

class Score:
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, text):
        return [self.factor / (1 + len(text)), __name__]

def in_pool(run):
    with ProcessPoolExecutor(1, multiprocessing.get_context(os.environ["METHOD"])) as pool:
        return pool.submit(Score(2), "a").result(timeout=50)

def in_program(run):
    code = "import pickle, sys; print(pickle.loads(bytes.fromhex(sys.argv[1]))('a'))"
    command = [sys.executable, "-c", code, pickle.dumps(Score(2)).hex()]
    return subprocess.run(command, check=True, cwd="/", capture_output=True, text=True).stdout.strip()

@hookimpl
def provide_commands():
    yield Command("pool", in_pool)
    yield Command("program", in_program)
"""
RUN = """
    import sys
    import martlet

    if __name__ == "__main__":
        print(martlet.run(sys.argv[1], external_plugins=[sys.argv[2]]))
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_what_a_file_defines_unpickles_in_child_processes(plugin, python, method):
    result = python(RUN, "pool", plugin("short", CHILDREN), METHOD=method)
    assert result.stdout.strip() == "[1.0, 'martlet.external.short']", result.stderr


def test_a_fresh_interpreter_finds_it_through_the_environment_alone(plugin, python, tmp_path):
    """What torchrun ranks and engine workers are: processes that got nothing but the environment."""
    path = Path(plugin("pack/__init__.py", CHILDREN)).parent
    result = python(RUN, "program", os.path.relpath(path, tmp_path))
    assert result.stdout.strip() == "[1.0, 'martlet.external.pack']", result.stderr


def test_a_path_with_a_colon_reaches_children_or_is_refused(plugin, python):
    path = plugin("short", CHILDREN, "a:b")
    result = python(RUN, "program", path)
    refused = "UsageError" in result.stderr and path in result.stderr.splitlines()[-1]
    assert refused or result.stdout.strip() == "[1.0, 'martlet.external.short']", result.stderr


# Trust


def test_a_checkpoint_never_causes_an_import_but_its_plugins_are_shown(plugin, cli, demo, tmp_path):
    marker = tmp_path / "imported"
    path = plugin("trap", f"open({str(marker)!r}, 'w').close()\n" + REWARD)
    folder = tmp_path / "checkpoint-1"
    folder.mkdir()
    folder.joinpath("args.json").write_text(f'{{"external_plugins": ["{path}"], "steps": 3}}')
    result = cli("demo", "--external_plugins", demo, "--checkpoint", folder, "--load_args")
    assert result.code == 0
    assert not marker.exists()
    assert f"--external_plugins {path}" in result.err


def test_a_component_that_a_checkpoint_needs_is_named_with_the_plugin_to_add(plugin, refused, demo, tmp_path):
    path = plugin("losses", LOSS)
    tmp_path.joinpath("args.json").write_text(json.dumps({"external_plugins": [path], "loss": "curved"}))
    said = refused("demo", "--external_plugins", demo, "--checkpoint", tmp_path, "--load_args")
    assert "'curved'" in said and said.rstrip().endswith(f"add --external_plugins {path}")


def test_what_a_checkpoint_wants_pasted_cannot_smuggle_a_command(cli, demo, tmp_path):
    evil = ["rewards.py; touch owned", "$(touch owned)", "two words.py", "--debug"]
    tmp_path.joinpath("args.json").write_text(json.dumps({"external_plugins": evil}))
    said = cli("demo", "--external_plugins", demo, "--checkpoint", tmp_path, "--load_args").err
    pasted = shlex.split(said[said.index("--external_plugins") :].splitlines()[0])
    assert pasted == ["--external_plugins", *evil] or not any(word in said for word in evil)


def test_nothing_in_the_working_directory_is_imported_by_itself(plugin, cli, demo, monkeypatch, tmp_path):
    monkeypatch.chdir(Path(plugin("trap", f"open({str(tmp_path / 'imported')!r}, 'w').close()\n" + REWARD)).parent)
    assert cli("demo", "--external_plugins", demo).code == 0
    assert not tmp_path.joinpath("imported").exists()


def test_sys_path_is_left_alone(plugin):
    before = list(sys.path)
    reward(plugin("short", REWARD))
    assert sys.path == before


def test_an_external_plugin_with_a_broken_environment_names_the_variable(python):
    result = python(
        "import sys; from martlet.cli import main; sys.exit(main(['--help']))", MARTLET_EXTERNAL_PLUGINS="/gone.py"
    )
    assert result.returncode == 2
    assert "/gone.py" in result.stderr and "Traceback" not in result.stderr


def test_the_user_error_for_a_wrong_type_is_a_usage_error():
    with pytest.raises(UsageError, match="external_plugins"):
        martlet.prepare(external_plugins=[5])
