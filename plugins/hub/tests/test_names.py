"""Which names are safe, and which files are worth their download."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from martlet_hub.names import is_safe, superfluous

SEGMENTS = st.sampled_from(["a", "..", ".", "", "b.txt", "C:", "~", "a b", ".git"])


@given(st.lists(SEGMENTS, min_size=1).map("/".join) | st.text(max_size=20))
def test_a_safe_name_stays_below_its_folder(name):
    root = Path("/srv/folder")
    if is_safe(name):
        parts = (root / name).parts
        assert parts[: len(root.parts)] == root.parts
        assert ".." not in parts
        assert len(parts) > len(root.parts)
        assert "\\" not in name


@given(st.lists(st.sampled_from(["a", "b-1", "c.d", "weights_1"]), min_size=1, max_size=4).map("/".join))
def test_ordinary_names_are_safe(name):
    assert is_safe(name)


def test_weights_are_downloaded_in_one_format():
    names = ["config.json", "model-00001-of-00002.safetensors", "pytorch_model-00001-of-00002.bin", "model.gguf"]
    assert superfluous(names) == ["pytorch_model-00001-of-00002.bin", "model.gguf"]


def test_torch_weights_stay_where_safetensors_are_of_another_program():
    names = ["config.json", "consolidated.00.safetensors", "pytorch_model.bin"]
    assert superfluous(names) == ["consolidated.00.safetensors"]


def test_an_adapter_is_downloaded_in_one_format():
    assert superfluous(["adapter_model.safetensors", "adapter_model.bin"]) == ["adapter_model.bin"]


def test_code_and_tokenizers_are_never_left_out():
    names = ["modeling.py", "tokenizer.model", "merges.txt", "chat_template.jinja", "model.safetensors"]
    assert superfluous(names) == []
