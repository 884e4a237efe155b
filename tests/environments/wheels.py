"""Build every wheel, install them in a clean environment without the sources, and fine-tune there: wheels.py FOLDER."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

from alone import build_wheels
from distributions import ROOT

SMOKE = Path(__file__).with_name("smoke.py")


def main(folder: Path) -> None:
    wheels, place = folder / "wheels", folder / "clean"
    wheels.mkdir(parents=True, exist_ok=True)
    build_wheels(wheels)
    venv.create(place, with_pip=True, clear=True)
    python = place / "bin" / "python"
    install = ["pip", "install", "-q", "-c", str(ROOT / "constraints.txt"), "--find-links", str(wheels), "martlet"]
    subprocess.run([python, "-m", *install], check=True)
    work = folder / "work"
    work.mkdir(exist_ok=True)
    subprocess.run([python, SMOKE, str(ROOT)], check=True, cwd=work)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
