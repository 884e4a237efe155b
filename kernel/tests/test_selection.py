"""Flags that choose components: one, several, chains, options, components that a flag switches on."""

from __future__ import annotations

import pytest

import martlet
from martlet import UsageError


@pytest.fixture
def prepare(demo):
    def call(*more: str, **settings):
        return martlet.prepare("demo", external_plugins=[demo, *more], **settings)

    return call


def selected(run, kind):
    return [spec.name for spec in run.selected(kind)]


def test_unset_names_the_component_of_none(prepare):
    assert selected(prepare(chain="steep"), "losses") == ["flat", "steep"]


def test_a_list_keeps_the_users_order(prepare):
    assert selected(prepare(tuners=["matt"]), "tuners") == ["matt"]
    names = [component.name for component in prepare(loss="steep", chain="steep+flat").selected("losses")]
    assert names == ["steep", "steep", "flat"]


def test_a_chain_may_have_spaces_around_its_sign(prepare):
    assert selected(prepare(chain="steep + flat"), "losses") == ["flat", "steep", "flat"]


def test_an_unknown_component_is_refused_before_anything_runs(refused, demo):
    said = refused("demo", "--external_plugins", demo, "--loss", "stepe")
    assert "--loss stepe" in said and "Did you mean steep?" in said


WISHFUL = """
from dataclasses import dataclass, field
from martlet import Arguments, Command, hookimpl

@dataclass
class Wishes:
    way: str = field(default="gone", metadata={"component": "trainers"})

def main(run):
    if run.seed == 1:
        run.one("trainers")
    print("done without")

@hookimpl
def provide_arguments():
    yield Arguments("wishes", Wishes, roles=("wish",))

@hookimpl
def provide_commands():
    yield Command("wish", main, roles=("wish",))
"""


def test_a_default_that_no_plugin_provides_is_refused_only_where_it_is_needed(cli, refused, plugin):
    wishful = plugin("wishful", WISHFUL)
    assert cli("wish", "--external_plugins", wishful).out == "done without\n"
    assert "--way gone: No plugin provides trainer 'gone'" in refused(
        "wish", "--external_plugins", wishful, "--seed", 1
    )


def test_a_name_that_the_user_gave_is_refused_even_where_it_is_not_needed(refused, plugin):
    assert "'other'" in refused("wish", "--external_plugins", plugin("wishful", WISHFUL), "--way", "other")


def test_one_refuses_several_and_names_their_flags(prepare):
    with pytest.raises(UsageError, match=r"a loss.*--loss \(flat\).*--chain \(steep\)"):
        prepare(chain="steep").one("losses")


def test_one_refuses_none(prepare):
    with pytest.raises(UsageError, match=r"demo needs a tuner"):
        prepare().one("tuners")


def test_all_builds_every_one(prepare):
    assert [type(part).__name__ for part in prepare(tuners=["matt"]).all("tuners")] == ["Shine"]


def test_a_flag_that_leaves_its_default_switches_its_component_on(prepare):
    assert selected(prepare(), "tuners") == []
    assert selected(prepare(shiny=True), "tuners") == ["shine"]
    assert selected(prepare(shiny=False), "tuners") == []


def test_a_component_that_is_named_and_switched_on_is_selected_once(prepare):
    assert selected(prepare(shiny=True, tuners=["shine"]), "tuners") == ["shine"]


def test_conflicting_components_are_refused_with_both_flags(refused, demo):
    said = refused("demo", "--external_plugins", demo, "--shiny", "--tuners", "matt")
    assert "--shiny (shine)" in said and "--tuners (matt)" in said and "together" in said


def test_defaults_of_a_selected_component_hold_while_it_is_selected(settings):
    found = settings("--loss", "steep")
    assert found["rate"] == {"value": 9.0, "source": "component", "detail": "loss steep"}
    assert found["label"]["value"] == "from the loss"
    assert settings()["rate"]["value"] == 0.1


def test_defaults_of_a_component_that_a_flag_switched_on_hold_too(settings):
    found = settings("--shiny")
    assert (found["steps"]["value"], found["steps"]["source"]) == (77, "component")


def test_the_user_wins_over_a_component_default(settings):
    assert settings("--loss", "steep", "--rate", "0.5")["rate"]["value"] == 0.5


def test_a_flag_that_nothing_selected_reads_is_warned_about(cli, demo):
    result = cli("demo", "--external_plugins", demo, "--angle", "30")
    assert result.code == 0
    assert "--angle has no effect" in result.err and "loss steep" in result.err


@pytest.mark.parametrize("words", [["--angle", "30", "--loss", "steep"], ["--loss", "flat"]])
def test_no_warning_where_the_flag_is_read_or_was_not_given(cli, demo, words):
    assert "no effect" not in cli("demo", "--external_plugins", demo, *words).err


# Options of a component: --set KIND.NAME.OPTION=value

SCALED = """
from dataclasses import dataclass
from martlet import Loss, hookimpl

@dataclass
class Options:
    scale: float = 1.0
    words: list[str] | None = None
    soft: bool = False

class Scaled:
    def __init__(self, options):
        self.options = options

def plain(logits, labels):
    return logits

@hookimpl
def provide_losses():
    yield Loss("scaled", Scaled, options=Options)
    yield Loss("very.scaled", Scaled, options=Options)
    yield Loss("plain", plain)
"""


@pytest.fixture
def scaled(plugin, prepare):
    def call(*sets: str, name: str = "scaled"):
        run = prepare(plugin("scales", SCALED), loss=name, chain="flat", set=list(sets))
        return run.all("losses")[0].options

    return call


def test_set_gives_a_component_its_options(scaled):
    options = scaled("loss.scaled.scale=2.5", "loss.scaled.soft=true", 'loss.scaled.words=["a", "b"]')
    assert (options.scale, options.soft, options.words) == (2.5, True, ["a", "b"])


def test_the_last_set_wins(scaled):
    assert scaled("loss.scaled.scale=2", "loss.scaled.scale=3").scale == 3.0


def test_a_component_whose_name_has_a_dot_takes_options_too(scaled):
    assert scaled("loss.very.scaled.scale=2", name="very.scaled").scale == 2.0


def test_options_may_name_the_owner(scaled):
    assert scaled("loss.scales::scaled.scale=2").scale == 2.0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("loss.scaled.scal=2", "Did you mean scale"),
        ("loss.scaled.scale=wide", "a number"),
        ("loss.scale.scale=2", "Did you mean scaled"),
        ("los.scaled.scale=2", "loss"),
        ("loss.scaled", "KIND.NAME.OPTION=value"),
        ("loss=2", "KIND.NAME.OPTION=value"),
        ("loss.plain.scale=2", "takes no options"),
    ],
)
def test_a_wrong_set_is_refused(refused, plugin, demo, text, said):
    program = plugin("scales", SCALED)
    words = [
        "demo",
        "--external_plugins",
        demo,
        program,
        "--loss",
        "plain" if "plain" in text else "scaled",
        "--set",
        text,
    ]
    assert said in refused(*words)


def test_options_of_a_component_that_is_not_used_are_not_ignored_silently(cli, plugin, demo):
    result = cli("demo", "--external_plugins", demo, plugin("scales", SCALED), "--set", "loss.scaled.scale=2")
    assert "scaled" in result.err
