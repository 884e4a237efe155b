"""What the tour prints."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from martlet.protocols import TrainResult

STEPS = 5


class Show:
    """The tour's pages, on standard output."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)

    def title(self, folder: Path) -> None:
        self.console.rule("[bold]Martlet quickstart")
        self.console.print(
            "A model is made from nothing, learns to answer, and then learns who it is: offline, on this machine, in a "
            f"few minutes.\nEverything goes to [bold]{escape(str(folder))}[/bold]."
        )

    def step(self, number: int, text: str) -> None:
        self.console.print(f"\n[bold cyan]{number}/{STEPS}[/bold cyan] [bold]{escape(text)}[/bold]")

    def fact(self, what: str, text: str) -> None:
        self.console.print(f"    {escape(what)}: [dim]{escape(text)}[/dim]", soft_wrap=True)

    def sample(self, text: str) -> None:
        self.console.print(f"    [dim]{escape(text)}[/dim]", soft_wrap=True)

    def command(self, text: str) -> None:
        """Show a command line, broken before its flags so that it can be pasted."""
        lines = text.replace(" --", " \\\n      --")
        self.console.print(f"\n    [green]$ {escape(lines)}[/green]\n", soft_wrap=True)

    def comparison(self, before: Mapping[str, str], after: Mapping[str, str], taught: Mapping[str, str]) -> None:
        table = Table(show_lines=False, pad_edge=False)
        table.add_column("question", style="bold")
        table.add_column("before: full training")
        table.add_column("after: with LoRA")
        for question in taught:
            changed = "green" if before[question] != after[question] else ""
            table.add_row(Text(question), Text(before[question]), Text(after[question], style=changed))
        self.console.print(table)
        wrong = [question for question, answer in taught.items() if after[question] != answer]
        for question in wrong:
            self.console.print(f"    [yellow]{escape(question)} It was taught to answer: {escape(taught[question])}")

    def files(self, full: TrainResult, lora: TrainResult) -> None:
        table = Table.grid(padding=(0, 2))
        rows = {
            "model": full.checkpoint,
            "adapter": lora.checkpoint,
            "loss curve": next(iter(sorted((full.folder / "images").glob("*loss*.png"))), full.folder / "images"),
            "TensorBoard": full.folder / "runs",
            "what was run": lora.folder / "run.json",
        }
        for name, path in rows.items():
            table.add_row(f"    [dim]{name}", Text(shown(path)))
        self.console.print("\n[bold]Files")
        self.console.print(table, soft_wrap=True)

    def next_commands(self, lora: TrainResult) -> None:
        adapter = shown(lora.checkpoint)
        self.console.print("\n[bold]Next")
        for line, why in (
            (f"martlet infer --adapters {adapter}", "talk to it"),
            (f"martlet merge-lora --adapters {adapter}", "make one model of both"),
            (f"tensorboard --logdir {shown(lora.folder.parent.parent)}", "look at the curves"),
        ):
            self.console.print(f"    [green]{escape(line)}[/green]  [dim]# {why}[/dim]", soft_wrap=True)

    def end(self, seconds: float, folder: Path) -> None:
        minutes, rest = divmod(round(seconds), 60)
        self.console.print(f"\n[dim]It took {minutes} min {rest} s. To start over, delete {escape(str(folder))}.")


def shown(path: Path | None) -> str:
    """Return a path as one would type it here."""
    if path is None:
        return ""
    short = os.path.relpath(path)
    return str(path) if short.startswith("..") else short
