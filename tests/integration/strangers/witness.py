"""Write down which processes of a run this file is in."""

import os

from martlet import hookimpl


@hookimpl
def on_process_start(process):
    with open(os.environ["WITNESS"], "a") as file:
        file.write(f"{process.kind}:{os.getpid()}\n")
