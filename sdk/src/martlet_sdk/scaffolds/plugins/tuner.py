"""What this package adds to Martlet. Imported for every listing, so nothing heavy is imported here."""

from collections.abc import Iterator

from martlet import Tuner, hookimpl


@hookimpl
def provide_tuners() -> Iterator[Tuner]:
    target = "martlet_my_name.tuner:MyNameTuner"
    yield Tuner("my-name", target, mergeable=True, summary="Normalisation layers and biases only.")
