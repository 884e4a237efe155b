"""A launcher: two processes of this machine."""

import os
import subprocess
import sys

from martlet import Launcher, hookimpl
from martlet.specs import load

MAIN = "import sys; from martlet.cli import main; sys.exit(main(sys.argv[1:]))"


def pair(run):
    place = {"WORLD_SIZE": "2", "MARTLET_RUN_FOLDER": str(load(run.config.command.folder)(run))}
    ranks = []
    for number in (0, 1):
        own = {"RANK": str(number), "LOCAL_RANK": str(number)}
        words = list(run.words)
        ranks.append(subprocess.Popen([sys.executable, "-c", MAIN, *words], env=os.environ | place | own))
    return max(rank.wait() for rank in ranks)


@hookimpl
def provide_launchers():
    yield Launcher("pair", pair, summary="Two processes.")
