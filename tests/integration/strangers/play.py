"""A play: who speaks, and then what they say."""

from martlet import Template, hookimpl


@hookimpl
def provide_templates():
    yield Template("play", system="({system})\n", prompt="ANN: {content}\nBOB:\n", suffix="{eos}", separator="\n")
