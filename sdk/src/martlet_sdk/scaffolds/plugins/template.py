"""What this package adds to Martlet. Imported for every listing, so nothing heavy is imported here."""

from collections.abc import Iterator

from martlet import Template, hookimpl


@hookimpl
def provide_templates() -> Iterator[Template]:
    yield Template(
        "my-name",
        system="[SYSTEM]\n{system}\n\n",
        prompt="[USER]\n{content}\n\n[ASSISTANT]\n",
        suffix="<|im_end|>",  # what the model writes last: a token that the tokenizer has
        separator="\n\n",
        summary="Plain headers in square brackets.",
    )
