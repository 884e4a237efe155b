"""The loss curves: what is drawn, and how it is smoothed."""

import math
import statistics

import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.image import imread

from martlet_train import curves

HISTORY = [
    *({"step": step, "loss": 3 - step / 100, "eval_loss_weight": 1.0, "epoch": step / 50} for step in range(1, 101)),
    {"step": 50, "eval_loss": 2.5, "eval_runtime": 3.0, "eval_samples_per_second": 9.0},
    {"step": 100, "eval_loss": 2.2, "eval_runtime": 3.0},
    {"step": 100, "train_loss": 9.0, "train_runtime": 1.0, "total_flos": 1e9},
]


def test_metrics_are_sorted_from_bookkeeping_and_training_from_evaluation():
    found = curves.curves(HISTORY)
    assert set(found) == {"loss", "loss_weight"}
    assert len(found["loss"].train) == 100
    assert found["loss"].eval == {50: 2.5, 100: 2.2}


def test_a_step_logged_again_counts_once():
    found = curves.curves([{"step": 1, "loss": 3.0}, {"step": 1, "loss": 2.0}])
    assert found["loss"].train == {1: 2.0}


def test_smoothing_keeps_a_line_and_quiets_noise():
    level = [2.0] * 50
    assert curves.smooth(level, 5) == pytest.approx(level)
    noisy = [2.0 + (-1) ** step for step in range(200)]
    assert statistics.pstdev(curves.smooth(noisy, 10)) < 0.2
    slope = [float(step) for step in range(100)]
    assert curves.smooth(slope, 4)[20:80] == pytest.approx(slope[20:80], abs=0.05), "no lag"


@pytest.fixture
def axes():
    return Figure().add_subplot()


def test_a_curve_has_its_noise_its_trend_and_its_evaluations(axes):
    curves._plot(axes, "loss", curves.curves(HISTORY)["loss"])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["train (smoothed)", "eval"]
    assert [len(line.get_xdata()) for line in axes.get_lines()] == [100, 100, 2]


def test_steps_where_the_loss_was_not_a_number_are_marked(axes):
    history = [{"step": step, "loss": math.nan if step in (4, 6) else 1.0} for step in range(1, 9)]
    curves._plot(axes, "loss", curves.curves(history)["loss"])
    assert "nan or inf, first at step 4" in [text.get_text() for text in axes.get_legend().get_texts()]


def test_spikes_do_not_flatten_the_rest(axes):
    history = [{"step": step, "grad_norm": 500.0 if step == 5 else 1.0} for step in range(1, 12)]
    curves._plot(axes, "grad_norm", curves.curves(history)["grad_norm"])
    assert axes.get_yscale() == "log"


def test_pictures_are_written_whole_and_named_after_their_metric(tmp_path):
    history = [{"step": step, "loss": 1.0, "rewards/chosen": 0.5} for step in (1, 2)]
    written = curves.draw(history, tmp_path / "images")
    assert {path.name for path in written} == {"loss.png", "rewards_chosen.png", "overview.png"}
    assert {path.name for path in (tmp_path / "images").iterdir()} == {path.name for path in written}
    for path in written:
        distance = abs(imread(path)[:, :, :3] - to_rgb(curves.TRAIN)).max(axis=2)
        assert (distance < 0.02).sum() > 300, "no curve in the picture"


def test_nothing_is_drawn_of_nothing(tmp_path):
    assert curves.draw([{"step": 1, "epoch": 0.5}], tmp_path / "images") == []
    assert not (tmp_path / "images").exists()
