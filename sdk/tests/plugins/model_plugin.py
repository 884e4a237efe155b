"""A model loader, a patch, and the flag that says which model."""

from dataclasses import dataclass
from pathlib import Path

from martlet import Arguments, Model, ModelPatch, hookimpl
from martlet.protocols import LoadedModel


@dataclass
class PlaceArguments:
    model: str | None = None
    """Folder of the model."""


class Loader:
    def load(self, run, *, for_training=False):
        from transformers import AutoModelForCausalLM

        folder = Path(run.config[PlaceArguments].model)
        model = AutoModelForCausalLM.from_pretrained(folder).train(for_training)
        return LoadedModel(model, self.load_processor(run), folder)

    def load_processor(self, run):
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(run.config[PlaceArguments].model)

    def skeleton(self, run):
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM

        config = AutoConfig.from_pretrained(run.config[PlaceArguments].model)
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config)


class NoCache:
    def before_load(self, config, kwargs, run):
        config.use_cache = False

    def after_load(self, model, processor, run):
        return model


@hookimpl
def provide_arguments():
    yield Arguments("place", PlaceArguments, roles=("model",))


@hookimpl
def provide_models():
    yield Model("plain", Loader, checkpoints=("tiny-*",), architectures=("Qwen3ForCausalLM",))


@hookimpl
def provide_model_patches():
    yield ModelPatch("no-cache", NoCache)
