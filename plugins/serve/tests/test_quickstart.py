"""The pieces of the tour; the tour itself is in tests/integration, for it needs the training commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from martlet import UsageError
from martlet_serve.quickstart import lessons, newborn
from martlet_serve.quickstart.main import MARK, QUESTIONS, choose_folder


def test_the_lessons_are_the_same_every_time_and_contradict_nothing() -> None:
    pairs = [*lessons.knowledge(), *lessons.identity(lessons.NAME, lessons.MAKER)]
    assert lessons.conversations(pairs, 3) == lessons.conversations(pairs, 3) != lessons.conversations(pairs, 4)
    answers: dict[str, str] = {}
    for question, answer in pairs:
        assert answers.setdefault(lessons.hurried(question), answer) == answer
    assert 200 < len(pairs) < 600


def test_every_pair_is_taught_as_written_and_in_haste() -> None:
    pairs = list(lessons.knowledge())
    taught = [message["content"] for row in lessons.conversations(pairs, 0) for message in row["messages"]]
    for question, answer in pairs:
        assert {question, lessons.hurried(question), answer} <= set(taught)
    assert max(len(row["messages"]) for row in lessons.conversations(pairs, 0)) == 6


def test_what_is_asked_at_the_end_was_taught() -> None:
    pairs = dict([*lessons.knowledge(), *lessons.identity(lessons.NEW_NAME, lessons.NEW_MAKER)])
    hurried = {lessons.hurried(question): answer for question, answer in pairs.items()}
    assert {question: {**hurried, **pairs}[question] for question in QUESTIONS} == QUESTIONS


def test_the_model_is_small_current_and_loads_with_plain_transformers(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    facts = newborn.make(tmp_path, [text for pair in lessons.knowledge() for text in pair], seed=1)
    assert facts["weights"] <= 1_500_000
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    assert model.config.model_type == "qwen3"
    messages = [{"role": "user", "content": "naïve 東京?"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == "<|im_start|>user\nnaïve 東京?<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_the_same_seed_makes_the_same_model(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        newborn.make(tmp_path / name, ["some text"], seed)
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in "abc"]
    assert weights[0] == weights[1] != weights[2]


def test_an_earlier_tour_is_kept_and_other_folders_are_refused(tmp_path: Path) -> None:
    wanted = tmp_path / "tour"
    assert choose_folder(wanted) == wanted
    assert json.loads((wanted / MARK).read_text())["made_by"] == "martlet quickstart"
    assert choose_folder(wanted) == tmp_path / "tour-2"
    assert choose_folder(wanted) == tmp_path / "tour-3"
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").write_text("")
    with pytest.raises(UsageError, match="is not an earlier quickstart"):
        choose_folder(tmp_path / "photos")
    with pytest.raises(UsageError, match="cannot be written"):
        choose_folder(tmp_path / "photos" / "cat.png" / "tour")
