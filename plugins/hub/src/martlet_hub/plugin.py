"""Hubs ``hf`` and ``ms``, and the flags that choose between them."""

from __future__ import annotations

from collections.abc import Iterator

from martlet import Arguments, Hub, hookimpl


@hookimpl
def provide_arguments() -> Iterator[Arguments]:
    yield Arguments(
        "hub",
        "martlet_hub.args:HubArguments",
        roles=("model",),
        restored_by="load_args",
        resolve="martlet_hub.resolve:choose",
        summary="Where ids are looked up.",
    )


@hookimpl
def provide_hubs() -> Iterator[Hub]:
    yield Hub("hf", "martlet_hub.huggingface:HuggingFace", summary="Hugging Face, or what HF_ENDPOINT names.")
    yield Hub("ms", "martlet_hub.modelscope:ModelScope", summary="ModelScope, or what MODELSCOPE_ENDPOINT names.")
