"""Tokens from a generation that runs in its own thread, and text pieces from tokens."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator

from .endings import Endings, TextStream
from .generation import Answer, Token

Work = Callable[[Callable[[Token], None], Callable[[], bool]], None]
"""``(on_token, cancelled)``: generates, reports each token, and ends soon after ``cancelled()`` turns true."""


def tokens_of(work: Work) -> Generator[Token, None, None]:
    """Run ``work`` in a thread and yield its tokens; its exception is raised here. Closing the iterator cancels it."""
    made: queue.SimpleQueue[Token | BaseException | None] = queue.SimpleQueue()
    stopped = threading.Event()

    def produce() -> None:
        try:
            work(made.put, stopped.is_set)
            made.put(None)
        except BaseException as error:  # raised again where the stream is read
            made.put(error)

    worker = threading.Thread(target=produce, name="martlet-generate", daemon=True)
    worker.start()
    try:
        while (token := made.get()) is not None:
            if isinstance(token, BaseException):
                raise token
            yield token
    finally:
        stopped.set()
        worker.join()


def pieces(tokens: Iterable[Token], limit: int, endings: Endings) -> Iterator[tuple[str, Answer]]:
    """Yield text as soon as it is complete, with the tokens behind it; the last piece has ``finish`` set."""
    text, written, part = TextStream(endings.decode), list[int](), Answer([], "")
    for token in tokens:
        written.append(token.id)
        part.add(token)
        if endings.reached(written):
            part.finish = "stop"
            break
        if len(written) >= limit:
            break
        if piece := text.push(token.id):
            yield piece, part
            part = Answer([], "")
    part.finish = part.finish or "length"
    yield text.finish(endings.text(written)), part
