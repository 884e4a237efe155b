"""The command line: exit codes, one sentence an error, commands found by their words."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ENDING = """
from martlet import Command, DataError, UsageError, hookimpl

def main(run):
    {end}

@hookimpl
def provide_commands():
    yield Command("end", main, summary="End it.")
"""


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("return None", 0),
        ("return 0", 0),
        ("return 7", 7),
        ("return True", 0),
        ("return {'a': 1}", 0),
        ("raise DataError('row 3 is empty')", 1),
        ("raise UsageError('--x is wrong')", 2),
        ("raise KeyError('bird')", 1),
        ("raise KeyboardInterrupt", 130),
    ],
)
def test_exit_codes(cli, plugin, end, code):
    assert cli("end", "--external_plugins", plugin("ending", ENDING.format(end=end))).code == code


def test_an_error_is_one_sentence_without_a_traceback(cli, plugin):
    result = cli("end", "--external_plugins", plugin("ending", ENDING.format(end="raise DataError('row 3 is empty.')")))
    assert (result.out, result.err) == ("", "error: row 3 is empty.\n")


def test_an_accident_is_one_sentence_with_its_place(cli, plugin):
    path = plugin("ending", ENDING.format(end="raise KeyError('bird')"))
    line = 1 + Path(path).read_text().splitlines().index("    raise KeyError('bird')")
    assert cli("end", "--external_plugins", path).err == f"error: KeyError: 'bird' ({path}:{line})\n"
    assert "Traceback" in cli("end", "--external_plugins", path, "--debug").err


@pytest.mark.parametrize("words", [["--debug"], ["--debug", "true"], ["--debug=true"]])
def test_debug_shows_where_an_error_came_from(cli, plugin, words):
    path = plugin("ending", ENDING.format(end="raise DataError('row 3')"))
    result = cli("end", "--external_plugins", path, *words)
    assert result.code == 1
    assert "Traceback" in result.err and result.err.strip().splitlines()[-1] == "error: row 3"


@pytest.mark.parametrize("words", [["--debug", "false"], ["--debug=false"]])
def test_debug_can_be_switched_off(cli, plugin, words):
    path = plugin("ending", ENDING.format(end="raise DataError('row 3')"))
    assert "Traceback" not in cli("end", "--external_plugins", path, *words).err


@pytest.mark.parametrize("name", ["MARTLET_DEBUG", "SWIFT_DEBUG"])
def test_debug_may_come_from_the_environment(cli, plugin, monkeypatch, name):
    monkeypatch.setenv(name, "1")
    assert (
        "Traceback"
        in cli("end", "--external_plugins", plugin("ending", ENDING.format(end="raise DataError('row 3')"))).err
    )


def test_an_interruption_leaves_no_traceback(cli, plugin):
    result = cli(
        "end", "--external_plugins", plugin("ending", ENDING.format(end="raise KeyboardInterrupt('saved step 3')"))
    )
    assert "interrupted" in result.err and "saved step 3" in result.err and "Traceback" not in result.err


def test_without_a_word_the_commands_are_listed(site, cli):
    site.install("ending", ENDING.format(end="return 0"))
    result = cli()
    assert result.code == 0
    assert "end" in result.out and "End it." in result.out


@pytest.mark.parametrize("word", ["--help", "-h"])
def test_help_lists_the_commands_of_external_plugins_too(cli, demo, word):
    result = cli(word, "--external_plugins", demo)
    assert result.code == 0
    assert "demo twice" in result.out and "Print settings as well." in result.out


def test_an_unknown_command_suggests_the_nearest(refused, site):
    site.install("ending", ENDING.format(end="return 0"))
    said = refused("ned")
    assert "'ned'" in said and "Did you mean end?" in said


def test_an_unknown_command_names_the_plugins_that_did_not_load(refused, site):
    site.install("broken", "raise RuntimeError('no driver')")
    assert "'broken'" in refused("train")


def test_a_flag_in_front_of_the_command_is_no_command(refused):
    assert "--steps" in refused("--steps", "3", "demo")


@pytest.mark.parametrize("words", [["demo", "twice"], ["demo"]])
def test_the_longest_name_is_the_command(cli, demo, words):
    result = cli(*words, "--external_plugins", demo)
    assert result.json["label"]["value"] == ("plain" if len(words) == 2 else "from the command")


def test_half_of_a_two_word_command_lists_the_whole(refused, site):
    site.install("ending", ENDING.replace('"end"', '"data preview"').format(end="return 0"))
    assert "data preview" in refused("data")
    assert "data preview" in refused("data", "prewiev")


def test_version_names_the_kernel_and_every_plugin_distribution(site, cli):
    site.install("steep", "raise RuntimeError('imported')", version="1.4")
    lines = cli("--version").out.splitlines()
    assert lines[0].startswith("martlet-kernel ")
    assert lines[1:] == ["acme-steep 1.4"]


POSITIONAL = """
from dataclasses import dataclass, field
from martlet import Arguments, Command, hookimpl

@dataclass
class Words:
    words: list[str] = field(default_factory=list)
    times: int = 1
    loud: bool = False

@hookimpl
def provide_arguments():
    yield Arguments("echo", Words, roles=("echo",))

def main(run):
    print(run.config[Words].words * run.config[Words].times)

