"""The loader of every causal language model that transformers knows, and of those with a score head in its place."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from martlet import CheckpointError, MartletError, Model, UsageError
from martlet.protocols import LoadedModel

from . import adapters, configuration, initialize, placement, shapes, tasks, tokens
from .args import LoadingArguments, ModelArguments
from .check import check_generation, check_tokenizer, check_weights, read_config, weight_files
from .configuration import first_line
from .matching import match
from .source import Source, cached, locate

if TYPE_CHECKING:
    from torch import nn

    from martlet import Run


class DefaultLoader:
    """Load a causal language model, its tokenizer, or its shapes alone.

    As ``default`` it first looks whether another model type claims the checkpoint, and hands over to that one's
    loader. A subclass, or a spec without a target, is never asked to.
    """

    def __init__(self, spec: Model) -> None:
        self.spec = spec
        self._sources: dict[tuple[str, str | None], Source] = {}

    # What a loader is asked for

    def load(self, run: Run, *, for_training: bool = False) -> LoadedModel:
        """Read weights and tokenizer; adapters are found and not applied.

        The model is in evaluation mode. A trainer places it on its device; otherwise it is put where ``--device_map``
        says, or on the accelerator of this process.
        """
        source = self._source(run)
        other = self._owner(run, source.folder)
        if other is not None:
            theirs: LoadedModel = other.load(run, for_training=for_training)
            return theirs
        settings = run.config[ModelArguments]
        check_weights(source.folder)
        check_generation(source.folder)
        config = configuration.build(source.folder, settings, _loading(run))
        keywords = self._keywords(run, for_training=for_training)
        patches = run.all("model_patches")
        for patch in patches:
            patch.before_load(config, keywords, run)
        processor = self._tokenizer(run, source.folder)
        if settings.task_type == "seq_cls":
            tasks.set_padding(config, read_config(source.folder), processor)
        found = adapters.find(run, settings.adapters)
        model = self._read(run, source, config, keywords, [path for _, path in found], for_training=for_training)
        if for_training and any(parameter.is_meta for parameter in model.parameters()):
            raise UsageError(
                "--device_map and --max_memory leave no memory for all of the weights, and what is on the disk cannot "
                "be trained. Allow more, or choose a smaller model."
            )
        tokens.extend_model(model, processor)
        for patch in patches:
            model = patch.after_load(model, processor, run)
        return LoadedModel(model, processor, source.folder, found)

    def load_processor(self, run: Run) -> Any:
        """Read the tokenizer alone."""
        folder = self._source(run).folder
        other = self._owner(run, folder)
        return self._tokenizer(run, folder) if other is None else other.load_processor(run)

    def skeleton(self, run: Run) -> nn.Module:
        """Build the model on the meta device, patched (``before_load``), extended, in the types that it will have.

        Reads config.json, for new tokens the tokenizer, and the head of a weight file where config.json names no number
        type; downloads nothing: ``MartletError`` where the model is not on this machine.
        """
        import torch

        folder = self._source(run, download=False).folder
        other = self._owner(run, folder)
        if other is not None:
            found: nn.Module = other.skeleton(run)
            return found
        settings = run.config[ModelArguments]
        config = configuration.build(folder, settings, _loading(run))
        keywords = self._keywords(run, for_training=True)
        for patch in run.all("model_patches"):
            patch.before_load(config, keywords, run)
        dtype = keywords["dtype"] if keywords["dtype"] != "auto" else config.dtype or shapes.stored_dtype(folder)
        with torch.device("meta"):
            model: nn.Module = tasks.auto_class(settings.task_type).from_config(
                config, dtype=dtype, trust_remote_code=settings.trust_remote_code
            )
        if settings.task_type == "seq_cls":
            tasks.check_head(model)
        shapes.keep_wide(model, dtype)
        if settings.new_special_tokens:
            tokens.extend_model(model, self._tokenizer(run, folder))
        return model

    # Facts for other plugins

    def facts(self, run: Run) -> Model:
        """Return the spec whose facts (its template, say) hold for ``--model``."""
        if self.spec.name != "default" or self.spec.target is None:
            return self.spec
        source = self._source(run)
        found = match(run, source.id or str(source.folder), read_config(source.folder))
        return found[1] if found else self.spec

    def checkpoint(self, run: Run) -> tuple[str, tuple[str, ...]]:
        """Return the id or the path of ``--model``, and the architectures that it belongs to."""
        source = self._source(run)
        return source.id or str(source.folder), tasks.architectures(read_config(source.folder))

    def new_tokens(self, run: Run) -> list[str]:
        """Return the tokens of ``--new_special_tokens``."""
        return tokens.read(run.config[ModelArguments].new_special_tokens)

    def folder(self, run: Run) -> Path:
        """Return the folder that ``--model`` is read from, downloading it where it is an id."""
        return self._source(run).folder

    def find_adapters(self, run: Run) -> list[tuple[str, Path]]:
        """Return name and folder of each of ``--adapters``, as ``load`` finds them, without reading the model."""
        return adapters.find(run, run.config[ModelArguments].adapters)

    def context_length(self, run: Run) -> int | None:
        """Return the longest sequence: ``--max_model_len``, else what config.json says, else None."""
        settings = run.config[ModelArguments]
        if settings.max_model_len is not None:
            return settings.max_model_len
        raw = read_config(self._source(run).folder)
        length = {**raw, **(raw.get("text_config") or {})}.get("max_position_embeddings") or raw.get("n_positions")
        return length if isinstance(length, int) else None

    # How

    def _source(self, run: Run, *, download: bool = True) -> Source:
        settings = run.config[ModelArguments]
        if settings.model is None:
            raise UsageError("--model is missing: name a model folder, or the id of a model on a hub.")
        key = (settings.model, settings.model_revision)
        if key not in self._sources:
            find = locate if download else cached
            source = find(run, settings.model, "--model", settings.model_revision)
            inherited = run.config.origin("model_revision").source == "args.json"  # of the model that was trained
            if not source.id and settings.model_revision and not inherited:
                raise UsageError(
                    f"--model_revision {settings.model_revision}: {source.folder} is a folder, and only models of a "
                    "hub have revisions. Leave the flag out, or name the model by its id."
                )
            self._sources[key] = source
        return self._sources[key]

    def _owner(self, run: Run, folder: Path) -> Any:
        """Return the loader that claims the checkpoint, or None for this one."""
        if self.spec.name != "default":
            return None
        source = self._source(run, download=False)
        found = match(run, source.id or str(source.folder), read_config(folder))
        if found is None or found[1].target is None or found[1] is self.spec:
            return None
        return run.get("models", f"{found[0]}::{found[1].name}")

    def _keywords(self, run: Run, *, for_training: bool) -> dict[str, Any]:
        import torch

        settings = _loading(run)
        wanted = placement.device_map(settings.device_map)
        return {
            "dtype": getattr(torch, settings.torch_dtype) if settings.torch_dtype else "auto",
            "device_map": wanted or placement.default_map(run.process, for_training=for_training),
            "max_memory": placement.max_memory(settings.max_memory),
        }

    def _tokenizer(self, run: Run, folder: Path) -> Any:
        from transformers import AutoTokenizer

        settings = run.config[ModelArguments]
        config = configuration.build(folder, settings, _loading(run))
        if not settings.trust_remote_code:
            check_tokenizer(folder)
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                folder, config=config, trust_remote_code=settings.trust_remote_code, local_files_only=True
            )
        except Exception as error:
            raise MartletError(f"--model {folder}: its tokenizer cannot be read: {first_line(error)}") from error
        if not getattr(tokenizer, "is_fast", False):
            raise MartletError(
                f"--model {folder}: there is no fast tokenizer (tokenizer.json) in it, and the loss mask needs one."
            )
        if tokenizer.pad_token is None and tokenizer.eos_token is not None:
            tokenizer.pad_token = tokenizer.eos_token
        tokens.extend_tokenizer(tokenizer, tokens.read(settings.new_special_tokens))
        return tokenizer

    def _read(
        self,
        run: Run,
        source: Source,
        config: Any,
        keywords: dict[str, Any],
        adapters: list[Path],
        *,
        for_training: bool,
    ) -> Any:
        """Read the weights; ``adapters`` may bring the head that they lack."""
        settings = run.config[ModelArguments]
        try:
            with tasks.quiet(settings.task_type):
                model, report = tasks.auto_class(settings.task_type).from_pretrained(
                    source.folder,
                    config=config,
                    trust_remote_code=settings.trust_remote_code,
                    local_files_only=True,
                    weights_only=True,
                    output_loading_info=True,
                    **{key: value for key, value in keywords.items() if value is not None},
                )
        except MartletError:
            raise
        except Exception as error:
            raise _explained(source.folder, error) from error
        missing, unused = sorted(report["missing_keys"]), sorted(report["unexpected_keys"])
        if settings.task_type == "seq_cls":
            missing = tasks.take_head(run, source.folder, model, missing, adapters, for_training=for_training)
            unused = [name for name in unused if not name.startswith("lm_head.")]
        _check_report(run, source.folder, model, missing, unused)
        if source.id:
            model.name_or_path = model.config.name_or_path = source.id
        return model


def _loading(run: Run) -> LoadingArguments:
    """Return how weights are read; a command that reads none takes no such flags."""
    return run.config[LoadingArguments] if LoadingArguments in run.config else LoadingArguments()


def _explained(folder: Path, error: Exception) -> MartletError:
    """Say in one sentence why transformers could not load a folder."""
    import pickle

    import torch
    from safetensors import SafetensorError

    names = ", ".join(file.name for file in weight_files(folder)[:3])
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return MartletError(f"--model {folder}: not enough memory for the weights; see --device_map and --torch_dtype.")
    if isinstance(error, SafetensorError):
        return CheckpointError(f"{folder}: {names}: not whole safetensors files ({first_line(error)}); download again.")
    if isinstance(error, pickle.UnpicklingError) or "weights_only" in str(error) or "Weights only load" in str(error):
        return CheckpointError(
            f"{folder}: {names}: a file holds more than tensors, so it was not read; convert it to safetensors."
        )
    return MartletError(f"--model {folder}: transformers cannot load it: {first_line(error)}")


def _check_report(run: Run, folder: Path, model: Any, missing: list[str], unused: list[str]) -> None:
    """Refuse a checkpoint that lacks weights, unless the user said how to fill them; report what was not used."""
    strategy = _loading(run).init_strategy
    if missing and strategy is None:
        raise CheckpointError(
            f"--model {folder}: {len(missing)} weights of the model are not in its files, among them {missing[0]}; "
            "download or save it again, or fill them with --init_strategy."
        )
    if missing and strategy is not None:
        initialize.fill(model, missing, strategy)
        names = ", ".join(missing[:5])
        run.warn(f"{folder}: {len(missing)} weights were missing and filled by --init_strategy {strategy}: {names}")
    if unused:
        run.warn(f"{folder}: {len(unused)} weights in its files are not part of the model: {', '.join(unused[:5])}")
