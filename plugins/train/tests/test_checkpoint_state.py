"""Training state comes back exactly, and only from files that hold it."""

import math
import random
from collections import Counter, OrderedDict
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from martlet.errors import CheckpointError
from martlet_train.checkpoint import load_optimizer, load_state, rng_state, save_state, set_rng_state


def fingerprint(value: Any) -> Any:
    """Return something that is equal for two values only if type, order and every bit are."""
    kind = type(value).__name__
    if isinstance(value, dict):
        return kind, [(fingerprint(key), fingerprint(item)) for key, item in value.items()]
    if isinstance(value, (list, tuple)):
        return kind, [fingerprint(item) for item in value]
    if isinstance(value, torch.Tensor):
        data = value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        return "Tensor", str(value.dtype), tuple(value.shape), data
    if isinstance(value, (np.ndarray, np.generic)):
        return kind, value.dtype.str, value.shape, value.tobytes()
    return kind, value.hex() if isinstance(value, float) else value


def through_file(path, state: Any) -> Any:
    save_state(path / "state.safetensors", state)
    return load_state(path / "state.safetensors")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("state")


DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64,
    torch.bool, torch.complex64, torch.complex128,
]  # fmt: skip
if hasattr(torch, "float8_e8m0fnu"):
    DTYPES.append(torch.float8_e8m0fnu)


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    size = math.prod(shape) * dtype.itemsize
    data = draw(st.binary(min_size=size, max_size=size))
    if dtype == torch.bool:
        data = bytes(byte & 1 for byte in data)
    raw = torch.tensor(list(data), dtype=torch.uint8)
    return raw.view(dtype).reshape(shape)


@st.composite
def arrays(draw: st.DrawFn) -> Any:
    names = ["f8", "f4", "f2", "i8", ">i4", "u1", "u8", "?", "c16", "M8[ns]", "U3", "S2"]
    dtype = np.dtype(draw(st.sampled_from(names)))
    shape = draw(st.lists(st.integers(0, 3), max_size=2))
    numbers = draw(st.lists(st.integers(0, 1), min_size=math.prod(shape), max_size=math.prod(shape)))
    array = np.array(numbers, dtype="i8").astype(dtype).reshape(shape)
    return array[()] if draw(st.booleans()) and shape == [] else array


plain = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=2**63, max_value=2**130)
    | st.floats()
    | st.sampled_from([-0.0, 5e-324, math.inf, -math.inf, math.nan])
    | st.text(alphabet=st.characters(codec=None, categories=None), max_size=8)
)
keys = st.text(max_size=5) | st.integers() | st.sampled_from(["__metadata__", "martlet.state", "a/0", ""])
states = st.recursive(
    plain | tensors() | arrays(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(keys, inner, max_size=4)
        | st.dictionaries(keys, inner, max_size=3).map(OrderedDict)
    ),
    max_leaves=12,
)


@given(state=states)
@settings(max_examples=150)
def test_any_nested_state_comes_back_bit_for_bit(folder, state):
    assert fingerprint(through_file(folder, state)) == fingerprint(state)


