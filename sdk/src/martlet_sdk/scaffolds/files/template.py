"""A chat template: `[USER]` and `[ASSISTANT]` above each turn. The text is all there is to say about it."""

from collections.abc import Iterator

from martlet import Template, hookimpl


@hookimpl
def provide_templates() -> Iterator[Template]:
    yield Template(
        "my-name",
        system="[SYSTEM]\n{system}\n\n",
        prompt="[USER]\n{content}\n\n[ASSISTANT]\n",
        suffix="{eos}",  # what the model writes last: the end-of-turn token of its tokenizer
        separator="\n\n",
        summary="Plain headers in square brackets.",
    )
