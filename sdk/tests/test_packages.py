"""Packages that ``plugin new --package`` writes are installed by pip, and found by name, as a stranger's are."""

from __future__ import annotations

import json
from importlib import metadata

import pytest

from martlet.cli import main
from martlet_sdk.scaffold import SCAFFOLDS
from martlet_sdk.stranger import Stranger

NEEDS = {"template": "martlet-text", "launcher": "martlet-launch"}
"""Kinds whose scaffold does nothing without a sibling."""
OPTIONAL = {"it has no reference(): algorithms that compare load a second model."}
"""Why a check is left out of what the scaffolds do not show."""
NAMES = {kind: f"night-{kind.replace('_', '-')}" for kind in SCAFFOLDS}


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    """Scaffold a package of every kind and install them all."""
    root = tmp_path_factory.mktemp("stranger")
    for kind, name in NAMES.items():
        assert main(["plugin", "new", kind, name, "--package", "--folder", str(root)]) == 0
    place = Stranger(root)
    place.install(*(root / f"martlet-{name}" for name in NAMES.values()))
    return place


@pytest.fixture(scope="module")
def results(stranger):
    """Check every package by name, in one process; plugin -> its results."""
    names = [name for kind, name in NAMES.items() if _has(NEEDS.get(kind, "martlet-kernel"))]
    rows = [json.loads(line) for line in stranger.martlet("plugin", "check", *names, "--json").splitlines()]
    return {name: [row for row in rows if row["plugin"] == name] for name in names}


def _has(distribution):
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def test_pip_installs_wheels_and_not_links_to_the_sources(stranger):
    found = {path.name for path in stranger.library.iterdir()}
    assert {f"martlet_{name.replace('-', '_')}" for name in NAMES.values()} <= found
    assert (stranger.library / "martlet_night_dataset" / "night_dataset.jsonl").is_file()
    assert (stranger.library / "martlet_night_loss" / "py.typed").is_file()


def test_all_are_listed_by_name(stranger):
    found = json.loads(stranger.martlet("plugin", "list", "--json"))
    plugins = {plugin["name"]: plugin for plugin in found["plugins"]}
    for name in NAMES.values():
        assert plugins[name]["origin"] == f"martlet-{name}"
        assert plugins[name]["version"] == "0.1.0"
        assert plugins[name]["error"] == ""
    components = {(row["plugin"], row["name"]) for row in found["components"]}
    assert {(name, name) for name in NAMES.values()} <= components


@pytest.mark.parametrize("kind", [kind for kind in SCAFFOLDS if kind not in NEEDS])
def test_each_keeps_its_contract(kind, results):
    rows = results[NAMES[kind]]
    assert len(rows) > 11
    assert [row for row in rows if row["outcome"] != "passed" and row["message"] not in OPTIONAL] == []


@pytest.mark.parametrize("kind", NEEDS)
def test_each_that_leans_on_a_sibling_keeps_its_contract(kind, results):
    if NAMES[kind] not in results:
        pytest.skip(f"it needs {NEEDS[kind]}")
    assert [row for row in results[NAMES[kind]] if row["outcome"] != "passed"] == []


def test_its_own_tests_pass(stranger):
    tests = str(stranger.root / "martlet-night-reward" / "tests")
    said = stranger.run(str(stranger.python), "-m", "pytest", "-v", "-p", "no:cacheprovider", tests)
    assert "rewards:night-reward:one_score_each" in said and " passed" in said


def test_the_requirement_on_the_kernel_has_both_bounds(stranger):
    (info,) = stranger.library.glob("martlet_night_tuner-*.dist-info")
    requires = metadata.PathDistribution(info).requires
    assert any(line.startswith("martlet-kernel<") and ">=" in line for line in requires)


def test_a_project_folder_is_checked_by_its_plugin(stranger):
    said = stranger.martlet("plugin", "check", str(stranger.root / "martlet-night-reward"))
    assert "passed  rewards:night-reward:one_score_each" in said


def test_a_project_that_is_not_installed_says_so(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("MARTLET_DISABLE_PLUGIN_AUTOLOAD")
    main(["plugin", "new", "reward", "early", "--package", "--folder", str(tmp_path)])
    assert main(["plugin", "check", str(tmp_path / "martlet-early")]) == 2
    assert "pip install -e" in capsys.readouterr().err


def test_no_placeholder_is_left(stranger):
    for name in NAMES.values():
        for path in (stranger.root / f"martlet-{name}").rglob("*"):
            if path.suffix in (".py", ".md", ".toml"):
                text = path.read_text()
                assert not [word for word in ("my_name", "my-name", "MyName", "$") if word in text], path
