"""Names resolve lazily; a clash is the user's choice; a component is built by one rule."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import pytest

import martlet
from martlet import (
    AmbiguousComponent,
    Dataset,
    Loss,
    MartletError,
    PluginManager,
    Reward,
    Template,
    UnknownComponent,
    UsageError,
    hookimpl,
)


def providing(*specs):
    """Return a plugin object that yields these losses and rewards."""

    class Plugin:
        @hookimpl
        def provide_losses(self):
            return [spec for spec in specs if isinstance(spec, Loss)]

        @hookimpl
        def provide_rewards(self):
            return [spec for spec in specs if isinstance(spec, Reward)]

        @hookimpl
        def provide_templates(self):
            return [spec for spec in specs if isinstance(spec, Template)]

    return Plugin()


@pytest.fixture
def manager() -> PluginManager:
    return PluginManager()


def test_a_bare_name_finds_its_only_provider(manager):
    manager.add("a", providing(Loss("steep", len)))
    plugin, spec = manager.find(Loss, "steep")
    assert (plugin, spec.name) == ("a", "steep")


def test_the_same_name_may_stand_for_components_of_different_kinds(manager):
    manager.add("a", providing(Loss("steep", len), Reward("steep", max)))
    assert manager.find(Loss, "steep")[1].target is len
    assert manager.find(Reward, "steep")[1].target is max


def test_a_clash_costs_nothing_until_the_name_is_used(manager):
    manager.add("a", providing(Loss("steep", len)))
    manager.add("b", providing(Loss("steep", max), Loss("flat", min)))
    assert manager.find(Loss, "flat")[0] == "b"
    with pytest.raises(AmbiguousComponent, match=r"a::steep or b::steep") as caught:
        manager.find(Loss, "steep")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(("owner", "target"), [("a", len), ("b", max)])
def test_an_owner_in_front_of_the_name_settles_a_clash(manager, owner, target):
    manager.add("a", providing(Loss("steep", len)))
    manager.add("b", providing(Loss("steep", max)))
    assert manager.find(Loss, f"{owner}::steep")[1].target is target


def test_an_unknown_name_suggests_the_nearest(manager):
    manager.add("a", providing(Loss("cross_entropy", len), Loss("focal", len)))
    with pytest.raises(UnknownComponent, match=r"loss 'cros_entropy'.*Did you mean cross_entropy\?"):
        manager.find(Loss, "cros_entropy")


def test_an_unknown_name_without_a_neighbour_lists_them_all(manager):
    manager.add("a", providing(Loss("cross_entropy", len), Loss("focal", len)))
    with pytest.raises(UnknownComponent, match=r"cross_entropy, focal"):
        manager.find(Loss, "zzz")


def test_an_unknown_owner_is_an_unknown_component(manager):
    manager.add("a", providing(Loss("steep", len)))
    with pytest.raises(UnknownComponent, match="b::steep"):
        manager.find(Loss, "b::steep")


def test_names_are_case_sensitive_and_never_prefixes(manager):
    manager.add("a", providing(Loss("steep", len)))
    for wrong in ("Steep", "stee", "steep "):
        with pytest.raises(UnknownComponent):
            manager.find(Loss, wrong)


def test_an_unknown_kind_suggests_the_nearest():
    with pytest.raises(MartletError, match=r"'loses'.*losses"):
        martlet.prepare().get("loses", "steep")


# Replacement


def test_replace_wins_where_the_user_wrote_the_name(manager):
    manager.add("a", providing(Loss("steep", len)))
    manager.add("b", providing(Loss("steep", max, replace=True)))
    assert manager.find(Loss, "steep")[0] == "b"


def test_replace_of_an_installed_plugin_never_changes_a_default(manager):
    manager.add("a", providing(Loss("steep", len)))
    manager.add("b", providing(Loss("steep", max, replace=True)))
    assert manager.find(Loss, "steep", default_of="c")[0] == "a"


def test_a_default_means_the_component_of_its_owner(manager):
    for name in ("a", "b"):
        manager.add(name, providing(Loss("steep", len)))
    assert manager.find(Loss, "steep", default_of="b")[0] == "b"
    with pytest.raises(AmbiguousComponent):
        manager.find(Loss, "steep", default_of="c")


def test_installing_a_component_of_the_same_name_changes_no_default(site, cli, refused):
    owner = """
        from dataclasses import dataclass, field
        from martlet import Arguments, Command, Loss, hookimpl

        @dataclass
        class Wishes:
            way: str | None = field(default=None, metadata={"component": "losses", "unset": "steep"})
            other: str = field(default="flat", metadata={"component": "losses", "owner": "flats"})

        def main(run):
            print([loss("aab") for loss in run.all("losses")])

        @hookimpl
        def provide_arguments():
            yield Arguments("wishes", Wishes, roles=("wish",))

        @hookimpl
        def provide_commands():
            yield Command("wish", main, roles=("wish",))

        @hookimpl
        def provide_losses():
            yield Loss("steep", len)
    """
    other = """
        from martlet import Loss, hookimpl

        @hookimpl
        def provide_losses():
            yield Loss("steep", max)
            yield Loss("flat", {flat})
    """
    site.install("owner", owner)
    site.install("flats", other.format(flat="min"))
    site.install("another", other.format(flat="str"))
    assert cli("wish").out.strip() == "[3, 'a']"
    said = refused("wish", "--way", "steep")
    assert all(f"{plugin}::steep" in said for plugin in ("another", "flats", "owner"))


def test_two_replacements_are_ambiguous(manager):
    for name in ("b", "c"):
        manager.add(name, providing(Loss("steep", max, replace=True)))
    manager.add("a", providing(Loss("steep", len)))
    with pytest.raises(AmbiguousComponent, match=r"b::steep or c::steep"):
        manager.find(Loss, "steep")


def test_the_replaced_component_can_still_be_named(manager):
    manager.add("a", providing(Loss("steep", len)))
    manager.add("b", providing(Loss("steep", max, replace=True)))
    assert manager.find(Loss, "a::steep")[1].target is len


REPLACING = """
from martlet import Loss, hookimpl

