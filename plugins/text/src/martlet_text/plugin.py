"""Text: templates, loss scales, and the flags that choose them."""

from __future__ import annotations

from collections.abc import Iterator

from martlet import Arguments, LossScale, Template, hookimpl


@hookimpl
def provide_arguments() -> Iterator[Arguments]:
    yield Arguments(
        "template",
        "martlet_text.args:TemplateArguments",
        roles=("template",),
        restored_by="load_args",
        summary="How conversations become tokens.",
    )
    yield Arguments(
        "loss_scale",
        "martlet_text.args:LossScaleArguments",
        roles=("train", "preview"),
        restored_by="load_args",
        summary="Which of the tokens are trained on.",
    )


@hookimpl
def provide_templates() -> Iterator[Template]:
    yield Template(
        "auto",
        "martlet_text.auto:AutoTemplate",
        summary="The model's own chat template; plain text with --use_chat_template false.",
    )
    yield Template(
        "jinja",
        "martlet_text.jinja:JinjaTemplate",
        summary="The chat template that the model carries, with a loss mask derived from what it renders.",
    )
    yield Template(
        "completion",
        "martlet_text.completion:CompletionTemplate",
        summary="Plain text that a base model continues, without roles.",
    )
    yield Template(
        "default",
        "martlet_text.declarative:DeclarativeTemplate",
        summary="Plain headers, User: and Assistant:, for base models; its class renders every declarative template.",
        system="{system}\n\n",
        prompt="User:\n{content}\n\nAssistant:\n",
        suffix="{eos}",
        separator="\n",
    )
    yield Template(
        "chatml",
        summary="ChatML: <|im_start|>, a role, the message, <|im_end|>.",
        system="<|im_start|>system\n{system}<|im_end|>\n",
        prompt="<|im_start|>user\n{content}<|im_end|>\n<|im_start|>assistant\n",
        suffix="<|im_end|>",
        separator="\n",
        stop_words=("<|im_end|>", "<|endoftext|>"),
    )
    yield Template(
        "llama3",
        summary="Llama 3: a header with the role, the message without white space around it, <|eot_id|>.",
        prefix="{bos}",
        system="<|start_header_id|>system<|end_header_id|>\n\n{system|trim}<|eot_id|>",
        prompt=(
            "<|start_header_id|>user<|end_header_id|>\n\n{content|trim}<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n"
        ),
        suffix="<|eot_id|>",
        stop_words=("<|eot_id|>", "<|end_of_text|>"),
    )


@hookimpl
def provide_loss_scales() -> Iterator[LossScale]:
    yield LossScale(
        "default",
        "martlet_text.loss_scales:default",
        base=True,
        summary="Train on everything that the model wrote, in every turn.",
    )
    yield LossScale(
        "last_round",
        "martlet_text.loss_scales:last_round",
        base=True,
        summary="Train on what the model wrote after the last user message.",
    )
    yield LossScale(
        "all", "martlet_text.loss_scales:everything", base=True, summary="Train on every token, as pre-training does."
    )
