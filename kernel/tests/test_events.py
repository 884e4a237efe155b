"""What plugins are told of, which of them are, and where their errors show."""

from __future__ import annotations

import importlib
import pickle

import pytest

import martlet
from martlet import MartletError

EVENTS = """
from martlet import ConfigError, Loss, hookimpl

seen = []

@hookimpl
def provide_losses():
    yield Loss("watched", len)

@hookimpl
def on_process_start(process):
    seen.append(f"process {process.kind} {process.rank}")

@hookimpl
def on_config(config):
    seen.append(f"config {config.command.name}")
    if config.command.name == "demo" and config.value("steps") == 13:
        raise ConfigError("13 steps bring bad luck; use 14.")

@hookimpl
def on_run_start(run):
    seen.append(f"start {run.command}")

@hookimpl
def on_run_end(run, error):
    seen.append(f"end {error!r}")
"""

ALL = ["process main 0", "config demo", "start demo", "end None"]


def events(name: str) -> list[str]:
    return importlib.import_module(name).seen


def test_a_plugin_that_the_user_named_hears_everything_in_order(plugin, demo):
    martlet.run("demo", external_plugins=[demo, plugin("watch", EVENTS)])
    assert events("martlet.external.watch") == ALL


def test_a_plugin_that_is_only_installed_hears_nothing(site, demo):
    module = site.install("watch", EVENTS)
    martlet.run("demo", external_plugins=[demo])
    assert events(module) == []


def test_a_plugin_whose_component_is_selected_hears_everything(site, demo):
    module = site.install("watch", EVENTS)
    martlet.run("demo", external_plugins=[demo], loss="watched")
    assert events(module) == ALL


WATCH_FLAG = """
from dataclasses import dataclass
from martlet import Arguments

@dataclass
class Group:
    watch: bool = False

@hookimpl
def provide_arguments():
    yield Arguments("watch", Group, roles=("demo",))
"""


def test_a_plugin_whose_flag_is_set_hears_everything(site, demo):
    module = site.install("watch", EVENTS + WATCH_FLAG)
    martlet.run("demo", external_plugins=[demo], steps=3)
    assert events(module) == []
    martlet.run("demo", external_plugins=[demo], watch=False)
    assert events(module) == ALL


def test_a_plugin_may_refuse_a_configuration(plugin, refused, demo, tmp_path):
    words = ["--external_plugins", demo, plugin("watch", EVENTS), "--steps", "13", "--folder", tmp_path / "out"]
    assert "13 steps bring bad luck" in refused("demo", *words)
    assert not (tmp_path / "out").exists()


def test_an_event_that_raises_names_its_plugin(plugin, refused, demo):
    broken = EVENTS.replace('seen.append(f"start {run.command}")', "raise RuntimeError('no driver')")
    said = refused("demo", "--external_plugins", demo, plugin("watch", broken))
    assert "'watch'" in said and "on_run_start" in said and "no driver" in said


FAILING = """
from martlet import Command, DataError, hookimpl

def main(run):
    raise DataError("row 3")

@hookimpl
def provide_commands():
    yield Command("fail", main)
"""


def test_the_end_is_told_of_the_error(plugin):
    with pytest.raises(MartletError, match="row 3"):
        martlet.run("fail", external_plugins=[plugin("failing", FAILING), plugin("watch", EVENTS)])
    assert events("martlet.external.watch")[-1] == "end DataError('row 3')"


LATE = """
from martlet import hookimpl

@hookimpl
def on_run_end(error):
    raise RuntimeError("too late")
"""


def test_an_error_at_the_end_does_not_hide_the_one_before(plugin, capsys):
    with pytest.raises(MartletError, match="row 3"):
        martlet.run("fail", external_plugins=[plugin("failing", FAILING), plugin("late", LATE)])
    assert "too late" in capsys.readouterr().err


def test_a_hook_may_take_fewer_arguments(plugin, demo):
    watch = plugin(
        "watch", "from martlet import hookimpl\nseen = []\n@hookimpl\ndef on_run_end():\n    seen.append(1)\n"
    )
    martlet.run("demo", external_plugins=[demo, watch])
    assert events("martlet.external.watch") == [1]


# Data workers


def test_data_workers_tell_the_same_plugins_and_load_none(plugin, demo):
    run = martlet.prepare("demo", external_plugins=[demo, plugin("watch", EVENTS)])
    start = pickle.loads(pickle.dumps(run.worker_init))
    start(0)
    start(1)
    assert events("martlet.external.watch") == ["process data worker 0"] * 2


def test_a_start_hook_without_parameters_works_in_a_data_worker(plugin, demo):
    watch = plugin(
        "watch", "from martlet import hookimpl\nseen = []\n@hookimpl\ndef on_process_start():\n    seen.append(1)\n"
    )
    martlet.prepare("demo", external_plugins=[demo, watch]).worker_init(0)
    assert events("martlet.external.watch") == [1]


def test_a_data_worker_starts_in_a_fresh_process(plugin, python, demo):
    program = """
        import multiprocessing, sys
        import martlet

        def work(start, queue):
            start(0)
            queue.put(sys.modules["martlet.external.watch"].seen)

        if __name__ == "__main__":
            run = martlet.prepare("demo", external_plugins=sys.argv[1:])
            context = multiprocessing.get_context("spawn")
            queue = context.Queue()
            child = context.Process(target=work, args=(run.worker_init, queue))
            child.start()
            print(queue.get(timeout=50))
            child.join()
    """
    result = python(program, demo, plugin("watch", EVENTS))
    assert result.stdout.strip() == "['process data worker 0']", result.stderr
