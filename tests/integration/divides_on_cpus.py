"""One of two processes that run command lines with FSDP2 on CPUs: accelerate, which refuses to divide there, is talked
into it, so that everything around the sharding is what runs on GPUs. ``divides_on_cpus.py FILE``, started by torchrun.
"""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType

from martlet_train import fsdp

make, start = AcceleratorState.__init__, fsdp.start


def divide(self: Any, *args: Any, **settings: Any) -> None:
    make(self, *args, **settings)
    plugin = settings.get("fsdp_plugin")
    if plugin is not None:
        self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, plugin


if __name__ == "__main__":
    AcceleratorState.__init__ = divide
    fsdp.start = lambda flags, cpu, processes: start(flags, cpu=False, processes=processes)
    runpy.run_path(str(Path(__file__).with_name("ranks.py")), run_name="__main__")
