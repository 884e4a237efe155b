"""A plugin that only listens."""

from martlet import hookimpl

seen = []


@hookimpl
def on_run_start(run):
    seen.append(run.command)
