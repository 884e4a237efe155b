"""Every flag is documented, owned once, and read by somebody."""

from __future__ import annotations

import ast
import importlib.util
import json
from pathlib import Path

import pytest

KERNEL = "martlet-kernel"
SDK = "martlet-sdk"


@pytest.fixture(scope="session")
def read_words(repository) -> set[str]:
    """Every attribute that is read and every text, in all sources but the declarations of flags."""
    words: set[str] = set()
    for distribution in repository.distributions.values():
        for file, tree in distribution.sources.items():
            for node in ast.walk(tree):
                if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                    words.add(node.attr)
                elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "args" not in file.stem:
                    words.add(node.value)
    return words | handed_over(repository)


def handed_over(repository) -> set[str]:
    """Fields of ``TrainingArguments``, where flags of equal name are handed to it together; it is not imported."""
    sources = [tree for item in repository.distributions.values() for tree in item.sources.values()]
    place = importlib.util.find_spec("transformers")
    if place is None or not any("fields(TrainingArguments)" in ast.unparse(tree) for tree in sources):
        return set()
    tree = ast.parse(Path(str(place.origin)).with_name("training_args.py").read_text(encoding="utf-8"))
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "TrainingArguments"]
    return {ast.unparse(node.target) for node in classes[0].body if isinstance(node, ast.AnnAssign)}


def groups(repository, distribution):
    """Yield ``(group, field)`` of every flag that a distribution declares."""
    from martlet.fields import fields_of
    from martlet.specs import load

    for owner, spec in repository.specs:
        if owner == distribution.name and spec.kind == "arguments":
            for item in fields_of(load(spec.target)):
                yield spec, item


def test_it_is_installed_and_loads(distribution, repository):
    """The other rules of this file and of test_names see only plugins that load."""
    from martlet import PluginManager

    manager = PluginManager()
    manager.load_installed()
    name = "kernel" if distribution.name == KERNEL else distribution.plugin
    assert name in manager.plugins, "not installed: pip install -r requirements.txt"
    assert manager.plugins[name].error is None


def test_every_flag_is_read_somewhere(distribution, repository, read_words):
    """A selector is read by the kernel, which builds what it names."""
    unread = [
        f"{spec.name}.{item.name}"
        for spec, item in groups(repository, distribution)
        if item.name not in read_words and not item.metadata.get("component")
    ]
    assert not unread, "\n" + "\n".join(unread)


def test_every_flag_is_explained_in_a_sentence(distribution, repository):
    silent = [
        f"{spec.name}.{item.name}: {item.help!r}"
        for spec, item in groups(repository, distribution)
        if not item.help.strip().endswith((".", "?", ")")) or len(item.help.split()) < 2
    ]
    assert not silent, "\n" + "\n".join(silent)


def test_no_flag_is_claimed_twice(distribution, repository):
    """Within the roles of one command; across distributions of this repository."""
    commands = [spec for _, spec in repository.specs if spec.kind == "commands"]
    all_groups = [spec for _, spec in repository.specs if spec.kind == "arguments"]
    mine = {(item.name, spec.name) for spec, item in groups(repository, distribution)}
    clashes = set()
    for other in repository.distributions.values():
        for spec, item in groups(repository, other):
            rivals = {group for name, group in mine if name == item.name and group != spec.name}
            for command in commands:
                roles = {"base", *command.roles}
                taken = {group.name for group in all_groups if roles & set(group.roles)}
                clashes |= {
                    f"{command.name}: {item.name} of {r} and {spec.name}" for r in rivals & taken if spec.name in taken
                }
    assert not clashes, "\n" + "\n".join(sorted(clashes))


def test_every_selector_names_a_kind_that_exists(distribution, repository):
    from martlet import KINDS

    wrong = [
        f"{spec.name}.{item.name}: {item.metadata['component']}"
        for spec, item in groups(repository, distribution)
        if item.metadata.get("component") and item.metadata["component"] not in KINDS
    ]
    assert not wrong, "\n" + "\n".join(wrong)


def test_the_default_of_every_flag_is_valid(distribution, repository):
    from martlet.fields import parse

    for spec, item in groups(repository, distribution):
        assert parse(item, item.default, f"{spec.name}.{item.name}") == item.default


def test_every_command_default_names_a_flag_of_the_command(distribution, repository):
    from martlet.fields import fields_of
    from martlet.specs import load

    for owner, command in repository.specs:
        if owner == distribution.name and command.kind == "commands":
            roles = {"base", *command.roles}
            taken = [spec for _, spec in repository.specs if spec.kind == "arguments" and roles & set(spec.roles)]
            flags = {item.name for spec in taken for item in fields_of(load(spec.target))}
            assert set(command.defaults) - flags == set(), command.name


def test_every_role_of_a_command_has_flags(distribution, repository):
    offered = {role for _, spec in repository.specs if spec.kind == "arguments" for role in spec.roles}
    for owner, command in repository.specs:
        if owner == distribution.name and command.kind == "commands":
            assert set(command.roles) - offered == set(), command.name


def test_the_kernel_knows_whose_every_flag_is(distribution, repository):
    """So that an unknown flag of a plugin that is not installed is answered with its pip line."""
    if distribution.name in (KERNEL, SDK) or distribution.contrib:
        pytest.skip("always installed, only in its own commands, or not ours to advertise")
    known = json.loads((repository.distributions[KERNEL].package / "known_flags.json").read_text(encoding="utf-8"))
    mine = {item.name for _, item in groups(repository, distribution)}
    unknown = sorted(name for name in mine if known.get(name) not in repository.distributions)
    assert not unknown, f"not in known_flags.json: {', '.join(unknown)}"
    assert {name for name, owner in known.items() if owner == distribution.name} - mine == set(), "no longer a flag"
