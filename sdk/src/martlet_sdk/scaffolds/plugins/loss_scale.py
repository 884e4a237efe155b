"""What this package adds to Martlet. Imported for every listing, so nothing heavy is imported here."""

from collections.abc import Iterator

from martlet import LossScale, hookimpl


@hookimpl
def provide_loss_scales() -> Iterator[LossScale]:
    target = "martlet_my_name.loss_scale:my_name"
    yield LossScale("my-name", target, summary="Numbers weigh twice as much as other text.")
