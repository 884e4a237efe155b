"""Which hub is used, and why."""

from __future__ import annotations

import subprocess
import sys

import pytest

from martlet import ConfigError, UsageError
from martlet_sdk.contract import PluginContract


@pytest.mark.parametrize(
    "flags, name, reason",
    [({}, "ms", "use_hf is false"), ({"use_hf": True}, "hf", "use_hf is true"), ({"hub": "hf"}, "hf", "code")],
)
def test_use_hf_chooses_unless_a_hub_is_named(flags, name, reason, prepare):
    run = prepare(**flags)
    assert run.selected("hubs")[0].name == name
    assert reason in str(run.config.origin("hub"))


@pytest.mark.parametrize("value, name", [("1", "hf"), ("true", "hf"), ("0", "ms")])
def test_the_environment_may_say_it(value, name, prepare, monkeypatch):
    monkeypatch.setenv("USE_HF", value)
    run = prepare()
    assert run.selected("hubs")[0].name == name


def test_the_command_line_wins_over_the_environment(prepare, monkeypatch):
    monkeypatch.setenv("USE_HF", "1")
    assert prepare(use_hf=False).selected("hubs")[0].name == "ms"


def test_two_hubs_at_once_are_refused(prepare):
    with pytest.raises(ConfigError, match="--use_hf true and --hub ms name different hubs"):
        prepare(use_hf=True, hub="ms")


def test_a_misspelt_hub_is_refused(prepare):
    with pytest.raises(UsageError, match=r"--hub hff: No plugin provides hub 'hff'\. Did you mean hf"):
        prepare(hub="hff")


def test_a_scheme_reaches_either_hub(prepare):
    run = prepare()
    assert type(run.get("hubs", "hf")).__name__ == "HuggingFace"


def test_the_clients_are_imported_only_when_a_hub_is_used():
    code = (
        "import sys\n"
        "import martlet_hub.huggingface, martlet_hub.modelscope, martlet_hub.resolve\n"
        "print([name for name in ('huggingface_hub', 'modelscope_hub', 'requests', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


class TestHubs(PluginContract):
    plugin = "hub"
