"""Tiny tokenizers and models are real: they round-trip, reload, and are the same every time."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from martlet_sdk.tiny import CHATML, CHATML_THINKING, LLAMA3, save_tiny_model, tiny_tokenizer

USER = {"role": "user", "content": "Hi"}
ANSWER = {"role": "assistant", "content": "Hello."}
TOKENIZER = tiny_tokenizer()


def render(template, messages, **more):
    return tiny_tokenizer(template).apply_chat_template(messages, tokenize=False, **more)


@settings(max_examples=200)
@given(st.text())
def test_any_text_survives_the_tokenizer(text):
    assert TOKENIZER.decode(TOKENIZER(text, add_special_tokens=False).input_ids) == text


def test_special_tokens_are_single_ids():
    assert TOKENIZER.eos_token == "<|im_end|>"
    assert TOKENIZER.pad_token == "<|endoftext|>"
    assert len(TOKENIZER("<|im_start|><|im_end|><|endoftext|>").input_ids) == 3


def test_words_of_both_languages_are_merged():
    assert len(TOKENIZER("The answer is").input_ids) < len("The answer is")
    assert len(TOKENIZER("你好").input_ids) < len("你好".encode())


def test_the_size_of_the_vocabulary_is_the_one_asked_for():
    assert len(tiny_tokenizer(vocab_size=300)) == 300
    with pytest.raises(ValueError, match="at least 263"):
        tiny_tokenizer(vocab_size=100)


def test_llama_tokenizer_ends_turns_with_its_own_token():
    tokenizer = tiny_tokenizer(LLAMA3)
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|begin_of_text|>", "<|eot_id|>")


def test_a_base_tokenizer_has_no_template():
    assert tiny_tokenizer(None).chat_template is None


def test_chatml_text():
    assert render(CHATML, [{"role": "system", "content": "Be brief."}, USER, ANSWER]) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\nHello.<|im_end|>\n"
    )


def test_chatml_tools_and_calls():
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    tool = {"type": "function", "function": {"name": "add", "parameters": {}}}
    messages = [USER, {"role": "assistant", "content": "", "tool_calls": [call]}, {"role": "tool", "content": "1"}]
    text = render(CHATML, messages, tools=[tool])
    assert text.startswith("<|im_start|>system\nYou may call these tools:")
    assert '"name": "add", "parameters"' in text
    assert (
        '<|im_start|>assistant\n<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call><|im_end|>\n' in text
    )
    assert text.endswith("<|im_start|>tool\n1<|im_end|>\n")


@pytest.mark.parametrize("template", [CHATML, LLAMA3])
def test_a_longer_conversation_only_appends(template):
    messages = [USER, ANSWER, USER, ANSWER | {"reasoning_content": "A greeting."}, USER]
    for count in range(1, len(messages)):
        assert render(template, messages).startswith(render(template, messages[:count]))


def test_a_thinking_template_rewrites_history():
    thought = ANSWER | {"reasoning_content": "A greeting."}
    assert "<think>\nA greeting.\n</think>" in render(CHATML_THINKING, [USER, thought])
    assert "A greeting." not in render(CHATML_THINKING, [USER, thought, USER])
    closed = render(CHATML_THINKING, [USER], add_generation_prompt=True, enable_thinking=False)
    assert closed.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")


def test_llama3_text():
    assert render(LLAMA3, [USER], add_generation_prompt=True) == (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )


@pytest.mark.parametrize("architecture", ["qwen3", "qwen3_moe", "llama", "gpt2"])
def test_a_saved_model_loads_with_plain_transformers(architecture, tmp_path):
    folder = save_tiny_model(tmp_path / "model", architecture=architecture)
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = "Who are you? 你是谁？ It's  me.\n"
    assert model.config.model_type == architecture
    assert (folder / "model.safetensors").is_file() and not list(folder.glob("*.bin"))
    assert tokenizer(text).input_ids == TOKENIZER(text).input_ids
    assert tokenizer.chat_template == CHATML
    assert model(**tokenizer(text, return_tensors="pt")).logits.isfinite().all()
    assert tokenizer.eos_token_id in GenerationConfig.from_pretrained(folder).eos_token_id


def test_the_seed_decides_the_weights_and_nothing_else(tmp_path):
    state = torch.random.get_rng_state()
    one, same, other = (
        AutoModelForCausalLM.from_pretrained(save_tiny_model(tmp_path / str(number), seed=seed)).lm_head.weight
        for number, seed in enumerate((0, 0, 1))
    )
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_fields_of_the_configuration_can_be_given(tmp_path):
    folder = save_tiny_model(tmp_path / "model", layers=1, hidden=32, tie_word_embeddings=True)
    config = AutoModelForCausalLM.from_pretrained(folder).config
    assert (config.num_hidden_layers, config.hidden_size, config.tie_word_embeddings) == (1, 32, True)


def test_fixtures(tiny_model, tiny_tokenizer, lonely_manager):
    assert AutoTokenizer.from_pretrained(tiny_model)("Hi").input_ids == tiny_tokenizer("Hi").input_ids
    with pytest.raises(RuntimeError, match="refuses to discover"):
        lonely_manager.load_installed()
