"""Type-check what is held to ``mypy --strict``: kernel, sdk, and every plugin.py and args.py."""

from __future__ import annotations

import subprocess
import sys

from distributions import distributions


def main() -> int:
    files = []
    for name, folder in distributions().items():
        source = folder / "src"
        if name in ("martlet-kernel", "martlet-sdk"):
            files += [str(path) for path in source.glob("*") if path.is_dir()]
        elif source.is_dir():
            files += [str(path) for path in source.glob("*/*.py") if path.name in ("plugin.py", "args.py")]
    return subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", *files], check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
