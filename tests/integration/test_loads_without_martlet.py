"""What training saved loads with plain transformers and PEFT where there is no Martlet, and gives equal logits."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_jobs import QUICK, newest

import martlet
from martlet.protocols import Request, Sampling

ELSEWHERE = """
import json, sys

class NoMartlet:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0].startswith("martlet"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NoMartlet())
try:
    import martlet
    raise SystemExit("martlet can be imported")
except ModuleNotFoundError:
    pass

import torch
from peft import AutoPeftModelForCausalLM, PeftModel
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

job = json.loads(sys.stdin.read())
found = {}
with torch.no_grad():
    for name, folder in job["folders"].items():
        tokenizer = AutoTokenizer.from_pretrained(folder)
        form = {"add_generation_prompt": True, "return_tensors": "pt", "return_dict": True}
        ids = tokenizer.apply_chat_template(job["messages"], **form)
        if name == "lora":
            base = AutoModelForCausalLM.from_pretrained(job["base"])
            model = PeftModel.from_pretrained(base, folder)
            again = AutoPeftModelForCausalLM.from_pretrained(folder)
            assert torch.equal(again(**ids).logits, model(**ids).logits)
        else:
            model = AutoModelForCausalLM.from_pretrained(folder)
        model.eval()
        found[name] = model(**ids).logits[0]
        answer = model.generate(**ids, max_new_tokens=8, do_sample=False)[0, ids["input_ids"].shape[1]:]
        found[f"{name} ids"], found[f"{name} answer"] = ids["input_ids"][0], answer
save_file(found, job["result"])
print(sorted(name for name in sys.modules if name.startswith("martlet")))
"""
MESSAGES = [{"role": "user", "content": "Which bird never lands?"}]


@pytest.fixture(scope="module")
def saved(tiny_model, rows, tmp_path_factory) -> dict[str, Path]:
    """Return checkpoints of a full run and of a LoRA run, and the merged adapter."""
    here = tmp_path_factory.mktemp("saved")
    job = {**QUICK, "model": str(tiny_model), "dataset": [str(rows)], "max_steps": 4, "learning_rate": 1e-2}
    for tuner in ("full", "lora"):
        martlet.run("sft", **job, tuner_type=tuner, output_dir=str(here / tuner))
    folders = {tuner: newest(here / tuner) for tuner in ("full", "lora")}
    merged = martlet.run("merge-lora", adapters=[str(folders["lora"])], output_dir=str(here / "merged"))
    return {**folders, "merged": Path(merged)}


def test_it_loads_elsewhere_with_equal_logits(saved, tiny_model, tmp_path):
    from peft import PeftModel
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    job = {
        "folders": {name: str(folder) for name, folder in saved.items()},
        "base": str(tiny_model),
        "messages": MESSAGES,
        "result": str(tmp_path / "logits.safetensors"),
    }
    program = [sys.executable, "-c", ELSEWHERE]
    done = subprocess.run(program, input=json.dumps(job), capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    found = load_file(tmp_path / "logits.safetensors")
    untrained = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    for name, folder in saved.items():
        engine = martlet.get("engines", "transformers")
        settings = {"adapters": [str(folder)]} if name == "lora" else {"model": str(folder)}
        engine.load(run=martlet.prepare("infer", load_args=True, **settings))
        (answer,) = engine.infer([Request(MESSAGES)], Sampling(max_new_tokens=8, temperature=0.0))
        stops = [found[f"{name} answer"].tolist()]
        assert answer.token_ids == stops[0][: len(answer.token_ids)] and answer.token_ids
        ids = found[f"{name} ids"][None]
        with torch.no_grad():
            model = AutoModelForCausalLM.from_pretrained(tiny_model if name == "lora" else folder).eval()
            model = PeftModel.from_pretrained(model, folder).eval() if name == "lora" else model
            assert torch.equal(found[name], model(ids).logits[0])
            assert not torch.allclose(found[name], untrained(ids).logits[0], atol=1e-2)
    torch.testing.assert_close(found["merged"], found["lora"], rtol=1e-4, atol=1e-4)


def test_nothing_that_was_written_is_a_pickle(saved):
    for root in {folder.parent if folder.name.startswith("checkpoint") else folder for folder in saved.values()}:
        for path in (path for path in root.rglob("*") if path.is_file()):
            assert path.suffix not in (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"), path
            assert not path.name.startswith(("training_args", "rng_state")), path
            head = path.read_bytes()[:4]
            assert not head.startswith((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04")), path


def test_a_checkpoint_holds_what_its_readers_look_for(saved):
    tokenizer = {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"}
    ours = {"args.json", "trainer_state.json", "checkpoint.json"}
    names = {name: {path.name for path in folder.iterdir()} for name, folder in saved.items()}
    assert names["full"] >= {"config.json", "model.safetensors"} | tokenizer | ours
    assert names["lora"] >= {"adapter_config.json", "adapter_model.safetensors"} | tokenizer | ours
    assert names["merged"] >= {"config.json", "model.safetensors", "args.json"} | tokenizer
    assert "config.json" not in names["lora"] and "adapter_config.json" not in names["full"] | names["merged"]
    assert json.loads((saved["lora"] / "adapter_config.json").read_text())["base_model_name_or_path"]
