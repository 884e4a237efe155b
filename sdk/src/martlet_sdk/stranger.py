"""A virtual environment to install plugin packages into, as somebody else would, without touching this one."""

from __future__ import annotations

import os
import site
import subprocess
import sys
import venv
from pathlib import Path

HIDDEN = ("MARTLET_DISABLE_PLUGIN_AUTOLOAD", "MARTLET_EXTERNAL_PLUGINS", "PYTHONPATH", "VIRTUAL_ENV")


class Stranger:
    """An environment below ``root`` that sees whatever is installed here, editable installs included."""

    def __init__(self, root: Path) -> None:
        self.root = root
        venv.create(root / "venv", with_pip=False, symlinks=True)
        self.python = root / "venv" / "bin" / "python"
        (self.library,) = (root / "venv" / "lib").glob("python*/site-packages")
        seen = [*site.getsitepackages(), *(path for path in sys.path if path.endswith("site-packages"))]
        lines = [f"import site; site.addsitedir({path!r})" for path in dict.fromkeys(seen)]
        (self.library / "seen_from_here.pth").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def install(self, *projects: Path) -> None:
        """Build wheels of these projects and install them, with no requirement of theirs."""
        pip = [
            sys.executable,
            "-m",
            "pip",
            "--python",
            str(self.python),
            "--disable-pip-version-check",
            "install",
            "-q",
        ]
        self.run(*pip, "--no-deps", "--no-build-isolation", *map(str, projects))

    def martlet(self, *words: str, status: int = 0) -> str:
        """Run a command line of Martlet and return what it prints."""
        return self.run(str(self.python), "-c", "from martlet.cli import entry; entry()", *words, status=status)

    def run(self, *words: str, status: int = 0) -> str:
        """Run a program in ``root`` and return what it prints; ``RuntimeError`` for another exit status."""
        environment = {name: value for name, value in os.environ.items() if name not in HIDDEN}
        done = subprocess.run(words, cwd=self.root, capture_output=True, text=True, timeout=600, env=environment)
        if done.returncode != status:
            raise RuntimeError(f"{' '.join(words)}: exit status {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done.stdout
