"""`load` and DATASETS: what an entry promises is what the loader gives."""

import dataclasses
import pickle
import subprocess
import sys

import numpy as np
import pytest

from minigen.data import DATASETS, TOYS, DataError, Dataset, load
from minigen.data.registry import TOY_SIZES
from minigen.random import Generator

OFFLINE = ["digits", "shapes", *TOYS]  # those that need no file from outside


@pytest.mark.parametrize("name", OFFLINE)
@pytest.mark.parametrize("split", ["train", "test"])
def test_loads_as_promised(name, split):
    entry, data = DATASETS[name], load(name, split)
    assert entry.where(None) is not None
    assert (data.name, data.split, data.levels) == (name, split, entry.levels)
    assert data.x.dtype == np.float32
    assert data.x.flags.c_contiguous
    assert data.x.shape == (entry.sizes[split], *entry.shape)
    assert len(data) == entry.sizes[split]
    assert np.isfinite(data.x).all()
    if data.levels is not None:
        assert data.x.min() == 0
        assert data.x.max() == 1
        steps = data.x * (data.levels - 1)
        np.testing.assert_array_equal(steps, np.rint(steps))
        assert data.y.dtype == np.int64
        assert data.y.shape == (len(data),)
    else:
        assert data.entropy == TOYS[name].entropy
        assert data.y is None


@pytest.mark.parametrize("name", OFFLINE)
def test_loading_is_repeatable_and_splits_differ(name):
    assert load(name).sha256 == load(name).sha256
    train, test = ({row.tobytes() for row in load(name, split).x} for split in ("train", "test"))
    assert not train & test


def test_splits_of_a_toy_are_different_draws(monkeypatch):
    """Also at equal size, where equal seeds would give equal points."""
    monkeypatch.setitem(TOY_SIZES, "train", TOY_SIZES["test"])
    x = {name: {split: load(name, split).x for split in ("train", "test")} for name in ("moons", "moons-fine")}
    assert np.abs(x["moons"]["train"] - x["moons"]["test"]).mean() > 0.5
    assert np.abs(x["moons"]["test"] - x["moons-fine"]["test"]).mean() > 0.5


def test_shapes_keep_their_factors():
    data = load("shapes", "test")
    assert data.factor_names == ("shape", "scale", "rotation", "x", "y")
    assert data.factors.shape == (1024, 5)
    np.testing.assert_array_equal(data.y, data.factors[:, 0])
    from minigen.data.shapes import render

    images, _ = render()
    np.testing.assert_array_equal(data.x, images[np.ravel_multi_index(tuple(data.factors.T), (3, 4, 12, 8, 8))])


def test_every_entry_is_complete():
    assert next(iter(DATASETS)) == "digits"  # the default
    assert {"mnist", "fashion-mnist", "kmnist", "cifar10"} <= set(DATASETS)
    for name, entry in DATASETS.items():
        assert entry.name == name
        assert set(entry.sizes) == {"train", "test"}
        for field in ("description", "source", "licence"):
            assert getattr(entry, field).strip() == getattr(entry, field) != ""


@pytest.mark.parametrize(
    ("name", "split", "message"),
    [
        ("mnits", "train", "data set 'mnits': unknown. Did you mean 'mnist'? Known are digits, mnist,"),
        ("imagenet", "train", "data set 'imagenet': unknown. Known are digits,"),
        ("", "train", "data set '': unknown. Known are digits,"),
        ("digits", "validation", "data set 'digits': has no split 'validation'. Choose one of train, test."),
    ],
)
def test_unknown_names(name, split, message):
    with pytest.raises(DataError) as error:
        load(name, split)
    assert str(error.value).startswith(message)
    assert isinstance(error.value, ValueError)


def test_data_error_survives_a_process_boundary():
    error = pickle.loads(pickle.dumps(DataError("f.gz", "is cut", "Fetch it again")))
    assert (error.file, error.reason, error.remedy) == ("f.gz", "is cut", "Fetch it again")
    assert str(error) == "f.gz: is cut. Fetch it again."


def test_digest_tells_data_apart():
    x = Generator(0).normal((6, 2))
    data = Dataset("n", "train", x, None, None, None, "s", "d")
    others = [
        dataclasses.replace(data, x=x + 1),
        dataclasses.replace(data, x=x.reshape(3, 4)),
        dataclasses.replace(data, y=np.zeros(6, np.int64)),
        dataclasses.replace(data, y=np.ones(6, np.int64)),
    ]
    assert len({d.sha256 for d in (data, *others)}) == 5
    assert dataclasses.replace(data, name="other", x=x.copy()).sha256 == data.sha256
    with pytest.raises(dataclasses.FrozenInstanceError):
        data.name = "other"


def test_importing_is_light():
    """Nothing but NumPy is imported before it is needed."""
    heavy = "{'sklearn', 'scipy', 'pooch', 'requests', 'numba', 'minigen.random', 'minigen.autograd'}"
    code = f"import sys, minigen.data.registry; print(sorted({heavy} & set(sys.modules)))"
    before = f"import sys, minigen; print(sorted({heavy} & set(sys.modules)))"
    with_data, without = (
        subprocess.run([sys.executable, "-c", c], capture_output=True, text=True, check=True).stdout
        for c in (code, before)
    )
    assert with_data == without  # whatever `import minigen` itself takes