def other(logits, labels):
    return labels

@hookimpl
def provide_losses():
    yield Loss("flat", other, replace=True)
"""


def test_installing_a_replacement_changes_no_run_that_does_not_name_it(site, demo):
    site.install("other", REPLACING)
    run = martlet.prepare("demo", external_plugins=[demo])
    assert [loss.__name__ for loss in run.all("losses")] == ["flat", "flat"]


@pytest.mark.parametrize("settings", [{"loss": "flat"}, {"loss": "other::flat"}])
def test_a_replacement_is_used_where_the_user_names_the_component(site, demo, settings):
    site.install("other", REPLACING)
    run = martlet.prepare("demo", external_plugins=[demo], chain="demo::flat", **settings)
    assert run.all("losses")[0].__name__ == "other"


def test_a_replacement_is_used_where_the_user_names_its_plugin(plugin, demo):
    run = martlet.prepare("demo", external_plugins=[demo, plugin("other", REPLACING)], chain="demo::flat")
    assert run.all("losses")[0].__name__ == "other"


# Building


class Plain:
    pass


class Told:
    def __init__(self, spec: Loss) -> None:
        self.spec = spec


@dataclass
class Scale:
    scale: float = 1.0
    names: list[str] | None = None


class Scaled:
    def __init__(self, options: Scale) -> None:
        self.options = options


class Free:
    def __init__(self, *, options: dict[str, str], spec: Loss) -> None:
        self.options, self.spec = options, spec


def test_a_function_is_used_as_it_is(manager):
    assert manager.build(Loss("x", len)) is len


def test_a_class_is_built_once_with_what_it_asks_for(manager):
    assert isinstance(manager.build(Loss("x", Plain)), Plain)
    spec = Loss("x", Told)
    assert manager.build(spec).spec is spec
    assert manager.build(Loss("x", Scaled, options=Scale)).options == Scale()
    assert manager.build(Loss("x", Free), {"a": "1"}).options == {"a": "1"}


def test_options_reach_a_class_with_the_types_of_their_dataclass(manager):
    built = manager.build(Loss("x", Scaled, options=Scale), {"scale": "2.5", "names": ["a", "b"]})
    assert built.options == Scale(2.5, ["a", "b"])


def test_an_unknown_option_suggests_the_nearest(manager):
    with pytest.raises(UsageError, match=r"loss\.x\.scal.*Did you mean scale"):
        manager.build(Loss("x", Scaled, options=Scale), {"scal": "2"})


def test_an_option_of_a_wrong_type_is_named(manager):
    with pytest.raises(UsageError, match=r"loss\.x\.scale.*a number.*'wide'"):
        manager.build(Loss("x", Scaled, options=Scale), {"scale": "wide"})


@pytest.mark.parametrize("target", [len, Plain, Told])
def test_options_that_nothing_takes_are_an_error(manager, target):
    with pytest.raises(UsageError, match=r"'x'.*takes no options.*scale"):
        manager.build(Loss("x", target), {"scale": "2"})


def test_a_spec_without_a_target_uses_the_default_of_its_kind_and_passes_its_own_facts(manager):
    manager.add("a", providing(Template("default", Told), Template("mine", prompt="<{content}>")))
    assert manager.build(manager.find(Template, "mine")[1]).spec.prompt == "<{content}>"


def test_a_kind_without_a_default_says_so(manager):
    manager.add("a", providing(Template("mine")))
    with pytest.raises(MartletError, match=r"default|target"):
        manager.build(manager.find(Template, "mine")[1])


def test_a_text_target_is_imported_when_it_is_first_built(site):
    module = site.install("late", "def steep(logits, labels):\n    return logits\n", entry="late")
    spec = Loss("steep", f"{module}:steep")
    manager = PluginManager()
    manager.add("b", providing(spec))
    assert manager.find(Loss, "steep")[1] is spec
    assert module not in sys.modules
    assert manager.build(spec).__name__ == "steep"
    assert module in sys.modules


def test_a_target_that_cannot_be_imported_names_plugin_and_component(plugin):
    lost = plugin("lost", _yielding('Loss("steep", "no_such_module:steep")'))
    run = martlet.prepare(external_plugins=[lost])
    with pytest.raises(MartletError, match=r"'lost'.*loss 'steep'.*no_such_module"):
        run.get("losses", "steep")


def test_a_target_without_the_attribute_names_plugin_and_component(plugin):
    lost = plugin("lost", _yielding('Loss("steep", "json:steep")'))
    with pytest.raises(MartletError, match=r"'lost'.*loss 'steep'"):
        martlet.prepare(external_plugins=[lost]).get("losses", "steep")


def _yielding(spec: str) -> str:
    return f"from martlet import Loss, hookimpl\n@hookimpl\ndef provide_losses():\n    yield {spec}\n"


@pytest.mark.parametrize("line", ["no-such-library>=1", "pluggy>=99", "pluggy<1"])
def test_a_missing_requirement_is_refused_with_the_pip_line_before_the_import(manager, line):
    spec = Loss("steep", "no_such_module:steep", requires=("packaging", line))
    with pytest.raises(UsageError, match=rf"loss 'steep' needs {line}.*pip install '{line}'"):
        manager.build(spec)


def test_a_requirement_that_is_met_or_does_not_apply_here_is_no_obstacle(manager):
    assert manager.build(Loss("steep", len, requires=("pluggy>=1", "no-such-library; python_version < '3'"))) is len


def test_a_spec_is_frozen_and_hashable():
    spec = Dataset("rows", source={"file": "/rows.jsonl"})
    assert spec in {spec}
    with pytest.raises(AttributeError):
        spec.name = "other"


def test_a_run_builds_a_component_once_and_remembers_its_use(demo):
    run = martlet.prepare("demo", external_plugins=[demo], tuners=["shine"])
    assert run.get("tuners", "shine") is run.one("tuners") is run.get("tuner", "demo::shine")
    assert [row["name"] for row in run.record.components] == ["shine"]


def test_a_component_can_be_had_without_a_run(demo):
    assert martlet.get("losses", "steep", external_plugins=[demo]).__name__ == "steep"


def test_the_facts_of_a_component_need_no_import(plugin):
    run = martlet.prepare(
        external_plugins=[plugin("lost", _yielding('Loss("steep", "no_such:x", summary="A slope.")'))]
    )
    assert run.spec("losses", "steep").summary == "A slope."
