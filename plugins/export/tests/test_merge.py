"""``martlet merge-lora`` on tiny models with real adapters."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import martlet
from martlet import CheckpointError, UsageError
from martlet.cli import main


@pytest.fixture(scope="session")
def adapters(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two LoRA adapters that change the model visibly, as training leaves them."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folders = []
    for number in (1, 2):
        torch.manual_seed(number)
        model = get_peft_model(
            AutoModelForCausalLM.from_pretrained(tiny_model),
            LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM"),
        )
        folders.append(tmp_path_factory.mktemp("run") / f"checkpoint-{number}")
        model.save_pretrained(folders[-1])
        recorded = {"model": str(tiny_model), "tuner_type": "lora", "output_dir": "gone", "adapters": []}
        (folders[-1] / "args.json").write_text(json.dumps(recorded))
    return folders


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(torch.arange(7, 60)[None]).logits
    return found


def test_the_merged_model_is_the_adapted_one_for_plain_transformers(
    tiny_model: Path, adapters: list[Path], tmp_path: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    target = martlet.run("merge-lora", adapters=[str(adapters[0])], output_dir=str(tmp_path / "merged"))
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    before = logits(base)
    adapted = logits(PeftModel.from_pretrained(base, adapters[0]))
    merged = logits(AutoModelForCausalLM.from_pretrained(target))
    assert (adapted - before).abs().max() > 0.1
    assert torch.allclose(merged, adapted, atol=1e-4)
    messages = [{"role": "user", "content": "hi"}]
    ask = {"tokenize": False, "add_generation_prompt": True}
    assert AutoTokenizer.from_pretrained(target).apply_chat_template(messages, **ask) == AutoTokenizer.from_pretrained(
        tiny_model
    ).apply_chat_template(messages, **ask)


def test_the_folder_is_complete_without_martlet(adapters: list[Path], tmp_path: Path) -> None:
    target = martlet.run("merge-lora", adapters=[str(adapters[0])], output_dir=str(tmp_path / "merged"))
    names = {path.name for path in target.iterdir()}
    assert names >= {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "args.json"}
    assert not [name for name in names if name.startswith("adapter") or name.endswith((".bin", ".pt"))]
    code = (
        "import sys; sys.modules['martlet'] = sys.modules['peft'] = None\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        f"inputs = AutoTokenizer.from_pretrained({str(target)!r})('hi', return_tensors='pt')\n"
        f"AutoModelForCausalLM.from_pretrained({str(target)!r}).generate(**inputs, max_new_tokens=2)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_several_adapters_are_merged_in_order(tiny_model: Path, adapters: list[Path], tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    both = martlet.run("merge-lora", adapters=[str(path) for path in adapters], output_dir=str(tmp_path / "both"))
    first = martlet.run("merge-lora", adapters=[str(adapters[0])], output_dir=str(tmp_path / "first"))
    chained = martlet.run(
        "merge-lora", model=str(first), adapters=[str(adapters[1])], output_dir=str(tmp_path / "chained")
    )
    results = [logits(AutoModelForCausalLM.from_pretrained(folder)) for folder in (both, chained)]
    assert torch.allclose(*results, atol=1e-4)


def test_by_default_it_goes_beside_the_adapter_and_is_never_overwritten(
    adapters: list[Path], tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["merge-lora", "--adapters", str(adapters[1])]
    assert main(words) == 0
    target = adapters[1].with_name("checkpoint-2-merged")
    assert f"martlet infer --model {target}" in capsys.readouterr().out
    stamp = (target / "model.safetensors").stat().st_mtime_ns
    assert main(words) == 2
    assert "--exist_ok" in capsys.readouterr().err
    assert (target / "model.safetensors").stat().st_mtime_ns == stamp
    assert main([*words, "--exist_ok"]) == 0
    assert (target / "model.safetensors").stat().st_mtime_ns != stamp


def test_recorded_settings_follow_but_for_those_of_the_training(adapters: list[Path], tmp_path: Path) -> None:
    target = martlet.run("merge-lora", adapters=[str(adapters[0])], output_dir=str(tmp_path / "merged"))
    recorded = json.loads((target / "args.json").read_text())
    assert recorded["tuner_type"] == "lora"
    assert not {"model", "adapters", "output_dir"} & set(recorded)


def test_large_models_are_written_in_parts(adapters: list[Path], tmp_path: Path) -> None:
    target = martlet.run(
        "merge-lora", adapters=[str(adapters[0])], output_dir=str(tmp_path / "parts"), max_shard_size="200KB"
    )
    assert len(list(target.glob("model-*.safetensors"))) > 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "--adapters is missing"),
        ({"adapters": 0, "tuner_type": "full"}, "--tuner_type full: .* cannot be merged"),
        ({"adapters": 0, "max_shard_size": "big"}, "--max_shard_size big"),
        ({"adapters": 0, "safe_serialization": False}, "safe_serialization"),
    ],
)
def test_what_cannot_be_merged_is_refused_before_anything_is_loaded(
    tiny_model: Path, adapters: list[Path], settings: dict[str, Any], words: str
) -> None:
    if "adapters" in settings:
        settings = {**settings, "adapters": [str(adapters[settings["adapters"]])]}
    with pytest.raises(UsageError, match=words):
        martlet.run("merge-lora", model=str(tiny_model), **settings)


def test_the_base_model_and_the_adapter_are_never_the_target(tiny_model: Path, adapters: list[Path]) -> None:
    for folder in (tiny_model, adapters[0], adapters[0].parent):
        with pytest.raises(UsageError, match="is read from there"):
            martlet.run("merge-lora", adapters=[str(adapters[0])], output_dir=str(folder), exist_ok=True)


@pytest.mark.parametrize("altered", ["model", "adapter"])
def test_one_flipped_byte_in_a_checkpoint_is_refused(
    tiny_model: Path, adapters: list[Path], tmp_path: Path, altered: str
) -> None:
    folders = {"model": tmp_path / "checkpoint-1", "adapter": tmp_path / "checkpoint-2"}
    shutil.copytree(tiny_model, folders["model"])
    shutil.copytree(adapters[0], folders["adapter"])
    weights = {"model": "model.safetensors", "adapter": "adapter_model.safetensors"}[altered]
    data = bytearray((folders[altered] / weights).read_bytes())
    entry = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    index = {"format": "martlet-checkpoint", "version": 2, "sequence": 1, "facts": {}, "files": {weights: entry}}
    (folders[altered] / "checkpoint.json").write_text(json.dumps(index))
    settings = {"model": str(folders["model"]), "adapters": [str(folders["adapter"])], "exist_ok": True}
    assert martlet.run("merge-lora", **settings, output_dir=str(tmp_path / "merged")).is_dir()
    data[-1] ^= 1
    (folders[altered] / weights).write_bytes(data)
    with pytest.raises(CheckpointError, match=rf"{weights}: altered since training wrote it"):
        martlet.run("merge-lora", **settings, output_dir=str(tmp_path / "again"))
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize("room", [100, 200_000], ids=["for nothing", "for the configuration alone"])
def test_a_full_disk_is_told_in_a_sentence_and_leaves_nothing(adapters: list[Path], tmp_path: Path, room: int) -> None:
    """A limit on the size of files stands in for the disk: the system refuses to write in the same way."""
    code = (
        "import resource, signal, sys\n"
        "from martlet.cli import main\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, {room}))\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    words = ["merge-lora", "--adapters", str(adapters[0]), "--output_dir", str(tmp_path / "merged")]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert f"error: --output_dir {tmp_path / 'merged'}: cannot be written (File too large" in done.stderr
    assert not list(tmp_path.iterdir())
