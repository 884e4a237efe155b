"""Plugins that keep their contract pass every check of their kind."""

from __future__ import annotations

import pytest

from martlet_sdk.contract import Samples

SCAFFOLDS = ["reward", "loss", "dataset", "callback", "tuner", "preprocessor", "loss_scale", "agent_template"]
OWN = ["engine", "template", "source", "model", "trainer", "command", "hub", "launcher", "pair_loss"]


@pytest.mark.parametrize("name", SCAFFOLDS + OWN)
def test_a_good_plugin_fails_no_check_and_is_not_skipped(name, verdict, tmp_path, monkeypatch):
    repository = tmp_path / "shelf" / "owner" / "model"
    repository.mkdir(parents=True)
    (repository / "config.json").write_text("{}")
    monkeypatch.setenv("SHELF", str(tmp_path / "shelf"))
    found = verdict(name, samples=Samples(paths={"shelf": "owner/model"}))
    assert found
    assert {id: result.message for id, result in found.items() if result.outcome != "passed"} in ({}, _told(found))


def _told(found):
    """What may be left out: the listing of a group in the plugin's own file, and abilities that are optional."""
    allowed = (
        "the group stands in the plugin's own file, whose listing is checked.",
        "its rows have no stream.",
        "it does not say that it can score.",
        "it has no reference(): algorithms that compare load a second model.",
    )
    return {id: r.message for id, r in found.items() if r.outcome == "skipped" and r.message in allowed}


@pytest.mark.parametrize("name", ["reward", "command", "event"])
def test_general_checks_pass(name, verdict):
    found = verdict(name, general=True)
    assert {id: r.message for id, r in found.items() if r.outcome == "failed"} == {}
