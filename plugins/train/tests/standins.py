"""A plugin with what the training commands take from other distributions: a loader, a template and a tuner.

They are small and real: transformers loads and saves, a tokenizer encodes. So these tests need none of the siblings
that martlet-train does not declare.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from martlet import Arguments, Callback, Hub, Model, Template, Tuner, UsageError, hookimpl
from martlet.protocols import Encoded, LoadedModel, Refused


@dataclass
class ModelArguments:
    model: str | None = field(default=None, metadata={"path": True})
    """A folder."""
    model_type: str | None = field(default=None, metadata={"component": "models", "unset": "folder"})
    """How it is loaded."""
    attn_impl: str | None = None
    """Attention implementation."""
    torch_dtype: str | None = None
    """Type of the weights."""
    hub: str | None = field(default=None, metadata={"component": "hubs", "unset": "shelf"})
    """Where models are uploaded to."""


@dataclass
class TemplateArguments:
    template: str | None = field(default=None, metadata={"component": "templates", "unset": "lines"})
    """How rows become tokens."""
    max_length: int | None = None
    """Longer rows are dropped."""
    use_chat_template: bool = True
    """Command pt turns it off."""
    loss_scale: str = "default"
    """Command pt sets it to all."""


@dataclass
class TunerArguments:
    tuner_type: str = field(default="all", metadata={"component": "tuners"})
    """What is trained."""
    fast_head: float | None = None
    """Train the final norm with so many times the learning rate."""


class Folder:
    """Load a causal language model from a folder."""

    def load(self, run, *, for_training=False):
        import torch
        from transformers import AutoModelForCausalLM

        flags = run.config[ModelArguments]
        dtype = getattr(torch, flags.torch_dtype or "float32")
        settings = {"attn_implementation": flags.attn_impl} if flags.attn_impl else {}
        model = AutoModelForCausalLM.from_pretrained(flags.model, dtype=dtype, **settings)
        return LoadedModel(model, self.load_processor(run), Path(flags.model))

    def load_processor(self, run):
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(run.config[ModelArguments].model)

    def skeleton(self, run):
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM

        flags = run.config[ModelArguments]
        dtype = getattr(torch, flags.torch_dtype or "float32")
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(flags.model), dtype=dtype)


class Shelf:
    """A hub that remembers what it was given."""

    given: ClassVar[list[tuple]] = []

    def upload(self, folder, id, *, private, message, run):
        self.given.append((Path(folder), id, private, message))
        return f"shelf/{id}"


class Lines:
    """``query`` is read, ``response`` is trained on; ``weight`` weights its tokens."""

    def bind(self, processor, run):
        flags = run.config[TemplateArguments]
        return BoundLines(processor, flags.max_length, flags.loss_scale == "all")


class BoundLines:
    def __init__(self, tokenizer, max_length, everything):
        self.tokenizer, self.max_length, self.everything = tokenizer, max_length, everything
        self.stop_ids = frozenset({tokenizer.eos_token_id})

    def encode_batch(self, rows):
        return [self._encode(row) for row in rows]

    def _encode(self, row):
        user, assistant = (message["content"] for message in row["messages"][:2])
        prompt = self.tokenizer(user)["input_ids"]
        answer = [*self.tokenizer(assistant)["input_ids"], self.tokenizer.eos_token_id]
        ids = prompt + answer
        if self.max_length and len(ids) > self.max_length:
            return Refused("too long", f"{len(ids)} tokens")
        labels = list(ids) if self.everything else [-100] * len(prompt) + answer
        weights = [float(row["weight"])] * len(ids) if "weight" in row else None
        extra = {"channel": row["channel"]} if "channel" in row else {}
        return Encoded(ids, labels, weights, extra)


class All:
    """Train everything; save as transformers does."""

    def apply(self, model, run):
        return model.requires_grad_(True)

    def save(self, model, path, state_dict=None):
        model.save_pretrained(path, state_dict=state_dict)

    def load(self, model, path, *, trainable=False, name="default"):
        from safetensors.torch import load_file

        model.load_state_dict(load_file(Path(path) / "model.safetensors"), strict=False)
        model.tie_weights()
        return model.requires_grad_(trainable)

    def parameter_groups(self, model, run):
        scale = run.config[TunerArguments].fast_head
        if scale is None:
            return None
        fast = [p for name, p in model.named_parameters() if name.endswith("norm.weight") and "layers" not in name]
        slow = [p for p in model.parameters() if not any(p is one for one in fast)]
        return [{"params": slow}, {"params": fast, "lr_scale": scale, "weight_decay": 0.0}]


class Picky(All):
    """Find fault with every model."""

    def apply(self, model, run):
        raise UsageError("--target_modules: the model has no such part.")


@dataclass
class SignalOptions:
    step: int = 2
    number: int = signal.SIGINT
    event: str = "on_step_begin"
    times: int = 1
    children: bool = False
    group: bool = False


class SendSignal:
    """Send this process a signal at one event of one step."""

    def __init__(self, options):
        self.options = options

    def __getattr__(self, event):
        if not event.startswith("on_"):
            raise AttributeError(event)
        return lambda args, state, control, **kwargs: self._tell(event, state, control)

    def _tell(self, event, state, control):
        step = state.global_step + (event in ("on_step_begin", "on_substep_end"))
        if event == self.options.event and step == self.options.step and self.options.times:
            self.options.times -= 1
            if self.options.group:
                os.killpg(0, self.options.number)
                return control
            children = multiprocessing.active_children() if self.options.children else []
            for process in [*(child.pid for child in children), os.getpid()]:
                subprocess.run(["kill", f"-{int(self.options.number)}", str(process)], check=True)
        return control


class StopAfterTwo:
    """Stop in the second step, as a callback may."""

    def __getattr__(self, event):
        if not event.startswith("on_"):
            raise AttributeError(event)
        return lambda args, state, control, **kwargs: control

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == 2
        return control


class Watch:
    """Keep the names of the events, and the learning rates of the parameter groups."""

    events: ClassVar[list[str]] = []
    rates: ClassVar[list[list[float]]] = []

    def __init__(self):
        self.events.clear()
        self.rates.clear()

    def __getattr__(self, event):
        if not event.startswith("on_"):
            raise AttributeError(event)
        return lambda args, state, control, **kwargs: self._note(event, control, kwargs)

    def _note(self, event, control, kwargs):
        self.events.append(event)
        if event == "on_pre_optimizer_step":
            self.rates.append([group["lr"] for group in kwargs["optimizer"].param_groups])
        return control


@hookimpl
def provide_arguments():
    yield Arguments("model", ModelArguments, roles=("model",))
    yield Arguments("template", TemplateArguments, roles=("template",))
    yield Arguments("tuner", TunerArguments, roles=("tuner",))


@hookimpl
def provide_models():
    yield Model("folder", Folder)


@hookimpl
def provide_templates():
    yield Template("lines", Lines)


@hookimpl
def provide_tuners():
    yield Tuner("picky", Picky)
    yield Tuner("all", All)


@hookimpl
def provide_callbacks():
    yield Callback("send_signal", SendSignal, options=SignalOptions)
    yield Callback("stop_after_two", StopAfterTwo)
    yield Callback("watch", Watch)


@hookimpl
def provide_hubs():
    yield Hub("shelf", Shelf)
