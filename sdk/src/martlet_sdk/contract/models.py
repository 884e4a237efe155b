"""Model families and loaders, and patches around loading."""

from __future__ import annotations

from typing import Any

from martlet.errors import MartletError
from martlet.protocols import LoadedModel
from martlet.specs import Model, ModelPatch, Template

from ..quiet import quiet
from .base import Broken, require
from .kit import Kit


def _run(kit: Kit, spec: Model) -> Any:
    return kit.run("model", select=spec, model=str(kit.model_folder))


def check_facts(kit: Kit, spec: Model) -> None:
    """The patterns that it is recognised by are text, and its template exists."""
    for name in ("checkpoints", "architectures"):
        found = getattr(spec, name)
        good = isinstance(found, tuple) and all(isinstance(item, str) and item for item in found)
        require(good, f'{name} is {found!r}; write it as a tuple of words: ("word",).')
    if spec.template:
        try:
            kit.manager.find(Template, spec.template)
        except MartletError as error:
            raise Broken(f"its template is {spec.template!r}: {error}") from error


def check_loads(kit: Kit, spec: Model) -> None:
    """It loads a checkpoint: model, tokenizer and where they came from; the model computes finite logits."""
    for training in (False, True):
        loaded = kit.build(spec).load(_run(kit, spec), for_training=training)
        require(isinstance(loaded, LoadedModel), f"load() returned {type(loaded).__name__}, not LoadedModel.")
        require(loaded.path.is_dir(), f"load() says that the model came from {loaded.path}, which is no folder.")
        ids = loaded.processor("Grass is green.", return_tensors="pt").input_ids
        logits = loaded.model(input_ids=ids).logits
        require(logits.isfinite().all(), "the loaded model computes logits that are not finite.")


def check_loads_the_weights(kit: Kit, spec: Model) -> None:
    """Every weight of the checkpoint is in the model."""
    import torch
    from safetensors.torch import load_file

    model = kit.build(spec).load(_run(kit, spec)).model
    found = model.state_dict()
    for name, value in load_file(kit.model_folder / "model.safetensors").items():
        require(name in found, f"the loaded model has no weight {name!r}, which the checkpoint has.")
        same = torch.allclose(found[name].float(), value.float(), atol=1e-2)
        require(same, f"the weight {name!r} of the loaded model is not the checkpoint's.")


def check_skeleton(kit: Kit, spec: Model) -> None:
    """``skeleton`` has the loaded model's parameters, names and shapes, without memory."""
    loader, run = kit.build(spec), _run(kit, spec)
    bones, full = dict(loader.skeleton(run).named_parameters()), dict(loader.load(run).model.named_parameters())
    differ = sorted(set(bones) ^ set(full))
    require(not differ, f"skeleton and model have other parameters: {differ[:3]}, …")
    for name, parameter in bones.items():
        shapes = tuple(parameter.shape), tuple(full[name].shape)
        require(shapes[0] == shapes[1], f"{name} has the shape {shapes[0]} in the skeleton, {shapes[1]} in the model.")
        require(parameter.device.type == "meta", f"{name} of the skeleton lies on {parameter.device}, not on meta.")


def check_processor(kit: Kit, spec: Model) -> None:
    """``load_processor`` gives the tokenizer that ``load`` gives."""
    loader, run = kit.build(spec), _run(kit, spec)
    text = "Grass is green, 草是绿色的。"
    alone, along = loader.load_processor(run), loader.load(run).processor
    same = alone(text).input_ids == along(text).input_ids
    require(same, "load_processor() and load() give tokenizers that disagree.")


CHECKS = (check_facts, check_loads, check_loads_the_weights, check_skeleton, check_processor)


def check_patch_methods(kit: Kit, spec: ModelPatch) -> None:
    """It has ``before_load`` and ``after_load``."""
    patch = kit.build(spec)
    for name in ("before_load", "after_load"):
        require(callable(getattr(patch, name, None)), f"it has no method {name}(); both are called around every load.")


def check_patched_model_works(kit: Kit, spec: ModelPatch) -> None:
    """A model loaded between its two methods is a model, and computes finite logits."""
    from transformers import AutoConfig, AutoModelForCausalLM

    patch, kwargs = kit.build(spec), dict[str, Any]()
    config = AutoConfig.from_pretrained(kit.model_folder)
    run = kit.run("model", select=spec, model=str(kit.model_folder))
    answer = patch.before_load(config, kwargs, run)
    require(answer is None, f"before_load() returned {type(answer).__name__}; change config and kwargs in place.")
    with quiet():
        model = AutoModelForCausalLM.from_pretrained(kit.model_folder, config=config, **kwargs)
    patched = patch.after_load(model, kit.tokenizer, run)
    good = callable(getattr(patched, "forward", None))
    require(good, f"after_load() returned {type(patched).__name__}; return the model.")
    ids = kit.tokenizer("Grass is green.", return_tensors="pt").input_ids
    require(patched(input_ids=ids).logits.isfinite().all(), "the patched model computes logits that are not finite.")


PATCH_CHECKS = (check_patch_methods, check_patched_model_works)
