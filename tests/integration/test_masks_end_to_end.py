"""What `data preview` shows is what training sees, and what inference sends is where training's text goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_jobs import QUICK, conversation, words_of, write_rows

import martlet
from martlet.protocols import Request, Sampling
from martlet_sdk.tiny import CHATML_THINKING, LLAMA3, save_tiny_model

STRANGERS = Path(__file__).parent / "strangers"
WEATHER = {
    "tools": [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}],
    "messages": [
        {"role": "user", "content": "Weather in Oslo?"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}],
        },
        {"role": "tool", "content": "Rain"},
        {"role": "assistant", "content": "It rains in Oslo."},
    ],
}
THOUGHT = {
    "messages": [
        {"role": "user", "content": "2 + 2?"},
        {"role": "assistant", "content": "4", "reasoning_content": "Two and two."},
        {"role": "user", "content": "Sure?"},
        {"role": "assistant", "content": "Yes, 4.", "reasoning_content": "It was right."},
    ]
}
TALK = [conversation(number) for number in range(4)]
CASES: dict[str, tuple[str, list[dict[str, Any]], dict[str, Any]]] = {
    "the model's own ChatML, with tools": ("chatml", [*TALK, WEATHER], {}),
    "ChatML that forgets thoughts": ("thinking", [THOUGHT, TALK[0]], {"loss_scale": "last_round"}),
    "Llama 3's own": ("llama3", TALK, {"system": "Be kind."}),
    "declarative ChatML": ("plain", TALK, {"template": "chatml"}),
    "declarative default, every token": ("plain", TALK, {"template": "default", "loss_scale": "all"}),
    "a stranger's, weighted by a stranger": (
        "plain",
        TALK,
        {
            "template": "play",
            "loss_scale": "rare_words",
            "external_plugins": [str(STRANGERS / f"{name}.py") for name in ("play", "rare_words")],
        },
    ),
    "text to go on": ("plain", [{"text": "The swift sleeps on the wing."}, {"text": "So it does."}], {"command": "pt"}),
    "cut on the left": ("chatml", TALK, {"max_length": 40, "truncation_strategy": "left"}),
    "cut on the right": ("chatml", TALK, {"max_length": 60, "truncation_strategy": "right"}),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    here = tmp_path_factory.mktemp("models")
    templates = {"thinking": CHATML_THINKING, "llama3": LLAMA3, "plain": None}
    made = {name: save_tiny_model(here / name, layers=1, template=text) for name, text in templates.items()}
    return made | {"chatml": save_tiny_model(here / "chatml", layers=1)}


@pytest.fixture
def seen(monkeypatch) -> list[dict[str, Any]]:
    """Return the rows that the training steps get, as they get them, one row a batch."""
    from martlet_train.trainer import CoreTrainer

    found: list[dict[str, Any]] = []
    step = CoreTrainer.training_step

    def watched(self: Any, model: Any, inputs: Any, *more: Any, **named: Any) -> Any:
        ids = inputs.model_inputs["input_ids"][0]
        labels, weights = torch.full_like(ids, -100), torch.zeros(len(ids))
        labels[inputs.columns + 1] = inputs.targets
        weights[inputs.columns + 1] = 1.0 if inputs.weights is None else inputs.weights
        found.append({"input_ids": ids.tolist(), "labels": labels.tolist(), "token_weights": weights.tolist()})
        return step(self, model, inputs, *more, **named)

    monkeypatch.setattr(CoreTrainer, "training_step", watched)
    return found


@pytest.mark.parametrize("case", CASES)
def test_what_is_shown_is_what_is_trained_on(case, models, typed, trained, seen, tmp_path):
    name, lines, settings = CASES[case]
    rows = write_rows(tmp_path / "rows.jsonl", lines)
    shared = {key: value for key, value in settings.items() if key != "command"}
    if "command" in settings:  # what the command pt sets for itself
        shared |= {"use_chat_template": False, "loss_scale": "all"}
    preview = {"model": models[name], "dataset": rows, "dataset_shuffle": False, **shared}
    done = typed("data", "preview", "--json", "--n", len(lines), *words_of(preview))
    assert done.code == 0, done.err
    shown = [json.loads(line) for line in done.out.splitlines()]
    order = {"train_dataloader_shuffle": False, "dataset_shuffle": False, "gradient_accumulation_steps": len(lines)}
    trained(model=models[name], dataset=rows, max_steps=1, save_strategy="no", **order, **settings)
    assert len(shown) == len(seen) == len(lines)
    run = martlet.prepare(roles=("model",), model=str(models[name]))
    tokenizer = run.one("models").load_processor(run)
    decode = tokenizer.decode
    for row, batch in zip(shown, seen, strict=True):
        first = row["labels"][0] != -100  # the first token of a sequence is never predicted
        ids, labels = row["input_ids"], [-100 if first else row["labels"][0], *row["labels"][1:]]
        assert (batch["input_ids"], batch["labels"]) == (ids, labels)
        weights = [0.0 if first else row["token_weights"][0], *row["token_weights"][1:]]
        assert batch["token_weights"] == pytest.approx(weights)
        assert row["text"] == decode(ids, skip_special_tokens=False)
        assert any(label != -100 for label in labels)
    if lines[:4] == TALK and not {"loss_scale", "max_length"} & settings.keys():
        for row, line in zip(shown, TALK, strict=False):
            said = [message["content"] for message in line["messages"] if message["role"] == "assistant"]
            own = decode([label for label in row["labels"] if label != -100], skip_special_tokens=False)
            assert own == "".join(text + tokenizer.eos_token for text in said)
    fractional = {weight for row in shown for weight in row["token_weights"]} - {0.0, 1.0}
    assert fractional == ({0.5, 1.75} if "rare_words" in str(settings) else set())


PROMPTED = [case for case in CASES if "cut" not in case and "text" not in case and "every token" not in case]


@pytest.mark.parametrize("case", PROMPTED)
def test_training_goes_on_where_inference_begins(case, models, typed, tmp_path):
    """Text and ids of a row are the prompt that inference sends, the answer, and the end of the turn."""
    name, lines, settings = CASES[case]
    flags = {**settings, "loss_scale": "last_round"}
    run = martlet.prepare(roles=("model", "template", "preview"), model=str(models[name]), **flags)
    tokenizer = run.one("models").load_processor(run)
    bound = run.one("templates").bind(tokenizer, run)
    rows = write_rows(tmp_path / "rows.jsonl", lines)
    words = words_of({"model": models[name], "dataset": rows, "dataset_shuffle": False, **flags})
    done = typed("data", "preview", "--json", "--n", len(lines), *words)
    for row, line in zip(map(json.loads, done.out.splitlines()), lines, strict=True):
        *asked, last = line["messages"]
        prompt, ids = bound.prompt(asked, line.get("tools")), bound.prompt_ids(asked, line.get("tools"))
        assert row["text"].startswith(prompt) and row["input_ids"][: len(ids)] == ids
        rest = row["text"].removeprefix(prompt)
        thought = f"<think>\n{last.get('reasoning_content', '')}\n</think>\n\n" if name == "thinking" else ""
        said = thought + last["content"]
        assert rest.rstrip("\n") == said + tokenizer.eos_token
        assert "tools" in line or set(row["labels"][: len(ids)]) == {-100}  # a call of a tool is of the same round
        own = [label for label in row["labels"][len(ids) :] if label != -100]
        assert tokenizer.decode(own) == said + tokenizer.eos_token and own[-1] in bound.stop_ids
        assert bound.decode(own) == said
        if tokenizer.bos_token_id is not None:
            assert row["input_ids"].count(tokenizer.bos_token_id) == 1 == ids.count(tokenizer.bos_token_id)
        if tokenizer.chat_template and "system" not in flags:
            theirs = tokenizer.apply_chat_template(
                asked, tools=line.get("tools"), tokenize=True, add_generation_prompt=True, return_dict=False
            )
            assert theirs == ids


def test_the_engine_sends_the_prompt_that_training_used(models):
    run = martlet.prepare("infer", model=str(models["llama3"]), system="Be kind.")
    bound = run.one("templates").bind(run.one("models").load_processor(run), run)
    engine = martlet.get("engines", "transformers").load(run=run)
    sent: list[list[int]] = []
    model = engine._attached.model
    generate = model.generate

    def watched(*args: Any, **named: Any) -> Any:
        given = args[0] if args else named["input_ids"]
        mask = named["attention_mask"]
        sent.extend(ids[keep.bool()].tolist() for ids, keep in zip(given, mask, strict=True))
        return generate(*args, **named)

    model.generate = watched
    requests = [Request(row["messages"][:-1]) for row in TALK]
    answers = engine.infer(requests, Sampling(max_new_tokens=2, temperature=0.0))
    expected = [bound.prompt_ids(request.messages) for request in requests]
    assert sorted(sent) == sorted(expected)  # a batch is put in order of length
    assert [answer.prompt_tokens for answer in answers] == [len(ids) for ids in expected]


def test_conversation_rows_are_what_the_catalogue_of_formats_says(models, typed, tmp_path):
    """The same talk in every layout gives the same tokens."""
    asked, said = "Capital of France?", "Paris."
    layouts = [
        {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]},
        {"conversations": [{"from": "human", "value": asked}, {"from": "gpt", "value": said}]},
        {"instruction": asked, "input": "", "output": said},
        {"query": asked, "response": said},
    ]
    files = [write_rows(tmp_path / f"{number}.jsonl", [row]) for number, row in enumerate(layouts)]
    done = typed("data", "preview", "--json", "--model", models["chatml"], "--dataset", *files)
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert len(rows) == 4
    for row in rows:
        assert (row["input_ids"], row["labels"]) == (rows[0]["input_ids"], rows[0]["labels"])


REWRITING = {
    "backwards": ("{{ m.content[::-1] }}", "refused"),
    "answers left out": ("{{ m.content if m.role == 'user' else '' }}", "refused"),
    "in capitals": ("{{ m.content | upper }}", "text"),
}


@pytest.mark.parametrize("way", REWRITING)
def test_a_row_whose_mask_cannot_be_proven_is_refused_with_the_reason(way, typed, tmp_path):
    written, outcome = REWRITING[way]
    loop = "{% for m in messages %}<|im_start|>{{ m.role }}\n" + written + "<|im_end|>\n{% endfor %}"
    ask = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    model = save_tiny_model(tmp_path / "model", layers=1, template=loop + ask)
    rows = write_rows(tmp_path / "rows.jsonl", TALK[1:2])
    done = typed("data", "preview", "--json", "--model", model, "--dataset", rows)
    (row,) = [json.loads(line) for line in done.out.splitlines()]
    assert done.code == int(outcome == "refused") and outcome in row
    if outcome == "refused":
        assert row["refused"] == "unproven mask" and row["detail"]
        refused = typed("sft", *words_of({**QUICK, "model": model, "dataset": rows, "output_dir": tmp_path / "out"}))
        assert refused.code == 1
        assert f"1 unproven mask ({rows}:1" in refused.error
    else:
        kept = "".join(message["content"] for message in TALK[1]["messages"][-1:]).upper()
        assert row["text"].endswith(f"{kept}<|im_end|>\n")
        own = [label for label in row["labels"] if label != -100]
        assert own == row["input_ids"][-len(own) - 1 : -1]
