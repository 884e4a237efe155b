"""What every distribution has, and who may depend on whom."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
KERNEL = "martlet-kernel"
SDK = "martlet-sdk"
LEVELS = 3
"""How many first-party imports may stand between a plugin and the kernel."""


def test_it_has_its_own_pages_tests_and_types(distribution):
    folder, package = distribution.folder, distribution.package
    wanted = [folder / "README.md", folder / "CHANGELOG.md", package / "__init__.py", package / "py.typed"]
    assert [distribution.place(file) for file in wanted if not file.is_file()] == []
    readme = folder.joinpath("README.md").read_text(encoding="utf-8").splitlines()
    assert len(readme) >= 10, f"{distribution.place(wanted[0])}: {len(readme)} lines say too little"
    assert re.search(
        rf"^## {re.escape(distribution.project['version'])}\b", folder.joinpath("CHANGELOG.md").read_text(), re.M
    )
    assert list(folder.glob("tests/**/test_*.py")), f"{distribution.name} has no tests"


def test_its_metadata_is_complete(distribution):
    project = distribution.project
    assert project["license"] == "Apache-2.0"
    assert project["readme"] == "README.md"
    assert project["requires-python"] == ">=3.11"
    assert project["description"] and re.fullmatch(r"\d+\.\d+\.\d+", project["version"])
    assert not distribution.package.is_symlink() and distribution.package.is_dir()


def test_it_is_found_by_the_name_of_its_distribution(distribution):
    if distribution.name == KERNEL:
        return
    entries = distribution.project["entry-points"]["martlet"]
    assert entries == {distribution.plugin: f"{distribution.package.name}.plugin"}


def test_no_plugin_is_named_like_a_scheme(distribution, repository):
    schemes = {spec.name for _, spec in repository.specs if spec.kind in ("hubs", "dataset_sources")}
    assert distribution.plugin not in schemes | {"hf", "ms", "file", "http", "https"}


def test_it_requires_the_kernel_with_both_bounds(distribution):
    if distribution.name == KERNEL:
        return
    found = [item for item in distribution.requirements if canonicalize_name(item.name) == KERNEL]
    assert len(found) == 1, "no requirement on the kernel"
    operators = {part.operator for part in found[0].specifier}
    assert operators == {">=", "<"}, f"{found[0]}: a lower and an upper bound are needed"


def test_it_pins_no_sibling(distribution, repository):
    first_party = {*repository.distributions, "martlet"}
    pinned = [
        str(item)
        for item in distribution.requirements
        if canonicalize_name(item.name) in first_party and {"==", "==="} & {part.operator for part in item.specifier}
    ]
    assert not pinned, "\n" + "\n".join(pinned)
    unbound = [
        str(i) for i in distribution.requirements if canonicalize_name(i.name) in first_party and not i.specifier
    ]
    assert not unbound, "\n" + "\n".join(unbound)


def test_it_imports_only_siblings_that_it_declares(distribution, repository):
    undeclared = [
        f"{distribution.place(file)}:{found.line} imports {found.root}"
        for file in distribution.sources
        for found in distribution.imports(file)
        if found.root in repository.owners
        and repository.owners[found.root] not in {*distribution.declared, distribution.name}
    ]
    assert not undeclared, "\n" + "\n".join(undeclared)


def test_it_takes_no_private_names_from_others(distribution, repository):
    private = [
        f"{distribution.place(file)}:{found.line} {found.module} {name}"
        for file in distribution.sources
        for found in distribution.imports(file)
        if found.root in repository.owners and repository.owners[found.root] != distribution.name
        for name in (*found.module.split("."), *found.names)
        if name.startswith("_")
    ]
    assert not private, "\n" + "\n".join(private)


def test_nobody_imports_contributed_plugins_or_the_sdk_at_run_time(distribution, repository):
    off_limits = {item.name for item in repository.distributions.values() if item.contrib} | {SDK}
    assert (repository.siblings(distribution) | distribution.declared) & off_limits - {distribution.name} == set()


def test_the_kernel_imports_no_plugin(repository):
    assert repository.siblings(repository.distributions[KERNEL], run_time_only=False) == set()


def test_imports_and_requirements_have_no_cycle(repository):
    graph = {
        name: (repository.siblings(item) | item.declared) & set(repository.distributions) - {name}
        for name, item in repository.distributions.items()
    }
    assert _cycle(graph) == []


def _cycle(graph: dict[str, set[str]]) -> list[str]:
    """Return one cycle of a graph, or nothing."""

    def walk(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        return next((found for other in sorted(graph[name]) if (found := walk(other, [*path, name]))), [])

    return next((found for name in sorted(graph) if (found := walk(name, []))), [])


def test_a_cycle_would_be_found():
    assert _cycle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == ["a", "b", "c", "a"]
    assert _cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_it_stands_at_most_three_levels_above_the_kernel(distribution, repository):
    def chain(name: str) -> list[str]:
        below = repository.siblings(repository.distributions[name]) - {KERNEL, SDK}
        return [name, *max((chain(other) for other in sorted(below)), key=len, default=[])]

    longest = chain(distribution.name)
    assert len(longest) <= LEVELS, " -> ".join(longest)


def test_the_kernel_depends_on_almost_nothing(repository):
    assert repository.distributions[KERNEL].declared == {"pluggy", "packaging", "pydantic", "pyyaml"}


def test_requirements_install_every_distribution(repository):
    lines = ROOT.joinpath("requirements.txt").read_text(encoding="utf-8").splitlines()
    editable = {
        line.removeprefix("-e").strip().removeprefix("./").partition("[")[0] for line in lines if line.startswith("-e")
    }
    wanted = {str(item.folder.relative_to(ROOT)) for item in repository.distributions.values()}
    assert wanted - editable == set()
    assert editable - wanted == {"."}


def test_the_whole_installs_the_kernel_the_sdk_and_every_plugin_of_ours(repository):
    project = tomllib.loads(ROOT.joinpath("pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = {re.split(r"[\[<>= ]", line)[0] for line in project["dependencies"]}
    extras = {
        re.split(r"[\[<>= ]", line)[0] for lines in project.get("optional-dependencies", {}).values() for line in lines
    }
    ours = {name for name, item in repository.distributions.items() if not item.contrib}
    assert ours - named - extras == set()
    assert named <= ours


def test_tox_tests_every_distribution_alone(repository):
    text = (ROOT / "tox.ini").read_text(encoding="utf-8")
    named = {name for group in re.findall(r"\[testenv:\{([^}]+)\}\]", text) for name in group.split(",")}
    ours = {d.name.removeprefix("martlet-") for d in repository.distributions.values() if not d.contrib}
    assert ours - {"martlet"} <= named
