"""Reading what a person types and showing what the model writes: on a terminal, or through pipes."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Mapping
from typing import Any, Protocol

_SHOWN = {code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\t\n"}
_SHOWN |= dict.fromkeys(range(0x7F, 0xA0), "\u2421") | {ord("\r"): ""}


def visible(text: str) -> str:
    """Return what a model wrote with control characters made visible: on a terminal they would be obeyed."""
    return text.translate(_SHOWN)


class Terminal(Protocol):
    """Where a chat takes place."""

    interactive: bool
    """A person sits here: Ctrl-C stops an answer, not the program."""

    def welcome(self, facts: Mapping[str, str]) -> None:
        """Show what one is talking to."""

    def read(self, *, multiline: bool) -> str:
        """Return the next message. ``EOFError`` at the end; ``KeyboardInterrupt`` when the line was given up."""

    def begin(self) -> None:
        """An answer begins."""

    def write(self, text: str) -> None:
        """Show a piece of the answer."""

    def end(self, note: str) -> None:
        """The answer is over; ``note`` says how long it took, or that it was cut."""

    def say(self, text: str) -> None:
        """Tell something that is not from the model."""

    def complain(self, text: str) -> None:
        """Tell of an error."""


class PlainTerminal:
    """For pipes: answers on standard output, everything else on standard error."""

    interactive = False

    def __init__(self) -> None:
        if isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(errors="surrogateescape")  # the chat refuses one message, not the rest

    def welcome(self, facts: Mapping[str, str]) -> None:
        """Say nothing: the output is for a program."""

    def read(self, *, multiline: bool) -> str:
        return read_message(self._line, multiline=multiline)

    def _line(self, first: bool) -> str:
        if sys.stdin.isatty():
            print("you> " if first else "...  ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line:
            raise EOFError
        return line.rstrip("\r\n")

    def begin(self) -> None: ...

    def write(self, text: str) -> None:
        print(visible(text) if sys.stdout.isatty() else text, end="", flush=True)

    def end(self, note: str) -> None:
        print(flush=True)

    def say(self, text: str) -> None:
        print(text, file=sys.stderr)

    def complain(self, text: str) -> None:
        print(f"error: {text}", file=sys.stderr)


class RichTerminal:
    """For people: history and editing with prompt_toolkit, colours with rich."""

    interactive = True

    def __init__(self) -> None:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.history import InMemoryHistory
        from rich.console import Console

        self._console = Console(highlight=False, soft_wrap=True)
        self._session: Any = PromptSession(
            history=InMemoryHistory(),
            key_bindings=_keys(),
            prompt_continuation=lambda width, line, wrapped: " " * width if wrapped else "...  ",
        )

    def welcome(self, facts: Mapping[str, str]) -> None:
        self._console.print("[bold]Martlet chat[/bold]")
        for name, value in facts.items():
            self._console.print(f"  [dim]{name:<8}[/dim]", end="")
            self._console.print(value, markup=False)
        self._console.print("[dim]/help lists the commands. Ctrl-C stops an answer, Ctrl-D leaves.[/dim]\n")

    def read(self, *, multiline: bool) -> str:
        from prompt_toolkit.formatted_text import FormattedText

        def line(first: bool) -> str:
            words = "you> " if first else "...  "
            text: str = self._session.prompt(FormattedText([("bold ansigreen", words)]), multiline=multiline)
            return text

        if multiline:
            return line(True).rstrip("\n")
        return read_message(line, multiline=False)

    def begin(self) -> None:
        self._console.print("[bold cyan]bot> [/bold cyan]", end="")

    def write(self, text: str) -> None:
        print(visible(text), end="", flush=True)

    def end(self, note: str) -> None:
        print()
        if note:
            self._console.print(f"[dim]     {note}[/dim]", markup=True)
        print()

    def say(self, text: str) -> None:
        self._console.print(text, style="yellow", markup=False)

    def complain(self, text: str) -> None:
        self._console.print(f"error: {text}", style="red", markup=False)


def read_message(line: Callable[[bool], str], *, multiline: bool) -> str:
    """Put a message together: a backslash at the end of a line, or multi-line mode, makes it go on.

    ``line(first)`` returns one line. In multi-line mode an empty line ends the message.
    """
    lines: list[str] = []
    while True:
        try:
            text = line(not lines)
        except EOFError:
            if lines:
                return "\n".join(lines)
            raise
        if multiline and not lines and text.startswith("/"):
            return text
        if multiline:
            if not text:
                return "\n".join(lines)
            lines.append(text)
        elif text.endswith("\\"):
            lines.append(text[:-1])
        else:
            return "\n".join([*lines, text])


def _keys() -> Any:
    """In multi-line mode Enter sends a command or, on an empty line, the message; else it begins a new line."""
    from prompt_toolkit.application import get_app
    from prompt_toolkit.filters import Condition, is_multiline
    from prompt_toolkit.key_binding import KeyBindings

    keys = KeyBindings()
    ready = Condition(lambda: _complete(get_app().current_buffer.document))

    @keys.add("enter", filter=is_multiline & ready)
    def _(event: Any) -> None:
        event.current_buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def _(event: Any) -> None:
        event.current_buffer.insert_text("\n")

    return keys


def _complete(document: Any) -> bool:
    text: str = document.text
    if text.startswith("/") and "\n" not in text:
        return True
    return bool(document.is_cursor_at_the_end and not document.current_line.strip())
