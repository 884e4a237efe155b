"""One of several processes that run command lines together, one after the other; started by torchrun.

``ranks.py FILE``: a JSON file of command lines. Writes the exit status of each into ``FILE.RANK``, and the numbers of
the rows in every training batch that this process computed.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from martlet.cli import main
from martlet_train import curves, trainer

seen: list[list[int]] = []


def watched(step: Any) -> Any:
    def training_step(self: Any, model: Any, inputs: Any, *args: Any, **more: Any) -> Any:
        seen.append([] if inputs.filler else inputs.numbers.tolist())
        return step(self, model, inputs, *args, **more)

    return training_step


if __name__ == "__main__":
    place, rank = Path(sys.argv[1]), os.environ["RANK"]
    trainer.CoreTrainer.training_step = watched(trainer.CoreTrainer.training_step)
    curves.draw = lambda *args, **settings: []
    done = []
    for words in json.loads(place.read_text(encoding="utf-8")):
        seen.clear()
        status = main(words)
        done.append({"status": status, "seen": list(seen)})
        place.with_suffix(f".{rank}").write_text(json.dumps(done), encoding="utf-8")
        if status:
            break