def test_views_and_parameters_come_back_by_value(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    state = {
        "turned": base.t(),
        "part": base[:, 1:3],
        "parameter": torch.nn.Parameter(base),
        "conj": (base * 1j).conj(),
    }
    loaded = through_file(tmp_path, state)
    for name, tensor in state.items():
        assert torch.equal(loaded[name], tensor.detach())
    assert not loaded["parameter"].requires_grad


def test_one_tensor_at_two_places_is_one_tensor_again(tmp_path):
    tensor, array = torch.zeros(1000), np.zeros(1000)
    loaded = through_file(tmp_path, {"a": tensor, "b": [tensor], "c": array, "d": array})
    assert loaded["a"] is loaded["b"][0]
    assert loaded["c"] is loaded["d"]
    assert (tmp_path / "state.safetensors").stat().st_size < 13_500


def test_what_was_loaded_can_be_changed_and_survives_the_file(tmp_path):
    state = {"tensor": torch.ones(4), "array": np.ones(4), "wide": torch.ones(2, dtype=torch.complex128)}
    loaded = through_file(tmp_path, state)
    (tmp_path / "state.safetensors").write_bytes(b"")
    for value in loaded.values():
        value += 1
        assert value[0] == 2


def test_long_lists_do_not_exceed_what_readers_of_the_format_allow(tmp_path):
    order = list(range(10**15, 10**15 + 1_100_000))
    assert through_file(tmp_path, {"order": order}) == {"order": order}
    with open(tmp_path / "state.safetensors", "rb") as file:
        assert int.from_bytes(file.read(8), "little") < 2**20


def test_any_reader_of_safetensors_sees_the_tensors_by_name(tmp_path):
    path = tmp_path / "optimizer.safetensors"
    state = {"state": {0: {"exp_avg": torch.ones(2, 3, dtype=torch.bfloat16), "step": torch.tensor(7.0)}}}
    save_state(path, state)
    seen = safetensors.torch.load_file(path)
    assert seen["state/0/exp_avg"].dtype == torch.bfloat16
    assert seen["state/0/step"].item() == 7
    with safetensors.safe_open(path, framework="np") as file:
        assert "martlet.state" in file.metadata()


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ({"groups": [{"fn": print}]}, "/groups/0/fn"),
        ({"seen": {1, 2}}, "builtins.set at /seen"),
        ({"mask": torch.ones(2, 2).to_sparse()}, "/mask"),
        ({"weight": torch.empty(2, device="meta")}, "meta"),
        ({"names": np.array(["a", None])}, "numpy array of type object at /names"),
        ({"pairs": np.zeros(2, dtype=[("a", "i4")])}, "/pairs"),
        (torch.finfo(torch.float32), "its top"),
    ],
)
def test_what_cannot_be_restored_exactly_is_refused_by_its_place(tmp_path, value, named):
    with pytest.raises(CheckpointError, match="cannot be saved exactly") as caught:
        save_state(tmp_path / "state.safetensors", value)
    assert named in str(caught.value)


def test_files_that_are_not_training_state_are_refused(tmp_path):
    path = tmp_path / "state.safetensors"
    save_state(path, {"a": torch.arange(100), "b": "text"})
    whole = path.read_bytes()
    damaged = {
        "absent": None,
        "empty": b"",
        "truncated": whole[:-1],
        "half a header": whole[:40],
        "another entry": whole.replace(b'\\"tensor\\"', b'\\"object\\"'),
        "another name": whole.replace(b'{\\"tensor\\":\\"a\\"}', b'{\\"tensor\\":\\"x\\"}'),
        "weights": safetensors.torch.save({"a": torch.ones(2)}),
        "pickle": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix.",
    }
    for what, data in damaged.items():
        path.unlink(missing_ok=True)
        if data is not None:
            assert data != whole, what
            path.write_bytes(data)
        with pytest.raises(CheckpointError, match="Choose another checkpoint"):
            load_state(path)


# Real optimizers and schedulers


OPTIMIZERS = {
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-2, betas=(0.9, 0.95), amsgrad=True),
    "sgd": lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=1e-2),
    "lbfgs": lambda p: torch.optim.LBFGS(p, lr=1e-2, max_iter=3),
    "adafactor": lambda p: transformers.optimization.Adafactor(p, relative_step=False, lr=1e-2),
}
SCHEDULERS = {
    "cosine": lambda o: transformers.get_cosine_schedule_with_warmup(o, 2, 10),
    "multistep": lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [2, 4, 4], gamma=0.5),
    "onecycle": lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 1e-2, total_steps=12, cycle_momentum=False),
    "sequential": lambda o: torch.optim.lr_scheduler.SequentialLR(
        o,
        [torch.optim.lr_scheduler.ConstantLR(o, 0.5, 2), torch.optim.lr_scheduler.ExponentialLR(o, 0.9)],
        milestones=[3],
    ),
}


