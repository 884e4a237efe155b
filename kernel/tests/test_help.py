"""Help pages: grouped by plugin, important flags first, every flag on demand."""

from __future__ import annotations

import json
import re
from importlib import resources

import pytest


@pytest.fixture
def page(cli, demo):
    def call(*words: str) -> str:
        result = cli("demo", *words, "--external_plugins", demo)
        assert (result.code, result.err) == (0, "")
        return result.out

    return call


@pytest.mark.parametrize("word", ["--help", "-h"])
def test_plain_help_shows_the_important_flags_and_how_many_there_are_more(page, word):
    text = page(word)
    assert "--rate" in text and "How fast it goes" in text
    assert "--steps" not in text
    assert re.search(r"\d+ more flags: martlet demo --help all", text)


def test_help_all_shows_every_flag_with_its_help_type_and_default(page):
    text = " ".join(page("--help", "all").split())
    for name in ("rate", "steps", "bold", "names", "extra", "angle", "seed", "external_plugins", "log_level"):
        assert f"--{name} " in text
    assert "How often it turns. [a whole number; default: 10]" in text
    assert "Which colour it has. [one of red, green; default: red]" in text
    assert "Anything else. [a JSON object]" in text
    assert "more flags" not in text


def test_help_shows_the_default_of_the_command(page):
    assert "default: from the command" in " ".join(page("--help", "all").split())


def test_flags_stand_under_the_plugin_that_owns_them(page):
    text = page("--help", "all")
    kernel, mine = text.index("\nkernel "), text.index("\ndemo")
    assert text.index("--log_level") > kernel and text.index("--steps") > mine
    second = max(kernel, mine)
    late = text[second:]
    assert ("--steps" in late) is (second == mine) and ("--log_level" in late) is (second == kernel)


def test_important_flags_come_first_in_their_plugin(page):
    text = page("--help", "all")
    assert text.index("--external_plugins") < text.index("--seed")


def test_help_names_command_and_summary(page):
    text = page("--help")
    assert "martlet demo" in text and "Print settings." in text


def test_help_asks_for_nothing_that_the_command_needs(cli, demo):
    assert cli("demo", "--help", "--external_plugins", demo, "--steps", "0").code == 0


def test_help_wins_over_a_wrong_flag(cli, demo):
    assert cli("demo", "--stesp", "3", "--help", "--external_plugins", demo).code == 0


def test_help_of_a_positional_word_shows_it_without_dashes(cli, plugin):
    source = """
        from dataclasses import dataclass, field
        from martlet import Arguments, Command, hookimpl

        @dataclass
        class Words:
            words: list[str] = field(default_factory=list)
            \"\"\"What to say, 100 % of it.\"\"\"

        @hookimpl
        def provide_arguments():
            yield Arguments("echo", Words, roles=("echo",))

        @hookimpl
        def provide_commands():
            yield Command("echo", print, roles=("echo",), positional="words")
    """
    text = cli("echo", "--help", "--external_plugins", plugin("echoes", source)).out
    assert "martlet echo WORDS" in text and "100 % of it" in text
    assert "--words" not in text


def test_a_flag_that_two_plugins_claim_does_not_break_the_page(cli, plugin, demo):
    source = """
        from dataclasses import dataclass
        from martlet import Arguments, hookimpl

        @dataclass
        class More:
            steps: int = 5

        @hookimpl
        def provide_arguments():
            yield Arguments("more", More, roles=("demo",))
    """
    result = cli("demo", "--help", "all", "--external_plugins", demo, plugin("more", source))
    assert result.code == 0 and result.out.count("--steps") >= 1


def test_a_secret_default_from_the_environment_is_not_shown(page, monkeypatch):
    monkeypatch.setenv("DEMO_KEY", "hunter2")
    assert "hunter2" not in page("--help", "all")


def test_an_unknown_flag_of_a_distribution_that_is_not_installed_gives_the_pip_line(refused, demo):
    known = json.loads(resources.files("martlet").joinpath("known_flags.json").read_text(encoding="utf-8"))
    flag, owner = sorted(known.items())[0]
    said = refused("demo", "--external_plugins", demo, f"--{flag}", "3")
    assert f"--{flag}" in said and f"pip install {owner}" in said