@hookimpl
def provide_commands():
    yield Command("echo", main, roles=("echo",), positional="words")
    yield Command("raw", lambda run: print(run.words), raw=True)
"""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a"], ["a"]),
        (["a", "b"], ["a", "b"]),
        ([], []),
        (["a", "--times", "2"], ["a", "a"]),
        (["--times", "2", "a"], ["a", "a"]),
        (["--loud", "true", "a"], ["a"]),
    ],
)
def test_words_in_front_of_the_flags_go_to_the_positional_field(cli, plugin, words, said):
    result = cli("echo", *words, "--external_plugins", plugin("echoes", POSITIONAL))
    assert result.out == f"{said}\n", result.err


def test_the_positional_field_is_no_flag_as_well(refused, plugin):
    assert "--words" in refused("echo", "--words", "a", "--external_plugins", plugin("echoes", POSITIONAL))


def test_a_raw_command_gets_its_words_unparsed(cli, plugin):
    path = plugin("echoes", POSITIONAL)
    assert (
        cli("raw", "sft", "--bogus", "1", "--external_plugins", path).out
        == str(["sft", "--bogus", "1", "--external_plugins", path]) + "\n"
    )


@pytest.mark.parametrize(("level", "shown"), [("info", True), ("error", False), ("ERROR", False), ("debug", True)])
def test_the_log_level_is_obeyed(cli, plugin, level, shown):
    path = plugin("ending", ENDING.format(end="run.logger.info('step 3')"))
    assert ("step 3" in cli("end", "--external_plugins", path, "--log_level", level).err) is shown


def test_the_log_level_may_come_from_the_environment(cli, plugin, monkeypatch):
    monkeypatch.setenv("LOG_LEVEL", "ERROR")
    assert cli("end", "--external_plugins", plugin("ending", ENDING.format(end="run.logger.info('step 3')"))).err == ""


def test_disabled_plugins_are_left_out_of_a_command(cli, site):
    site.install("bomb", "raise RuntimeError('imported')")
    site.install("ending", ENDING.format(end="return 0"))
    assert cli("end", "--disable_plugins", "bomb") == (0, "", "")


def test_strict_plugins_stops_a_command(refused, site):
    site.install("bomb", "raise RuntimeError('imported')")
    site.install("ending", ENDING.format(end="return 0"))
    assert "'bomb'" in refused("end", "--strict_plugins")


def test_a_broken_plugin_costs_a_warning_and_no_run(cli, site):
    site.install("bomb", "raise RuntimeError('imported')")
    site.install("ending", ENDING.format(end="return 0"))
    result = cli("end")
    assert result.code == 0 and "warning: plugin 'bomb'" in result.err


def test_a_text_value_with_equals_and_spaces_reaches_its_flag(settings):
    """The flags that are read first must not swallow words of others."""
    assert settings("--title=You are kind. --really", "--label", "a=b c")["title"]["value"] == "You are kind. --really"


# In a process of its own


def test_the_installed_script_reports_the_exit_code(site):
    script = os.path.join(os.path.dirname(sys.executable), "martlet")
    environment = {**os.environ, "MARTLET_DISABLE_PLUGIN_AUTOLOAD": "1"}
    result = subprocess.run([script, "nothing"], capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 2
    assert result.stderr.startswith("error: ") and result.stdout == ""


@pytest.mark.parametrize("lines", [1, 20_000])
def test_a_closed_pipe_ends_quietly(plugin, python, lines):
    """As in ``martlet plugin list | head -1``."""
    path = plugin("ending", ENDING.format(end=f"[print('x' * 70) for _ in range({lines})]"))
    program = """
        import os, subprocess, sys
        reading, writing = os.pipe()
        os.close(reading)
        code = "from martlet.cli import entry; entry()"
        command = [sys.executable, "-c", code, "end", "--external_plugins", sys.argv[1]]
        result = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True)
        print(result.stderr.strip() or "quiet")
    """
    assert python(program, path).stdout.strip() == "quiet"


def test_sigterm_ends_a_command_quietly_and_lets_it_clean_up(plugin, python):
    path = plugin("ending", ENDING.format(end="""
    import time
    try:
        print("started", flush=True)
        time.sleep(60)
    finally:
        print("cleaned up", flush=True)
"""))  # fmt: skip
    program = """
        import subprocess, sys
        code = "from martlet.cli import entry; entry()"
        command = [sys.executable, "-c", code, "end", "--external_plugins", sys.argv[1]]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        child.stdout.readline()
        child.terminate()
        print(child.communicate(timeout=30), child.returncode)
    """
    assert python(program, path).stdout.strip() == r"('cleaned up\n', 'interrupted: SIGTERM\n') 143"


def test_the_suite_of_checks_does_not_depend_on_assert(plugin, python, demo):
    """Bad input is refused under ``python -O`` too."""
    program = """
        import subprocess, sys
        words = ["demo", "--external_plugins", sys.argv[1], "--steps", "0"]
        code = "import sys; from martlet.cli import main; sys.exit(main(sys.argv[1:]))"
        print(subprocess.run([sys.executable, "-O", "-c", code, *words], capture_output=True).returncode)
    """
    assert python(program, demo).stdout.strip() == "2"
