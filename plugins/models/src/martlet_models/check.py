"""Look at a model folder without loading anything: fast, and without torch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from martlet import CheckpointError, ConfigError, UsageError

from . import source, tasks
from .adapters import split_name
from .written import check_as_written

if TYPE_CHECKING:
    from .args import LoadingArguments, ModelArguments

VOCABULARIES = ("tokenizer.json", "*.model", "vocab.*", "*.tiktoken", "tekken.json")
"""Files that hold a tokenizer's vocabulary."""
SINGLE = ("model.safetensors", "pytorch_model.bin")
"""Weights in one file, the preferred first."""
OTHER_WEIGHTS = (".gguf", ".h5", ".msgpack", ".pt", ".pth", ".bin", ".safetensors")
_MEND = "mend it, or remove the file to do without."


def check_settings(settings: ModelArguments, loading: LoadingArguments | None, recorded: str = "") -> None:
    """Refuse what cannot work, before anything slow has begun.

    loading: None where the tokenizer alone is read. recorded: where --model was read from.
    """
    if loading is not None and loading.tuner_backend != "peft":
        raise ConfigError(f"--tuner_backend {loading.tuner_backend}: no installed plugin provides it; use peft.")
    for entry in settings.adapters:
        _check_adapter(split_name(entry)[1], alone=settings.model is None)
    if settings.model is None:
        raise UsageError("--model is missing: name a model folder, or the id of a model on a hub.")
    try:
        folder = source.check(settings.model, "--model")
    except UsageError as error:
        again = f" That is what {recorded} says; give --model with the place it has now." if recorded else ""
        raise UsageError(f"{error}{again}") from error
    if folder is not None:
        raw = read_config(folder)
        if loading is not None:
            tasks.check(folder, raw, settings)
            check_weights(folder)
            check_generation(folder)


def _check_adapter(text: str, *, alone: bool) -> None:
    """Refuse what is no adapter. ``alone``: neither the user nor the adapter names the model it belongs to."""
    folder = source.check(text, "--adapters")
    if folder is not None and (folder / "run.json").is_file() and (folder / "last").is_dir():
        raise UsageError(f"--adapters {text}: this is the folder of a run; its last checkpoint is {folder / 'last'}")
    if not alone:
        return
    if folder is None:
        hint = "If it is the id of an adapter on a hub, name its model with --model."
        raise UsageError(f"--adapters {text}: there is no such folder.{source.near(text)} {hint}")
    raise UsageError(f"--adapters {text}: it does not say which model it belongs to; name that with --model.")


def read_config(folder: Path) -> dict[str, Any]:
    """Return ``config.json``; say what the folder is where it is no model folder."""
    file = folder / "config.json"
    if not file.is_file():
        raise UsageError(f"--model {folder}: {_what_it_is(folder)}")
    found = _object(file, "download it again.")
    if (folder / "adapter_config.json").is_file():
        raise UsageError(
            f"--model {folder}: the folder holds both a model and an adapter; move the adapter "
            f"(adapter_config.json and adapter_model.safetensors) to a folder of its own and name that with --adapters."
        )
    return found


def _object(file: Path, remedy: str) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file}: not a readable JSON file ({error}); {remedy}") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{file}: it must hold one JSON object; {remedy}")
    return found


def _what_it_is(folder: Path) -> str:
    if (folder / "adapter_config.json").is_file():
        return "this is an adapter, not a model; name it with --adapters, and the model it belongs to with --model."
    newest_first = sorted((e for e in folder.iterdir() if e.is_dir()), key=lambda e: e.stat().st_mtime, reverse=True)
    for inside in newest_first:
        if (inside / "config.json").is_file():
            return f"there is no config.json in it; did you mean {inside}?"
        if (inside / "adapter_config.json").is_file():
            return f"there is no model in it; for the adapter in it write --adapters {inside}"
    return "there is no config.json in it, so it is not the folder of a model."


def check_generation(folder: Path) -> None:
    """Refuse token numbers in ``generation_config.json`` that are none: transformers reads them as they are."""
    file = folder / "generation_config.json"
    if not file.is_file():
        return
    found = _object(file, _MEND)
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        value = found.get(key)
        numbers = value if isinstance(value, list) else [] if value is None else [value]
        if any(isinstance(number, bool) or not isinstance(number, int) for number in numbers):
            raise CheckpointError(f"{file}: {key} is {value!r} and has to be the number of a token; {_MEND}")


def check_tokenizer(folder: Path) -> None:
    """Refuse a folder without a vocabulary: transformers would make an empty tokenizer for it."""
    if not any(any(folder.glob(pattern)) for pattern in VOCABULARIES):
        raise UsageError(
            f"--model {folder}: there is no tokenizer in it (tokenizer.json); copy it from the model that this one is "
            "made from."
        )


def weight_files(folder: Path) -> list[Path]:
    """Return the files that hold the weights; ``UsageError`` where there are none or one is missing."""
    for name in SINGLE:
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            return list(_shards(index))
    others = sorted(entry.name for entry in folder.iterdir() if entry.suffix in OTHER_WEIGHTS)
    seen = f" (it holds {', '.join(others[:3])})" if others else ""
    raise UsageError(
        f"--model {folder}: there are no weights in it{seen}; model.safetensors or pytorch_model.bin is needed, "
        "or model.safetensors.index.json with its parts."
    )


def _shards(index: Path) -> Iterator[Path]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index}: not a readable index of weights; download or save the model again.") from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise CheckpointError(f"{index}: it names {name!r}, which is not a file beside it.")
        if not (index.parent / name).is_file():
            raise CheckpointError(f"{index.parent}: {name} is missing, which {index.name} names; download it again.")
        yield index.parent / name


def check_weights(folder: Path) -> None:
    """Read the heads of the weight files; ``CheckpointError`` where one is cut short or is no weight file.

    In a checkpoint of ours their sizes have to be those of its index as well.
    """
    files = weight_files(folder)
    for file in files:
        with file.open("rb") as stream:
            head = stream.read(8)
            if head.startswith(b"version "):
                raise CheckpointError(f"{file}: a Git LFS pointer, not the weights; run `git lfs pull` in {folder}.")
            if file.suffix == ".safetensors":
                _check_safetensors(file, head, stream)
    check_as_written(folder, files, sums=False)


def _check_safetensors(file: Path, head: bytes, stream: Any) -> None:
    again = "download or save it again."
    size, length = file.stat().st_size, int.from_bytes(head, "little")
    if len(head) < 8 or length > size - 8:
        raise CheckpointError(f"{file}: not a whole safetensors file ({size:,} bytes); {again}")
    try:
        tensors = json.loads(stream.read(length))
        end = max((facts["data_offsets"][1] for name, facts in tensors.items() if name != "__metadata__"), default=0)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise CheckpointError(f"{file}: not a safetensors file; {again}") from error
    if 8 + length + end != size:
        raise CheckpointError(f"{file}: it has {size:,} bytes and should have {8 + length + end:,}; {again}")