def build(optimizer: str, scheduler: str) -> tuple[torch.nn.Module, Any, Any]:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Dropout(0.3), torch.nn.Linear(5, 2)).bfloat16()
    optim = OPTIMIZERS[optimizer](model.parameters())
    return model, optim, SCHEDULERS[scheduler](optim)


def train(model: torch.nn.Module, optim: Any, schedule: Any, steps: int) -> list[float]:
    rates = []
    for _ in range(steps):

        @torch.enable_grad()
        def closure() -> torch.Tensor:
            optim.zero_grad()
            noise = torch.randn(4, 6) * random.random() + float(np.random.rand())
            loss = model(noise.bfloat16()).float().pow(2).mean()
            loss.backward()
            return loss

        optim.step(closure)
        schedule.step()
        rates.append(schedule.get_last_lr()[0])
    return rates


@pytest.mark.parametrize(
    ("optimizer", "scheduler"),
    [("adamw", "cosine"), ("sgd", "multistep"), ("adagrad", "sequential"), ("lbfgs", "cosine"), ("adafactor", "cosine"),
     ("adamw", "onecycle")],
)  # fmt: skip
def test_training_that_goes_on_from_saved_state_equals_training_that_never_stopped(tmp_path, optimizer, scheduler):
    model, optim, schedule = build(optimizer, scheduler)
    train(model, optim, schedule, 4)
    save_state(
        tmp_path / "state.safetensors",
        {"optimizer": optim.state_dict(), "scheduler": schedule.state_dict(), "rng": rng_state()},
    )
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    rates = train(model, optim, schedule, 4)

    other, other_optim, other_schedule = build(optimizer, scheduler)
    random.seed(99)
    np.random.seed(99)
    state = load_state(tmp_path / "state.safetensors")
    other.load_state_dict(weights)
    load_optimizer(other_optim, state["optimizer"])
    other_schedule.load_state_dict(state["scheduler"])
    set_rng_state(state["rng"])
    assert train(other, other_optim, other_schedule, 4) == rates
    assert fingerprint(dict(other.state_dict())) == fingerprint(dict(model.state_dict()))
    assert fingerprint(other_optim.state_dict()) == fingerprint(optim.state_dict())
    assert fingerprint(other_schedule.state_dict()) == fingerprint(schedule.state_dict())


def test_optimizer_state_of_other_parameters_is_refused():
    _, optim, _ = build("adamw", "cosine")
    with pytest.raises(CheckpointError, match="does not fit what is trained now"):
        load_optimizer(torch.optim.AdamW([torch.nn.Parameter(torch.zeros(2))]), optim.state_dict())


def test_the_state_of_another_optimizer_is_refused():
    model, optim, _ = build("adamw", "cosine")
    with pytest.raises(CheckpointError, match=r"it has no dampening, momentum.*--resume_only_model true"):
        load_optimizer(torch.optim.SGD(model.parameters(), lr=0.1), optim.state_dict())


def test_random_numbers_continue_where_they_were(tmp_path):
    def draw() -> tuple[Any, ...]:
        return (
            random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(),
            torch.rand(5).tolist(), torch.randn(17).tolist(), torch.randperm(9).tolist(),
        )  # fmt: skip

    draw()
    random.gauss(0, 1)
    np.random.randn()
    state = through_file(tmp_path, rng_state())
    expected = draw()
    draw()
    set_rng_state(state)
    assert draw() == expected


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_random_numbers_of_the_device_continue_where_they_were(tmp_path):
    torch.rand(3, device="cuda")
    state = through_file(tmp_path, rng_state())
    expected = torch.rand(100, device="cuda")
    set_rng_state(state)
    assert torch.equal(torch.rand(100, device="cuda"), expected)


def test_the_mappings_that_schedulers_keep_stay_what_they_are(tmp_path):
    loaded = through_file(tmp_path, {"milestones": Counter({30: 2}), "state": OrderedDict([("b", 1), ("a", 2)])})
    assert loaded["milestones"] == Counter({30: 2})
    assert type(loaded["milestones"]) is Counter
    assert list(loaded["state"]) == ["b", "a"]
