"""Flags of other distributions that do not go with divided state: refused before anything is loaded."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--deepspeed", "zero2", "--device_map", "auto"], "--deepspeed zero2 places the weights itself"),
        (["--fsdp", "fsdp2", "--max_memory", '{"cpu": "1GB"}'], "--fsdp fsdp2 places the weights itself"),
        (["--deepspeed", "zero3", "--new_special_tokens", "<a>"], "--new_special_tokens changes weights that"),
        (["--deepspeed", "zero3", "--init_strategy", "zero"], "--init_strategy changes weights that --deepspeed zero3"),
        (["--deepspeed", "zero3", "--use_dora", "true"], "--use_dora computes with weights outside of the layer"),
    ],
)
def test_what_places_or_changes_weights_does_not_go_with_divided_ones(typed, tiny_model, rows, words, sentence):
    done = typed("sft", "--model", tiny_model, "--dataset", rows, *words)
    assert done.code == 2 and sentence in done.error
