"""MADE and PixelCNN on real MNIST: the plain commands reach their likelihoods within their CPU time. Slow, and needs the files.

docs/pixelcnn.md has the numbers of recorded runs.
"""

import os

import pytest

from minigen.training.config import RunConfig
from minigen.training.figures import estimate
from minigen.training.run import train


@pytest.mark.slow
@pytest.mark.parametrize(("model", "cpu_seconds", "most"), [("made", 80, 93.0), ("pixelcnn", 200, 96.0)])
def test_the_likelihood_of_all_test_images(model, cpu_seconds, most, tmp_path):
    """minigen train MODEL --data mnist --minutes ... --threads 1. Published: MADE 84.87, PixelCNN 81.45 nats."""
    if "MINIGEN_DATA" not in os.environ:
        pytest.skip("needs MNIST: set MINIGEN_DATA to the folder that has mnist/ with its four IDX files")
    config = RunConfig(model, data="mnist", minutes=cpu_seconds / 60, threads=1, evaluate_every=100_000)
    run = train(config, tmp_path / "run", quiet=True)
    nll = estimate(run, run.test.x, "exact", run.model.estimators(1)["exact"])
    print(f"\n{run.step} steps, {run.cpu_seconds:.0f} CPU-seconds\n{nll}")
    assert (nll.n, nll.data) == (10_000, "mnist test, dynamic binarisation")
    assert run.cpu_seconds < cpu_seconds + 1
    assert 78 < nll.value <= most  # below the best published models it would be a bug
