"""The chat: what is sent to the model, what the commands do, and the terminal itself."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import martlet
from martlet import UsageError
from martlet.cli import main
from martlet.protocols import Request, Response, Sampling
from martlet_sdk.tiny import save_tiny_model
from martlet_serve.chat import Chat
from martlet_serve.terminal import PlainTerminal, read_message, visible


class Parrot:
    """An engine that says what it was asked, word by word, and keeps the requests."""

    def __init__(self, interrupt_after: int = -1) -> None:
        self.requests: list[Request] = []
        self.seeds: list[int | None] = []
        self.interrupt_after = interrupt_after

    def infer(self, requests: Any, sampling: Any = None) -> list[Response]:
        raise AssertionError("a chat streams")

    def stream(self, request: Request, sampling: Sampling | None = None) -> Iterator[Response]:
        self.requests.append(request)
        self.seeds.append(sampling.seed if sampling else None)
        words = request.messages[-1]["content"].split()
        if words == ["fail"]:
            raise RuntimeError("device lost")
        for count, word in enumerate(words):
            if count == self.interrupt_after:
                raise KeyboardInterrupt
            yield Response(f"{word} ", [count], "stop" if word == words[-1] else "")

    def close(self) -> None: ...


class Script:
    """A terminal that types the given messages and keeps what is shown."""

    def __init__(self, *messages: str, interactive: bool = True) -> None:
        self.messages = list(messages)
        self.interactive = interactive
        self.modes: list[bool] = []
        self.answers: list[str] = []
        self.notes: list[str] = []
        self.said: list[str] = []

    def welcome(self, facts: Mapping[str, str]) -> None: ...

    def read(self, *, multiline: bool) -> str:
        self.modes.append(multiline)
        if not self.messages:
            raise EOFError
        message = self.messages.pop(0)
        if message in ("^C", "SIGTERM"):
            raise KeyboardInterrupt(*([message] if message == "SIGTERM" else []))
        return message

    def begin(self) -> None:
        self.answers.append("")

    def write(self, text: str) -> None:
        self.answers[-1] += text

    def end(self, note: str) -> None:
        self.notes.append(note)

    def say(self, text: str) -> None:
        self.said.append(text)

    complain = say


def talk(*messages: str, engine: Parrot | None = None, **facts: Any) -> tuple[Parrot, Script, int]:
    engine, script = engine or Parrot(), Script(*messages)
    return engine, script, Chat(engine, Sampling(seed=10), script, **facts).run({})


def turns(request: Request) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in request.messages]


def test_the_conversation_goes_on() -> None:
    engine, script, status = talk("one", "two")
    assert turns(engine.requests[1]) == [("user", "one"), ("assistant", "one "), ("user", "two")]
    assert script.answers == ["one ", "two "]
    assert status == 0


def test_reset_forgets_it() -> None:
    engine, _, _ = talk("one", "/reset", "two")
    assert turns(engine.requests[1]) == [("user", "two")]


def test_the_system_message_comes_first_and_starts_over() -> None:
    engine, script, _ = talk("one", "/system Be brief.", "two", "/system", "/system -", "three")
    assert turns(engine.requests[1]) == [("system", "Be brief."), ("user", "two")]
    assert "System message: Be brief." in script.said
    assert turns(engine.requests[2]) == [("user", "three")]


def test_reset_keeps_the_system_message() -> None:
    engine, _, _ = talk("/system Be brief.", "/reset", "two")
    assert turns(engine.requests[0])[0] == ("system", "Be brief.")


@pytest.mark.parametrize("word", ["/exit", "/quit"])
def test_exit_leaves(word: str) -> None:
    engine, _, status = talk(word, "never")
    assert (engine.requests, status) == ([], 0)


def test_a_slash_can_be_sent_and_an_unknown_command_is_not() -> None:
    engine, script, _ = talk("//etc is a folder", "/rest")
    assert turns(engine.requests[0]) == [("user", "/etc is a folder")]
    assert script.said == ["there is no command /rest; /help lists them."]


def test_help_names_every_command() -> None:
    _, script, _ = talk("/help")
    assert all(word in script.said[0] for word in ("/reset", "/system", "/multiline", "/help", "/exit"))


def test_multiline_is_switched() -> None:
    _, script, _ = talk("/multiline", "x", "/multiline", "y")
    assert script.modes == [False, True, True, False, False]


def test_an_interrupted_answer_stays_as_far_as_it_came() -> None:
    engine, script, status = talk("a b c d", "then", engine=Parrot(interrupt_after=2))
    assert turns(engine.requests[1])[1] == ("assistant", "a b ")
    assert "stopped" in script.notes[0]
    assert status == 0


def test_an_answer_interrupted_at_once_leaves_no_trace() -> None:
    engine, _, _ = talk("a b", "c", engine=Parrot(interrupt_after=0))
    assert turns(engine.requests[1]) == [("user", "c")]


def test_an_interrupt_at_the_prompt_sends_nothing() -> None:
    engine, script, _ = talk("^C", "on")
    assert len(engine.requests) == 1
    assert "Ctrl-D" in script.said[0]


def test_sigterm_ends_the_chat() -> None:
    with pytest.raises(KeyboardInterrupt, match="SIGTERM"):
        talk("SIGTERM", "never")


@pytest.mark.parametrize("engine", [Parrot(interrupt_after=2), Parrot()])
def test_ctrl_c_ends_the_program_where_nobody_types(engine: Parrot) -> None:
    script = Script("a b c", "^C", interactive=False)
    with pytest.raises(KeyboardInterrupt):
        Chat(engine, Sampling(), script).run({})


def test_a_chat_ends_when_nobody_reads_its_answers() -> None:
    class Closed(Script):
        def write(self, text: str) -> None:
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        Chat(Parrot(), Sampling(), Closed("one", "two")).run({})


def test_bytes_that_are_no_text_are_not_sent() -> None:
    engine, script, status = talk("caf\udce9", "two")
    assert [turns(request) for request in engine.requests] == [[("user", "two")]]
    assert "bytes that are not text" in script.said[0] and status == 1


def test_a_model_cannot_command_the_terminal() -> None:
    assert visible("a\x1b[2Jb\x07\x7f\x9b1m\r\n\tc") == "a␛[2Jb␇␡␡1m\n\tc"


def test_a_closed_standard_input_is_told(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert main(["infer", "--model", str(tiny_model)]) == 2
    assert "standard input is closed" in capsys.readouterr().err


def test_a_closed_standard_output_is_told(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rows.jsonl").write_text('{"query": "Hello"}\n')
    batch = {"val_dataset": [str(tmp_path / "rows.jsonl")], "result_path": str(tmp_path / "result.jsonl")}
    monkeypatch.setattr(sys, "stdin", io.StringIO("hello\n"))
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(UsageError, match="standard output is closed"):
        martlet.run("infer", model=str(tiny_model))
    with pytest.raises(UsageError, match="--stream true: standard output is closed"):
        martlet.run("infer", model=str(tiny_model), stream=True, **batch)
    assert not (tmp_path / "result.jsonl").exists()
    assert martlet.run("infer", model=str(tiny_model), max_new_tokens=2, **batch).rows == 1


def test_help_begins_with_the_model_and_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["infer", "--help"]) == 0
    shown = capsys.readouterr().out
    places = [shown.index(f"  --{flag} ") for flag in ("model", "max_new_tokens", "val_dataset", "template")]
    assert places == sorted(places)
    assert "--loss_scale" not in shown


def test_a_failure_is_told_and_the_chat_goes_on() -> None:
    engine, script, status = talk("one", "fail", "two")
    assert script.said == ["RuntimeError: device lost /reset forgets the conversation."]
    assert turns(engine.requests[2])[-1] == ("user", "two")
    assert status == 1


def test_every_turn_has_a_seed_of_its_own() -> None:
    assert talk("a", "a", "a")[0].seeds == [10, 11, 12]


def test_without_stream_the_answer_comes_whole() -> None:
    _, script, _ = talk("a b c", stream=False)
    assert script.answers == ["a b c "]


@pytest.mark.parametrize(
    ("typed", "multiline", "messages"),
    [
        ("one\ntwo\n", False, ["one", "two"]),
        ("one\\\ntwo\nthree", False, ["one\ntwo", "three"]),
        ("one\\\n", False, ["one"]),
        ("one\ntwo\n\nthree\n", True, ["one\ntwo", "three"]),
        ("/reset\none\n\n", True, ["/reset", "one"]),
    ],
)
def test_lines_become_messages(typed: str, multiline: bool, messages: list[str]) -> None:
    stream = io.StringIO(typed)

    def line(first: bool) -> str:
        text = stream.readline()
        if not text:
            raise EOFError
        return text.rstrip("\n")

    for message in messages:
        assert read_message(line, multiline=multiline) == message
    with pytest.raises(EOFError):
        read_message(line, multiline=multiline)


def test_through_pipes_answers_are_all_of_the_output(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("hello\n/nonsense\n"))
    assert main(["infer", "--model", str(tiny_model), "--max_new_tokens", "4", "--stop_words", "\n"]) == 0
    shown = capsys.readouterr()
    assert shown.out.count("\n") == 1
    assert "no command /nonsense" in shown.err


def test_a_person_whose_answers_go_to_a_file_is_prompted_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stdin = io.StringIO("one\\\ntwo\n")
    monkeypatch.setattr(stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stdin", stdin)
    assert PlainTerminal().read(multiline=False) == "one\ntwo"
    assert capsys.readouterr() == ("", "you> ...  ")


def test_flags_for_datasets_are_named_in_a_chat(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    monkeypatch.setattr("logging.Logger.propagate", True, raising=False)
    run = martlet.prepare("infer", model=str(tiny_model), result_path="here.jsonl")
    assert run.execute() == 0
    assert any("--result_path has no effect in a chat" in text for text in run.record.warnings)


@pytest.fixture(scope="module")
def new_talker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Open a person's terminal with the chat in it, and a model that never ends its answer by itself."""
    pexpect = pytest.importorskip("pexpect")
    folder = save_tiny_model(tmp_path_factory.mktemp("chat") / "model", max_position_embeddings=4096)
    endless = {"eos_token_id": None, "suppress_tokens": list(range(16))}  # the special tokens are among them
    config = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps({**config, **endless}))
    code = "from martlet.cli import entry; entry()"
    flags = ["--model", str(folder), "--max_new_tokens", "3000", "--temperature", "1"]
    env = {**os.environ, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1", "NO_COLOR": "1"}
    words, settings = ["-c", code, "infer", *flags], {"env": env, "encoding": "utf-8", "dimensions": (50, 200)}
    settings["preexec_fn"] = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a job in the background ignores it
    children = []

    def new() -> Any:
        children.append(pexpect.spawn(sys.executable, words, timeout=60, **settings))
        children[-1].expect("you> ")
        return children[-1]

    yield new
    for child in children:
        child.close(force=True)


def send(talker: Any, keys: str, *expected: str) -> None:
    talker.send(keys)
    for text in (*expected, "you> "):
        talker.expect(text)


def interrupt(talker: Any) -> None:
    """Stop an answer once some of it is there."""
    talker.expect("bot> .{40}")
    talker.sendintr()
    talker.expect(r"(\d+) tokens? .* stopped")
    assert int(talker.match[1]) < 2900


def test_the_terminal(new_talker: Any) -> None:
    talker = new_talker()
    send(talker, "/help\r", "forget the conversation")
    send(talker, "never sent\x03", "Nothing was sent")
    send(talker, "/system Speak up.\r", "starts over")
    talker.send("tell me a story\r")
    interrupt(talker)
    talker.expect("you> ")
    send(talker, "/multiline\r", "is on")
    talker.send("one\rtwo\r\r")
    interrupt(talker)
    talker.expect("you> ")
    talker.send("\x04")
    talker.wait()
    talker.close()
    assert talker.exitstatus == 0


def test_a_line_wider_than_the_terminal_does_not_look_like_several(new_talker: Any) -> None:
    talker = new_talker()
    talker.send("x" * 250 + "\x03")
    talker.expect("Nothing was sent")
    assert "xxx" in talker.before and "..." not in talker.before


@pytest.mark.parametrize("answering", [False, True])
def test_sigterm_ends_the_terminal(new_talker: Any, answering: bool) -> None:
    talker = new_talker()
    if answering:
        talker.send("tell me a story\r")
        talker.expect("bot> ")
    talker.kill(signal.SIGTERM)
    talker.expect("interrupted: SIGTERM")
    talker.wait()
    assert talker.exitstatus == 143
