"""The workloads are what their definition says, and equal work: equal losses from equal parameters, for every library."""

import importlib.util

import numpy as np
import pytest

from benchmarks import cases, kernels
from benchmarks.steps import ours, race
from benchmarks.steps.given import Given
from benchmarks.steps.workload import Draw
from benchmarks.steps.workloads import WORKLOADS

CHEAP = ("vae_mlp", "realnvp", "convnet", "glow")


@pytest.mark.parametrize("name", WORKLOADS)
def test_parameters_are_as_many_as_stated(name):
    draw = Draw(0)
    WORKLOADS[name].weights(draw)
    assert sum(a.size for a in draw.made.values()) == WORKLOADS[name].parameters
    assert all(a.dtype == np.float32 for a in draw.made.values())


@pytest.mark.parametrize("name", CHEAP)
def test_three_steps_lower_the_loss(name):
    workload, draw = WORKLOADS[name], Draw(0)
    workload.weights(draw)
    lib = ours.Library(workload, draw.made, threads=1, variant="eager")
    data = {key: lib.image(a) for key, a in workload.data(np.random.default_rng(0)).items()}
    losses = [lib.step(data, Given(lib, 1)) for _ in range(3)]
    assert losses[0] > losses[1] > losses[2]


@pytest.mark.slow
@pytest.mark.peer
@pytest.mark.parametrize("name", WORKLOADS)
def test_equal_work_shows_as_equal_losses(name):
    peers = [lane for peer in ("torch", "jax") if _installed(peer) for lane in race.PEERS[peer] if not lane.kept]
    if not peers:
        pytest.skip("neither torch nor jax is installed")
    found = race.losses(name, [race.OURS, *peers], steps=3)
    mine = found.pop("minigen")
    assert np.isfinite(mine).all()
    assert found, "no peer could run it"
    for lane, theirs in found.items():
        np.testing.assert_allclose(theirs, mine, rtol=1e-4, atol=1e-7, err_msg=lane)


def _installed(name):
    return importlib.util.find_spec(name) is not None


@pytest.mark.parametrize("name", cases.every_kernel())
def test_every_kernel_is_a_case_of_about_the_wanted_size(name):
    kernel = cases.every_kernel()[name]
    args, kwargs = cases.grown(kernel, 1 << 15)
    assert 0.1 < kernel.card.bytes(*args, **kwargs) / (4 << 15) < 8
    kernel.implementation("numpy")(*args, **kwargs)


def test_peers_of_kernels_are_kernels():
    assert set(kernels.TORCH) <= set(cases.every_kernel())
    assert set(cases.SPECIAL) <= set(cases.every_kernel())
