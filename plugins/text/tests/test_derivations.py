"""The two derivations of a mask: where they differ, nothing is trained on."""

from __future__ import annotations

from typing import Any

OPENS = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\nWell: ' }}{% endif %}"
)
"""A prompt that opens the answer with words that the template does not put before an answer."""


def test_an_answer_that_repeats_its_prompt_is_refused_because_the_derivations_differ(
    bind: Any, tokenizer_for: Any
) -> None:
    bound = bind(tokenizer_for(OPENS))
    question = {"role": "user", "content": "Why?"}
    for answer in ("Well: because", "Well: "):
        (found,) = bound.encode_batch([{"messages": [question, {"role": "assistant", "content": answer}]}])
        assert (found.reason, "begins elsewhere by its prefix" in found.detail) == ("unproven mask", True)
