"""Tuners: which weights are trained, how they are saved, loaded and merged."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from martlet.specs import Tuner

from .base import Skipped, require
from .kit import Kit

if TYPE_CHECKING:
    from torch import Tensor, nn

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib")


def _tuner(kit: Kit, spec: Tuner) -> tuple[Any, Any]:
    """Return the tuner and a run in which it is selected."""
    run = kit.run("model", "tuner", select=spec)
    return kit.build(spec), run


def _trained(kit: Kit, spec: Tuner) -> tuple[Any, nn.Module]:
    """Apply the tuner to the tiny model and move every trained weight a little, as training would."""
    import torch

    tuner, run = _tuner(kit, spec)
    model = tuner.apply(kit.fresh_model(), run)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return tuner, model.eval()


def _logits(kit: Kit, model: nn.Module) -> Tensor:
    import torch

    ids = kit.tokenizer("What is the colour of grass? 草。", return_tensors="pt").input_ids
    with torch.no_grad():
        logits: Tensor = model(input_ids=ids).logits
    return logits


def _difference(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())


def check_trains_something(kit: Kit, spec: Tuner) -> None:
    """Some parameters ask for a gradient, and get one from the loss."""
    tuner, run = _tuner(kit, spec)
    model = tuner.apply(kit.fresh_model(), run)
    require(model is not None, "apply() returned None; return the model to train.")
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    require(trained, "after apply() no parameter has requires_grad, so nothing would be trained.")
    ids = kit.tokenizer("Grass is green, the sky is blue.", return_tensors="pt").input_ids
    loss = model(input_ids=ids, labels=ids).loss
    if loss.requires_grad:
        loss.backward()
    reached = [name for name, p in trained.items() if p.grad is not None and p.grad.isfinite().all()]
    first = next(iter(trained))
    require(reached, f"the loss gives no gradient to any of its {len(trained)} trained parameters ({first}, …).")


def check_changes_the_model(kit: Kit, spec: Tuner) -> None:
    """Moving the trained parameters changes what the model computes."""
    _, model = _trained(kit, spec)
    moved = _difference(_logits(kit, model), _logits(kit, kit.fresh_model()))
    require(moved > 1e-4, "moving every trained parameter leaves the logits as they were.")


def check_saves_safely(kit: Kit, spec: Tuner) -> None:
    """``save`` writes files, and none that holds pickled objects."""
    tuner, model = _trained(kit, spec)
    folder = _saved(kit, tuner, model, "safe")
    files = [path.name for path in folder.rglob("*") if path.is_file()]
    require(files, "save() wrote no file into the folder that it was given.")
    pickles = [name for name in files if Path(name).suffix in PICKLES]
    require(not pickles, f"save() writes {', '.join(pickles)}; write weights as safetensors.")


def _saved(kit: Kit, tuner: Any, model: nn.Module, name: str, state: dict[str, Tensor] | None = None) -> Path:
    folder = kit.folder / name
    folder.mkdir(exist_ok=True)
    tuner.save(model, folder, state)
    return folder


def check_load_restores(kit: Kit, spec: Tuner) -> None:
    """Saved and loaded onto a fresh base model, it computes the same logits."""
    tuner, model = _trained(kit, spec)
    wanted = _logits(kit, model)
    folder = _saved(kit, tuner, model, "plain")
    loaded = kit.build(spec).load(kit.fresh_model(), folder, trainable=False, name="mine")
    require(loaded is not None, "load() returned None; return the model.")
    gap = _difference(_logits(kit, loaded.eval()), wanted)
    require(gap < 1e-5, f"after save() and load() onto a fresh model the logits differ by {gap:.2g}.")


def check_save_takes_a_state_dict(kit: Kit, spec: Tuner) -> None:
    """Given gathered weights, ``save`` writes those: on several devices the model's own are incomplete."""
    tuner, model = _trained(kit, spec)
    wanted = _logits(kit, model)
    state = {name: value.detach().clone() for name, value in model.state_dict().items()}
    import torch

    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.zero_()
    folder = _saved(kit, tuner, model, "gathered", state)
    loaded = kit.build(spec).load(kit.fresh_model(), folder)
    gap = _difference(_logits(kit, loaded.eval()), wanted)
    require(gap < 1e-5, f"save(model, path, state_dict) did not write state_dict: logits differ by {gap:.2g}.")


def check_load_to_go_on(kit: Kit, spec: Tuner) -> None:
    """``load(..., trainable=True)`` trains the same parameters as ``apply``; without it none of the saved ones."""
    tuner, model = _trained(kit, spec)
    applied = sum(p.numel() for p in model.parameters() if p.requires_grad)
    folder = _saved(kit, tuner, model, "again")
    again = kit.build(spec).load(kit.fresh_model(), folder, trainable=True)
    found = sum(p.numel() for p in again.parameters() if p.requires_grad)
    require(found == applied, f"apply() trains {applied} numbers, load(trainable=True) {found}.")


def check_merge_keeps_logits(kit: Kit, spec: Tuner) -> None:
    """Merged, the model has the base model's parameters and computes the same."""
    if not spec.mergeable:
        raise Skipped("it is not mergeable.")
    tuner, model = _trained(kit, spec)
    wanted = _logits(kit, model)
    merged = tuner.merge(model)
    require(merged is not None, "merge() returned None; return the merged model.")
    gap = _difference(_logits(kit, merged.eval()), wanted)
    require(gap < 1e-4, f"merging changes the logits by {gap:.2g}.")
    base, now = (set(m.state_dict()) for m in (kit.fresh_model(), merged))
    require(base == now, f"a merged model has other weights than the base model: {sorted(base ^ now)[:3]}, …")


def check_reference_is_the_base(kit: Kit, spec: Tuner) -> None:
    """In the context of ``reference`` the model is its base again; behind it, it is what it was."""
    tuner, model = _trained(kit, spec)
    if not hasattr(tuner, "reference"):
        raise Skipped("it has no reference(): algorithms that compare load a second model.")
    before, trained = _logits(kit, model), [p.requires_grad for p in model.parameters()]
    context = tuner.reference(model)
    if context is None:
        raise Skipped("reference() says that with these settings another model is needed.")
    with context():
        gap = _difference(_logits(kit, model), _logits(kit, kit.fresh_model()))
    require(gap == 0, f"within reference() the logits differ from those of the base model by {gap:.2g}.")
    gap = _difference(_logits(kit, model), before)
    require(gap == 0, f"after reference() the logits differ by {gap:.2g} from those before.")
    same = trained == [p.requires_grad for p in model.parameters()]
    require(same, "after reference() other parameters are trained than before.")


CHECKS = (
    check_trains_something,
    check_changes_the_model,
    check_saves_safely,
    check_load_restores,
    check_save_takes_a_state_dict,
    check_load_to_go_on,
    check_merge_keeps_logits,
    check_reference_is_the_base,
)
