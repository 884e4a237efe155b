"""Engines: conversations in, answers out."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, cast

from martlet.protocols import Request, Response, Sampling
from martlet.specs import Engine

from .base import Broken, Skipped, require
from .kit import Kit

QUESTIONS = ("Who are you?", "What is the colour of grass?", "数到三", "A much longer question, " * 6 + "is it not?")
GREEDY: dict[str, Any] = {"temperature": 0.0, "max_new_tokens": 8}


def _requests(questions: Sequence[str] = QUESTIONS) -> list[Request]:
    return [Request([{"role": "user", "content": text}], id=f"q{number}") for number, text in enumerate(questions)]


def _endless(kit: Kit) -> Path:
    """Return the tiny model without an end-of-sequence token, so that every answer has the length asked for."""
    from transformers import GenerationConfig

    folder = kit.folder / "endless"
    if not folder.exists():
        from ..tiny import save_tiny_model

        save_tiny_model(folder, seed=3)
        settings: Any = GenerationConfig(pad_token_id=0, do_sample=False)  # type: ignore[no-untyped-call]
        settings.save_pretrained(folder)
    return folder


def _engine(kit: Kit, spec: Engine) -> Any:
    run = kit.run("model", "template", "generate", "infer", select=spec, model=str(_endless(kit)))
    engine = kit.build(spec).load(run=run)
    require(engine is not None, "load() returned None; return the engine itself.")
    for name in ("infer", "close"):
        require(callable(getattr(engine, name, None)), f"what load() returned has no method {name}().")
    return engine


def _answers(engine: Any, requests: list[Request], **sampling: Any) -> list[Response]:
    found = engine.infer(requests, Sampling(**{**GREEDY, **sampling}))
    require(isinstance(found, list), f"infer() returned {type(found).__name__}, not a list of Response.")
    require(len(found) == len(requests), f"infer() returned {len(found)} answers to {len(requests)} requests.")
    for answer in found:
        require(not answer.error, f"infer() failed: {answer.error}")
        good = answer.finish in ("stop", "length")
        require(good, f"an answer of infer() has finish={answer.finish!r}; say 'stop' or 'length'.")
    return list(found)


def check_keeps_order(kit: Kit, spec: Engine) -> None:
    """Many requests at once get the answers that each gets alone, in order, with its id."""
    with closing(_engine(kit, spec)) as engine:
        together = _answers(engine, _requests())
        alone = [_answers(engine, [request])[0] for request in _requests()]
        ids = [answer.id for answer in together]
        require(ids == [request.id for request in _requests()], f"answers carry the ids {ids}, in that order.")
        for request, one, other in zip(_requests(), together, alone, strict=True):
            require(
                one.text == other.text,
                f"request {request.id} is answered with {one.text!r} in a batch and with {other.text!r} alone.",
            )


def check_length_is_respected(kit: Kit, spec: Engine) -> None:
    """``max_new_tokens`` bounds an answer, and ``finish`` says that it did."""
    with closing(_engine(kit, spec)) as engine:
        for limit in (1, 5):
            for answer in _answers(engine, _requests(), max_new_tokens=limit):
                count = len(answer.token_ids)
                require(count <= limit, f"max_new_tokens={limit}, but an answer has {count} tokens.")
                if count == limit:
                    require(answer.finish == "length", f"an answer cut at {limit} tokens has finish={answer.finish!r}.")


def check_stop_is_respected(kit: Kit, spec: Engine) -> None:
    """An answer ends where a stop text first comes about, with or without it, and ``finish`` says so."""
    with closing(_engine(kit, spec)) as engine:
        request = _requests()[:1]
        free = _answers(engine, request)[0].text
        if len(free) < 3:
            raise Skipped(f"the tiny model answers {free!r}, too short to stop in.")
        middle = free[len(free) // 2]
        stopped = _answers(engine, request, stop=[middle])[0]
        behind = stopped.text.partition(middle)[2]
        require(not behind, f"stop={[middle]}, but the answer is {stopped.text!r}.")
        require(free.startswith(stopped.text), f"with a stop text the answer is {stopped.text!r}, without it {free!r}.")
        require(stopped.finish == "stop", f"an answer that met a stop text has finish={stopped.finish!r}.")


def check_one_failure_is_one(kit: Kit, spec: Engine) -> None:
    """A request that cannot be answered is its own error; the others are answered."""
    with closing(_engine(kit, spec)) as engine:
        good = _requests()[:2]
        faulty = Request([{"role": "user", "content": None}], id="faulty")
        try:
            found = engine.infer([good[0], faulty, good[1]], Sampling(**GREEDY))
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            raise Broken(f"one faulty request makes infer() raise {what}; set Response.error instead.") from error
        require(len(found) == 3, f"infer() returned {len(found)} answers to three requests, one of them faulty.")
        said = found[1].error and found[1].finish == "error"
        require(said, f"a faulty request got finish={found[1].finish!r}, error={found[1].error!r}; say what was wrong.")
        require(not found[0].error and not found[2].error, "a faulty request spoils the answers beside it.")


def check_stream(kit: Kit, spec: Engine) -> None:
    """The pieces of a stream join to the answer; the last one, and only it, says how it ended."""
    if "stream" not in spec.can:
        raise Skipped("it does not say that it can stream.")
    with closing(_engine(kit, spec)) as engine:
        request = _requests()[1]
        pieces = list(engine.stream(request, Sampling(**GREEDY)))
        whole = _answers(engine, [request])[0].text
        joined = "".join(piece.text for piece in pieces)
        require(joined == whole, f"the pieces of a stream join to {joined!r}, infer() answers {whole!r}.")
        ends = [piece.finish for piece in pieces]
        good = ends and ends[-1] in ("stop", "length") and not any(ends[:-1])
        require(good, f"the pieces of a stream have finish={ends}; '' until the last, which says 'stop' or 'length'.")
        begun = engine.stream(request, Sampling(**GREEDY))
        next(begun)
        begun.close()
        again = _answers(engine, [request])[0].text
        require(again == whole, "after a stream was closed early the engine answers differently.")


def check_attach(kit: Kit, spec: Engine) -> None:
    """Attached to a live model it answers as that model does, also after its weights have changed, and leaves it so."""
    if "attach" not in spec.can:
        raise Skipped("it does not say that it can attach.")
    import torch

    model = kit.fresh_model().train()
    model.lm_head.requires_grad_(False)
    found = _state(model)
    run = kit.run("model", "template", "generate", "infer", select=spec, model=str(kit.model_folder))
    engine = kit.build(spec).attach(model, kit.tokenizer, run=run)
    before = [answer.text for answer in _answers(engine, _requests())]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)))
    after = [answer.text for answer in _answers(engine, _requests())]
    engine.close()
    require(before != after, "the weights of the attached model have changed, but not the answers.")
    for what, now in _state(model).items():
        require(now == found[what], f"it leaves the attached model with {what} changed; training would go on wrongly.")


def check_score(kit: Kit, spec: Engine) -> None:
    """Scores of conversations are those of the model's head, one number a label, in any order and company."""
    if "score" not in spec.can:
        raise Skipped("it does not say that it can score.")
    import torch
    from transformers import AutoModelForSequenceClassification

    labels = 2
    config, auto = kit.fresh_model().config, cast(Any, AutoModelForSequenceClassification)
    config.num_labels = labels
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(5)
        model = auto.from_config(config)
    folder = kit.folder / "classifier"
    model.save_pretrained(folder)
    kit.tokenizer.save_pretrained(folder)
    run = kit.run("model", "template", "generate", "infer", select=spec, model=str(folder), task_type="seq_cls")
    talks = [
        Request([{"role": "user", "content": text}, {"role": "assistant", "content": "So it is."}])
        for text in QUESTIONS
    ]
    with closing(kit.build(spec).load(run=run)) as engine:
        together = engine.score(talks)
        require(
            [len(numbers) for numbers in together] == [labels] * len(talks),
            f"score() returned {together} for {len(talks)} conversations; it returns a number for each label of each.",
        )
        alone = torch.tensor([engine.score([talk])[0] for talk in talks])
        near = torch.allclose(torch.tensor(together), alone, atol=1e-4)
        require(near, f"score() gives {together} in a batch and {alone.tolist()} alone.")


def _state(model: Any) -> dict[str, Any]:
    return {
        "its training mode": [module.training for module in model.modules()],
        "what requires a gradient": [parameter.requires_grad for parameter in model.parameters()],
        "config.use_cache": model.config.use_cache,
        "its generation settings": model.generation_config.to_dict(),
    }


def check_closes(kit: Kit, spec: Engine) -> None:
    """``close`` may be called twice."""
    engine = _engine(kit, spec)
    engine.close()
    engine.close()


CHECKS = (
    check_keeps_order,
    check_length_is_respected,
    check_stop_is_respected,
    check_one_failure_is_one,
    check_stream,
    check_attach,
    check_score,
    check_closes,
)
