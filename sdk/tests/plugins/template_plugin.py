"""A template class: headers in brackets, the mask from character offsets."""

from martlet import DataError, Template, hookimpl
from martlet.protocols import Encoded, Refused, Span


class Brackets:
    def bind(self, processor, run):
        return Bound(processor)


class Bound:
    max_length = None

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.end = tokenizer.eos_token
        self.stop_ids = frozenset({tokenizer.eos_token_id})

    def spans(self, row):
        messages = row.get("messages")
        if not isinstance(messages, list) or not messages:
            raise DataError("no messages")
        spans = []
        for place, message in enumerate(messages):
            good = isinstance(message, dict) and isinstance(message.get("content"), str)
            if not good or message.get("role") not in ("system", "user", "assistant"):
                raise DataError(f"message {place} has no text or an unknown role")
            spans += self._turn(place, message["role"], message["content"])
        return spans

    def _turn(self, place, role, content):
        generated = role == "assistant"
        yield Span(f"[{role}]\n", role, False, place)
        yield Span(content + self.end, role, generated, place)
        yield Span("\n", "", False)

    def encode_batch(self, rows):
        return [self._encode(row) for row in rows]

    def _encode(self, row):
        try:
            spans = self.spans(row)
        except DataError as error:
            return Refused("unusable", str(error))
        text = "".join(span.text for span in spans)
        kept, start = set(), 0
        for span in spans:
            if span.generated:
                kept.update(range(start, start + len(span.text)))
            start += len(span.text)
        found = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        pairs = zip(found.input_ids, found.offset_mapping, strict=True)
        return Encoded(found.input_ids, [id if begin in kept else -100 for id, (begin, _) in pairs])

    def prompt(self, messages, tools=None):
        return "".join(span.text for span in self.spans({"messages": messages})) + "[assistant]\n"

    def prompt_ids(self, messages, tools=None):
        return self.tokenizer(self.prompt(messages), add_special_tokens=False).input_ids

    def decode(self, ids):
        return self.tokenizer.decode(ids).removesuffix(self.end)


@hookimpl
def provide_templates():
    yield Template("brackets", Brackets)
