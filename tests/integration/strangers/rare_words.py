"""Long words of an answer count more than short ones; a full stop counts half."""

import re

from martlet import LossScale, hookimpl


def rare_words(messages, spans):
    weigh = {True: 1.75, False: 0.5}
    return [[(w, weigh[len(w) > 4]) for w in re.findall(r"\s*\w+|\W+", s.text)] if s.generated else 1 for s in spans]


@hookimpl
def provide_loss_scales():
    yield LossScale("rare_words", rare_words)
