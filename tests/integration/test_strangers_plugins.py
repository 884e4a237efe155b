"""Files that a stranger wrote, a dozen lines each, take part in a real run; none of them is installed."""

from __future__ import annotations

import json
import multiprocessing
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_jobs import QUICK, digests, losses, newest, record, words_of

import martlet

HERE = Path(__file__).parent / "strangers"
KINDS = {
    "unsure": "losses",
    "play": "templates",
    "sums": "datasets",
    "norms": "tuners",
    "lowest": "callbacks",
    "brief": "rewards",
    "rare_words": "loss_scales",
}


def files(*names: str) -> list[Path]:
    return [HERE / f"{name}.py" for name in names]


@pytest.mark.parametrize("name", [*KINDS, "slow_steps"])
def test_each_keeps_its_contract(name, typed):
    done = typed("plugin", "check", HERE / f"{name}.py")
    assert done.code == 0, done.out
    assert " 0 failed" in done.out.splitlines()[-1] and "failed  " not in done.out
    lines = (HERE / f"{name}.py").read_text().splitlines()
    assert sum(bool(line.strip()) for line in lines) <= 12


def test_they_are_listed_beside_the_installed_ones(typed):
    done = typed("plugin", "list", "--json", "--external_plugins", *files(*KINDS))
    found = json.loads(done.out)
    components = {(row["plugin"], row["kind"], row["name"]) for row in found["components"]}
    assert {(name, kind, name) for name, kind in KINDS.items()} <= components
    assert {str(path) for path in files(*KINDS)} <= {row["origin"] for row in found["plugins"]}
    assert "unsure" in typed("plugin", "list", "--kind", "loss", "--external_plugins", *files("unsure")).out
    assert "unsure" not in typed("plugin", "list").out


@pytest.fixture
def together(tiny_model, tmp_path):
    """Return the words of a run in which every one of them takes part but the reward."""
    chosen = {"loss_type": "unsure", "template": "play", "dataset": "sums", "tuner_type": "norms"}
    chosen |= {"callbacks": "lowest", "loss_scale": "default+rare_words", "external_plugins": files(*KINDS)}
    settings = {**QUICK, **chosen, "model": tiny_model, "max_steps": 3, "logging_steps": 1, "save_steps": 2}
    return ["sft", *words_of({**settings, "learning_rate": 0.1, "output_dir": tmp_path / "output"})]


def test_one_run_uses_them_all(together, typed, tiny_model, tmp_path):
    done = typed(*together)
    assert done.code == 0, done.err
    assert "lowest at step 1" in done.out
    assert "ANN: What is" in done.err and "BOB:\n⟦It is" in done.err
    folder = tmp_path / "output"
    used = {(row["kind"], row["name"], row["plugin"]) for row in record(folder)["components"]}
    taking_part = {(kind, name, name) for name, kind in KINDS.items() if kind != "rewards"}
    assert taking_part <= used
    sums = {row["name"]: row["sha256"] for row in record(folder)["plugins"]}
    for name in KINDS:
        assert sums[name] == digests(HERE / f"{name}.py")["."]
    base, trained = load_file(tiny_model / "model.safetensors"), load_file(newest(folder) / "model.safetensors")
    changed = {name for name, tensor in trained.items() if not torch.equal(tensor, base[name])}
    assert changed and all("norm" in name for name in changed)
    assert json.loads((folder / "ledger.json").read_text())["totals"]["read"] == 6


def test_the_run_goes_on_from_its_checkpoint(together, typed, tmp_path):
    assert typed(*together).code == 0
    whole = losses(tmp_path / "output")
    resumed = typed(*together, "--resume_from_checkpoint", tmp_path / "output" / "checkpoint-2")
    assert resumed.code == 0, resumed.err
    assert losses(tmp_path / "output") == whole


def test_the_plan_tells_of_them_and_does_nothing(together, typed, tmp_path):
    done = typed("plan", *together, "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert {name for name, kind in KINDS.items() if kind not in ("rewards", "datasets")} <= {
        row["name"] for row in found["components"]
    }
    assert found["facts"]["steps"] == 3
    assert found["facts"]["parameters"]["trained"] < found["facts"]["parameters"]["total"]
    assert not (tmp_path / "output").exists()


def test_data_workers_have_them(together, typed, tmp_path, monkeypatch):
    monkeypatch.setenv("WITNESS", str(tmp_path / "seen"))
    more = ["--dataloader_num_workers", 2, "--dataset_num_proc", 2, "--external_plugins", *files(*KINDS, "witness")]
    done = typed(*together, *more)
    assert done.code == 0, done.err
    seen = [line.split(":") for line in (tmp_path / "seen").read_text().splitlines()]
    assert [number for kind, number in seen if kind == "main"] == [str(os.getpid())]
    workers = {number for kind, number in seen if kind == "data worker"}
    assert len(workers) >= 2 and str(os.getpid()) not in workers


def test_a_spawned_process_finds_them(monkeypatch):
    reward = martlet.get("rewards", "brief", external_plugins=[str(HERE / "brief.py")])
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(reward, (["", "abc"],)) == [1.0, 0.25]


def test_a_checkpoint_names_them_and_nothing_imports_them(trained, typed, rows):
    made = trained(max_steps=1, external_plugins=files("unsure", "lowest"), loss_type="unsure", callbacks="lowest")
    result = made / "answers.jsonl"
    words = ["--val_dataset", f"{rows}#1", "--max_new_tokens", 2, "--result_path", result]
    done = typed("infer", "--adapters", newest(made), *words)
    assert done.code == 0, done.err
    hint = f"--external_plugins {' '.join(str(path) for path in files('unsure', 'lowest'))}"
    assert sum(hint in line and line.startswith("WARNING: ") for line in done.err.splitlines()) == 1
    assert len(result.read_text().splitlines()) == 1
    assert "lowest" not in typed("plugin", "list").out
