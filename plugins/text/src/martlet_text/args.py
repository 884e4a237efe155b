"""Flags of commands that turn conversations into tokens."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class TemplateArguments:
    template: str | None = field(default=None, metadata={"component": "templates", "unset": "auto", "important": True})
    """How a conversation becomes text. Left out: the chat template that the model carries, else the one that its family
    uses."""

    system: str | None = field(default=None, metadata={"important": True})
    """System message for rows that have none, as text or as the path of a .txt file. A row's own always wins; without
    either, the template's default applies."""

    max_length: int | None = field(default=None, metadata={"ge": 1, "important": True})
    """Tokens that a row may have. Left out: as many as the tokenizer says its model takes, else as
    config.json says."""

    truncation_strategy: str = field(default="delete", metadata={"choices": ("delete", "left", "right")})
    """What happens to a row longer than --max_length: delete drops it and counts it in the ledger, left and right cut
    tokens off at that side."""

    use_chat_template: bool = True
    """Render conversations with a chat template. False: their texts are joined, for a base model to continue."""

    template_backend: str = field(default="jinja", metadata={"choices": ("jinja", "declarative", "swift")})
    """Where the text comes from when --template is left out: jinja is the model's own chat template; declarative (also
    called swift) is the declarative template that its family names."""


@dataclass
class LossScaleArguments:
    loss_scale: str = field(
        default="default", metadata={"component": "loss_scales", "separator": "+", "important": True}
    )
    """Which tokens are trained on, and how much each counts. Names joined by + are multiplied; one of them may be a
    base: default (every answer), last_round (what follows the last user message) or all (every token)."""
