"""The plugin keeps the contract of its kinds: the launcher starts ranks and tells of their failure."""

from __future__ import annotations

import pytest

import martlet
import martlet_launch.torchrun as torchrun
from martlet_launch.args import LaunchArguments
from martlet_sdk.contract import PluginContract


class TestLaunch(PluginContract):
    plugin = "launch"


@pytest.mark.parametrize(("cores", "processes", "each"), [(8, 2, 4), (8, 3, 2), (2, 8, 1)])
def test_processes_share_the_cores(cores, processes, each, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(cores)))
    assert torchrun.threads(processes) == each


@pytest.mark.parametrize(("devices", "refused"), [(0, False), (1, True), (2, False)])
def test_more_processes_than_devices_are_refused(devices, refused, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: devices)
    run = martlet.prepare(roles=("train",), nproc_per_node=2)
    if not refused:
        torchrun._check_devices(run, run.config[LaunchArguments])
        return
    with pytest.raises(martlet.UsageError, match="needs a GPU of its own, and torch sees 1"):
        torchrun._check_devices(run, run.config[LaunchArguments])
