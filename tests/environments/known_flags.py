"""Write down which distribution owns which flag, for the hint that an unknown flag gets: known_flags.py."""

from __future__ import annotations

import json

from distributions import ROOT, distributions

from martlet.fields import fields_of
from martlet.manager import PluginManager
from martlet.specs import Arguments, load


def main() -> None:
    manager = PluginManager(strict=True)
    manager.load_installed()
    ours = distributions()
    found = {}
    for plugin, spec in manager.specs(Arguments):
        owner = manager.plugins[plugin].origin
        if owner in ours and owner not in ("martlet-kernel", "martlet-sdk"):
            found |= {field.name: owner for field in fields_of(load(manager.target(spec)))}
    text = json.dumps(dict(sorted(found.items())), indent=1)
    (ROOT / "kernel" / "src" / "martlet" / "known_flags.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
