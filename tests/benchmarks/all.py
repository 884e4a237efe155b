"""Run every program of this folder and print what each prints: all.py [NAME ...]."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main(names: list[str]) -> int:
    programs = [
        path for path in sorted(HERE.glob("*.py")) if path.name != "all.py" and (not names or path.stem in names)
    ]
    failed = 0
    for path in programs:
        print(f"== {path.stem}", flush=True)
        failed |= subprocess.run([sys.executable, str(path)], check=False).returncode
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
