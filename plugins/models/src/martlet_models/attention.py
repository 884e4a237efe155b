"""Which attention and expert implementations may be used: a closed list, whatever a checkpoint says.

transformers reads a name with a slash in it as a repository of compiled kernels to download and run. Nothing in a
checkpoint may choose code, so such a name is refused wherever it stands (CVE-2026-4372 is one way it was used).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from martlet import CheckpointError, UsageError

ALLOWED = ("sdpa", "eager", "flash_attention_2", "flash_attention_3", "flex_attention")
EXPERTS = ("grouped_mm", "batched_mm", "eager")
ALIASES = {"flash_attn": "flash_attention_2"}
KEYS = ("attn_implementation", "experts_implementation")


def choose(given: str | None, config: Mapping[str, Any], folder: Path) -> str | None:
    """Return the attention implementation: the flag's, else config.json's, else None (transformers decides)."""
    if given is not None:
        name = ALIASES.get(given, given)
        _check_installed(name, f"--attn_impl {given}")
        return name
    named = dict.fromkeys(value for key, value in mentions(config) if "attn" in key)
    file = folder / "config.json"
    for value in named:
        if ALIASES.get(value, value) not in ALLOWED:
            raise CheckpointError(
                f"{file}: it asks for the attention implementation {value!r}, and only {', '.join(ALLOWED)} are used; "
                "choose one of them with --attn_impl."
            )
    top = config.get("attn_implementation") or config.get("_attn_implementation")
    if not isinstance(top, str):
        return None
    top = ALIASES.get(top, top)
    _check_installed(top, str(file))
    return top


def check_experts(config: Mapping[str, Any], folder: Path) -> None:
    """Refuse an expert implementation of config.json that is not a known one."""
    for key, value in mentions(config):
        if "experts" in key and value not in EXPERTS:
            raise CheckpointError(
                f"{folder / 'config.json'}: it asks for the expert implementation {value!r}, and only "
                f"{', '.join(EXPERTS)} are used; choose one of them with --experts_impl."
            )


def mentions(value: Any) -> Iterator[tuple[str, str]]:
    """Yield every ``(key, name)`` of an implementation that a configuration names, at any depth."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if _names_one(key):
                for name in _names(inner):
                    yield key, name
            else:
                yield from mentions(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from mentions(inner)


def _names(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for inner in value.values():
            yield from _names(inner)
    elif value is not None:
        yield str(value)


def _names_one(key: Any) -> bool:
    text = str(key).lstrip("_").removesuffix("_internal")
    return text in KEYS


def _check_installed(name: str, where: str) -> None:
    """Refuse flash attention where it is missing: transformers would download a kernel in its place."""
    from transformers.utils.import_utils import is_flash_attn_2_available, is_flash_attn_3_available

    available = {"flash_attention_2": is_flash_attn_2_available, "flash_attention_3": is_flash_attn_3_available}
    if name in available and not available[name]():
        package = "flash-attn" if name.endswith("2") else "flash-attn-3"
        raise UsageError(f"{where}: {name} needs a GPU and the package {package}; install it, or use --attn_impl sdpa.")
