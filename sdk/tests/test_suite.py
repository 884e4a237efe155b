"""``PluginContract`` in a test module of somebody else."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

MODULE = """
from martlet_sdk.contract import PluginContract, Samples


class TestMine(PluginContract):
    plugin = {plugin!r}
    samples = Samples(skip={{"unknown_columns": "it is closed"}})
"""


@pytest.fixture
def pytest_says(source, tmp_path):
    """Return a function that runs pytest on a contract of the reward, changed or not, and gives its report."""

    def run(old="", new=""):
        plugin = tmp_path / "stranger.py"
        plugin.write_text(source("reward").replace(old, new) if old else source("reward"))
        (tmp_path / "test_stranger.py").write_text(MODULE.format(plugin=str(plugin)))
        command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "test_stranger.py"]
        return subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, env=os.environ | {"COLUMNS": "200"}, timeout=120
        )

    return run


def test_every_check_is_a_test_of_its_own(pytest_says):
    said = pytest_says()
    assert said.returncode == 0, said.stdout
    assert "test_plugin[listing_is_light] PASSED" in said.stdout
    assert "test_component[rewards:my-name:one_score_each] PASSED" in said.stdout
    assert "test_component[rewards:my-name:unknown_columns] SKIPPED (it is closed)" in said.stdout


def test_a_broken_check_fails_with_its_message_and_without_the_kit_in_the_traceback(pytest_says):
    said = pytest_says("return [", "return [0] + [")
    assert said.returncode == 1
    assert "test_component[rewards:my-name:one_score_each] FAILED" in said.stdout
    assert "it returned 5 scores for 4 completions. [" in said.stdout
    assert "contract/rewards.py" not in said.stdout


def test_a_plugin_that_does_not_load_is_a_failing_test_not_a_collection_error(pytest_says):
    said = pytest_says("from martlet", "import no_such_package\nfrom martlet")
    assert said.returncode == 1
    assert "test_plugin[loads] FAILED" in said.stdout
    assert "errors during collection" not in said.stdout


def test_the_kit_is_no_pytest_plugin_that_loads_itself():
    from importlib import metadata

    assert not [entry for entry in metadata.entry_points(group="pytest11") if entry.value.startswith("martlet")]
