"""Callbacks: classes with the shape of ``transformers.TrainerCallback``."""

from __future__ import annotations

import inspect
from typing import Any

from martlet.errors import suggest
from martlet.specs import Callback

from .base import Broken, require
from .kit import Kit

LOGS: tuple[dict[str, float], ...] = (
    {"loss": 2.5, "grad_norm": 0.7, "learning_rate": 1e-3, "epoch": 0.5},
    {"eval_loss": 2.4, "epoch": 0.5},
    {"train_loss": 2.4, "train_runtime": 3.1, "epoch": 1.0},
)
"""What ``on_log`` hears of a step, of an evaluation and at the end: no key is in all of them but ``epoch``."""


def _events() -> list[str]:
    from transformers import TrainerCallback

    return [name for name in vars(TrainerCallback) if name.startswith("on_")]


def check_knows_its_events(kit: Kit, spec: Callback) -> None:
    """Its ``on_*`` methods are events of ``transformers.TrainerCallback``, and there is one."""
    events, callback = _events(), kit.build(spec)
    mine = [name for name in dir(callback) if name.startswith("on_")]
    unknown = [name for name in mine if name not in events]
    require(not unknown, f"there is no event {unknown[:1]}. {suggest((unknown or [''])[0], events, listed='Events')}")
    require(mine, f"it listens to no event. {suggest('', events, listed='Events')}")


def check_survives_a_run(kit: Kit, spec: Callback) -> None:
    """Every event can be called as the trainer calls it, in the order of a short run."""
    import torch
    from transformers import TrainerControl, TrainerState, TrainingArguments

    callback, model = kit.build(spec), kit.fresh_model()
    args = TrainingArguments(output_dir=str(kit.folder / "output"), report_to=[], use_cpu=True)
    state = TrainerState(max_steps=2, num_train_epochs=1, logging_steps=1, train_batch_size=1)
    control = TrainerControl()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    shared: dict[str, Any] = {
        "model": model,
        "processing_class": kit.tokenizer,
        "optimizer": optimizer,
        "lr_scheduler": torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0),
        "train_dataloader": [],
        "eval_dataloader": None,
    }
    metrics = {"eval_loss": 2.4, "epoch": 0.5}
    extra = {"on_log": [{"logs": logs} for logs in LOGS]}
    extra |= {event: [{"metrics": metrics}] for event in ("on_evaluate", "on_predict")}
    order = [name for name in _events() if name not in ("on_init_end", "on_train_end")]
    for event in ["on_init_end", *order, "on_train_end"]:
        if not hasattr(callback, event):
            continue
        state.global_step += event == "on_step_end"
        for facts in extra.get(event, [{}]):
            state.log_history += [facts["logs"] | {"step": state.global_step}] if event == "on_log" else []
            answer = _call(callback, event, args, state, control, shared | facts)
            good = answer is None or isinstance(answer, TrainerControl)
            require(good, f"{event} returned {type(answer).__name__}; return the control or None.")


def _call(callback: Any, event: str, args: Any, state: Any, control: Any, facts: dict[str, Any]) -> Any:
    method = getattr(callback, event)
    try:
        inspect.signature(method).bind(args, state, control, **facts)
    except TypeError as error:
        wanted = f"{event}(self, args, state, control, **kwargs)"
        raise Broken(f"{event} cannot be called as the trainer calls it ({error}); write {wanted}.") from error
    return method(args, state, control, **facts)


CHECKS = (check_knows_its_events, check_survives_a_run)
