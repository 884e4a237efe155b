"""List a plugin in a fresh interpreter and report what that did: ``python -B -m martlet_sdk.contract.probe PLUGIN``.

Prints one JSON object. Run by the general checks; it imports nothing but the kernel and the plugin.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

HEAVY = (
    *("PIL", "accelerate", "aiohttp", "bitsandbytes", "datasets", "deepspeed", "evalscope", "fastapi", "gradio"),
    *("huggingface_hub", "jax", "lmdeploy", "matplotlib", "modelscope", "numpy", "pandas", "peft", "pyarrow", "ray"),
    *("scipy", "sentencepiece", "sglang", "sklearn", "tensorboard", "tensorflow", "tokenizers", "torch"),
    *("transformers", "triton", "trl", "unsloth", "vllm"),
)
"""Packages that take long to import; a plugin's listing must do without them.

One file may import them itself: it is imported only where the user names it.
"""

WRITES = ("os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.link", "os.truncate", "shutil.rmtree")
LEAVES = ("subprocess.Popen", "os.system", "os.exec", "os.fork", "os.posix_spawn", "socket.connect", "socket.bind")


def _touches(event: str, args: tuple[Any, ...]) -> bool:
    if event == "open":
        path, mode, flags = (*args, None, None)[:3]
        if isinstance(path, int) or str(path) == os.devnull:
            return False
        writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC
        return bool(set(mode or "") & set("wax+")) or bool(isinstance(flags, int) and flags & writing)
    return event in WRITES or event in LEAVES


def _heavy() -> list[str]:
    return [name for name in HEAVY if name in sys.modules]


def _imports_heavy() -> bool:
    """Tell whether a heavy package is at work on the stack."""
    frame = sys._getframe(2)
    while frame and frame.f_globals.get("__name__", "").partition(".")[0] not in HEAVY:
        frame = frame.f_back  # type: ignore[assignment]
    return frame is not None


def probe(reference: str) -> dict[str, Any]:
    """Import a plugin, ask it for its specs twice, and say what changed."""
    from martlet import KINDS, external_plugins

    from .kit import Kit

    touched: list[str] = []
    watching, one_file = True, Path(reference).is_file()

    def watch(event: str, args: tuple[Any, ...]) -> None:
        if watching and _touches(event, args) and not (one_file and _imports_heavy()):
            touched.append(f"{event}({', '.join(map(repr, args[:2]))})")

    before = dict(os.environ), list(sys.path), os.getcwd()
    sys.addaudithook(watch)
    report: dict[str, Any] = {"unequal": []}
    with Kit(reference) as kit:
        impls = {kind: getattr(kit.alone.pm.hook, f"provide_{kind}").get_hookimpls() for kind in KINDS}
        excused = _heavy() if one_file else []
        for kind, found in impls.items():
            for impl in found:
                first, second = list(impl.function() or ()), list(impl.function() or ())
                if first != second:
                    report["unequal"].append(f"provide_{kind}")
        os.environ.pop(external_plugins.VARIABLE, None)
        after = dict(os.environ), list(sys.path), os.getcwd()
    watching = False
    report["heavy"] = [name for name in _heavy() if name not in excused]
    names = ("the environment", "sys.path", "the working directory")
    report["changed"] = [name for name, old, new in zip(names, before, after, strict=True) if old != new]
    report["touched"] = touched
    return report


if __name__ == "__main__":
    print("\n" + json.dumps(probe(sys.argv[1])))
