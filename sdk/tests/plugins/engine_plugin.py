"""An engine that answers one request after the other with ``generate``."""

from dataclasses import dataclass

from martlet import Arguments, Engine, hookimpl
from martlet.protocols import Response


@dataclass
class PlaceArguments:
    model: str | None = None
    """Folder of the model."""


class OneByOne:
    def load(self, path=None, *, run=None, **settings):
        from transformers import AutoModelForCausalLM, AutoTokenizer

        folder = path or run.config[PlaceArguments].model
        return self.attach(AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder), run=run)

    def attach(self, model, processor, *, run=None):
        self.model, self.tokenizer = model, processor
        return self

    def infer(self, requests, sampling=None):
        return [self._answer(request, sampling) for request in requests]

    def _answer(self, request, sampling):
        try:
            return self._generate(request, sampling)
        except Exception as error:
            return Response("", [], "error", id=request.id, error=str(error) or type(error).__name__)

    def _generate(self, request, sampling):
        for message in request.messages:
            if not isinstance(message["content"], str):
                raise ValueError("content is not text")
        rendered = self.tokenizer.apply_chat_template(request.messages, add_generation_prompt=True, tokenize=False)
        inputs = self.tokenizer(rendered, add_special_tokens=False, return_tensors="pt")
        new = self.model.generate(**inputs, max_new_tokens=sampling.max_new_tokens, do_sample=False)
        ids = new[0, inputs.input_ids.shape[1] :].tolist()
        text = self.tokenizer.decode(ids, skip_special_tokens=True)
        finish = "length" if len(ids) == sampling.max_new_tokens else "stop"
        for stop in sampling.stop:
            if stop in text:
                text, finish = text.partition(stop)[0], "stop"
        return Response(text, ids, finish, id=request.id)

    def stream(self, request, sampling=None):
        whole = self._answer(request, sampling)
        half = len(whole.text) // 2
        yield Response(whole.text[:half], [], "", id=request.id)
        yield Response(whole.text[half:], whole.token_ids, whole.finish, id=request.id)

    def close(self):
        self.model = None


@hookimpl
def provide_arguments():
    yield Arguments("place", PlaceArguments, roles=("model",))


@hookimpl
def provide_engines():
    yield Engine("one-by-one", OneByOne, can=frozenset({"stream", "attach"}))
