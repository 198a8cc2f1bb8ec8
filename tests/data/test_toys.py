"""The toys' samples, densities and entropies agree with each other and with the literature's definitions."""

import warnings

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import i0e
from scipy.stats import chi2

from minigen.data.toys import TOYS, integrate, noisy_curves
from minigen.random import Generator

STEPS = {"pinwheel": 0.05, "checkerboard": 0.5}  # of the integration; elsewhere a fraction of the noise


def step_of(name: str) -> float:
    return STEPS.get(name) or TOYS[name].sigma / 2.5


@pytest.mark.parametrize("name", TOYS)
def test_density_integrates_to_one_and_gives_the_entropy(name):
    mass, entropy = integrate(TOYS[name], step_of(name))
    assert mass == pytest.approx(1, abs=1e-6)
    assert entropy == pytest.approx(TOYS[name].entropy, abs=1e-6)  # the table has six decimals


@pytest.mark.parametrize(
    ("name", "entropy"),
    [
        ("moons", 1.0076),
        ("moons-fine", 0.2892),
        ("checkerboard", np.log(32)),
        ("8gaussians", 2.8316),  # 0.0063 less than ln 8 + ln(2 pi e sigma^2), since neighbours overlap
        ("25gaussians", np.log(25) + np.log(2 * np.pi * np.e * 0.05**2)),
        ("ring-8", np.log(8) + np.log(2 * np.pi * np.e * 0.02**2)),
        ("grid-9", np.log(9) + np.log(2 * np.pi * np.e * 0.05**2)),
    ],
)
def test_known_entropies(name, entropy):
    assert TOYS[name].entropy == pytest.approx(entropy, abs=5e-5)


@pytest.mark.parametrize("name", TOYS)
def test_samples_have_the_density(name):
    """Mean log density = -entropy within 4 standard errors, and counts in 12 x 12 cells as the density says (chi^2)."""
    toy = TOYS[name]
    n = 20_000
    x = toy.sample(n, Generator(0))
    assert x.dtype == np.float32
    assert x.shape == (n, 2)
    log_p = toy.log_density(x)
    assert abs(log_p.mean() + toy.entropy) < 4 * log_p.std() / n**0.5 + 1e-6

    (x_low, x_high), (y_low, y_high) = toy.box
    fine = 12 * int(np.ceil((x_high - x_low) / 12 / min(step_of(name), 0.1)))  # midpoints per axis
    width, height = (x_high - x_low) / fine, (y_high - y_low) / fine
    grid = np.stack(
        np.meshgrid(
            x_low + width * (np.arange(fine) + 0.5), y_low + height * (np.arange(fine) + 0.5), indexing="ij"
        ),
        axis=-1,
    )
    p = np.exp(toy.log_density(grid.reshape(-1, 2))) * width * height
    expected = n * p.reshape(12, fine // 12, 12, fine // 12).sum(axis=(1, 3))  # (12, 12)
    counts, _, _ = np.histogram2d(*x.T, bins=12, range=toy.box)
    big = expected > 10
    statistic = ((counts - expected)[big] ** 2 / expected[big]).sum()
    assert big.sum() >= 8
    assert chi2.sf(statistic, big.sum() - 1) > 1e-5
    assert counts[~big].sum() == pytest.approx(expected[~big].sum(), abs=5 * expected[~big].sum() ** 0.5 + 1)


def test_circles_against_the_closed_form():
    """A circle of radius R plus Gaussian noise: p = exp(-(r^2 + R^2) / 2s^2) I_0(r R / s^2) / (2 pi s^2) (Rice)."""
    r, s = np.linspace(0, 1.5, 40), 0.08
    direction = np.array([np.cos(0.7), np.sin(0.7)])
    rice = [i0e(r * radius / s**2) * np.exp(-((r - radius) ** 2) / (2 * s**2)) for radius in (0.5, 1.0)]
    expected = np.log(sum(rice) / 2 / (2 * np.pi * s**2))
    np.testing.assert_allclose(TOYS["circles"].log_density(r[:, None] * direction), expected, rtol=0, atol=1e-9)


def test_moons_against_adaptive_quadrature():
    """The curves of sklearn.datasets.make_moons: (cos t, sin t) and (1 - cos t, 1/2 - sin t), t uniform in [0, pi]."""

    def expected(x: float, y: float, s: float) -> float:
        def integrand(t: float) -> float:
            upper = (x - np.cos(t)) ** 2 + (y - np.sin(t)) ** 2
            lower = (x - 1 + np.cos(t)) ** 2 + (y - 0.5 + np.sin(t)) ** 2
            return (np.exp(-upper / (2 * s**2)) + np.exp(-lower / (2 * s**2))) / (4 * np.pi**2 * s**2)

        return np.log(quad(integrand, 0, np.pi, epsabs=0, epsrel=1e-10, limit=200)[0])

    points = np.array([[0.0, 1.0], [1.0, 0.0], [-1.05, -0.1], [0.5, 0.2], [2.0, 0.6]])
    for name, sigma in (("moons", 0.1), ("moons-fine", 0.05)):
        values = [expected(x, y, sigma) for x, y in points]
        np.testing.assert_allclose(TOYS[name].log_density(points), values, rtol=0, atol=1e-7)


def test_spirals_against_more_nodes():
    """p(x) as an average over (cos, sin) written out anew, on a far finer midpoint rule in the angle."""
    t = 3 * np.pi * (np.arange(40_000) + 0.5) / 40_000
    weight = t / t.sum() / 2
    arm = np.stack([-np.cos(t) * t, np.sin(t) * t], axis=1) / 3
    x = TOYS["spirals"].sample(50, Generator(1)).astype(np.float64)
    p = sum(
        (weight * np.exp(-((x[:, None] - a) ** 2).sum(axis=2) / (2 * 0.1**2))).sum(axis=1) for a in (arm, -arm)
    ) / (2 * np.pi * 0.1**2)
    np.testing.assert_allclose(TOYS["spirals"].log_density(x), np.log(p), rtol=0, atol=1e-6)


def test_enough_nodes():
    """Doubling the quadrature nodes changes no log density where the data are."""
    line = lambda s: np.stack([3 * s, 0 * s], axis=-1)
    x = np.array([[0.0, 0.0], [1.5, 0.1], [3.1, -0.2]])
    (_, few), (_, many) = noisy_curves((line,), 0.1, nodes=60), noisy_curves((line,), 0.1, nodes=120)
    np.testing.assert_allclose(few(x), many(x), rtol=0, atol=1e-9)


def test_modes_are_where_the_samples_are():
    for name in ("8gaussians", "25gaussians", "ring-8", "grid-9"):
        toy = TOYS[name]
        x = toy.sample(4_000, Generator(2))
        distance = np.sqrt(((x[:, None] - toy.modes) ** 2).sum(axis=2))  # (n, K)
        counts = np.bincount(distance.argmin(axis=1), minlength=len(toy.modes))
        expected = 4_000 / len(toy.modes)
        assert np.abs(counts - expected).max() < 5 * expected**0.5
        assert distance.min(axis=1).mean() == pytest.approx(toy.sigma * (np.pi / 2) ** 0.5, rel=0.05)  # Rayleigh


def test_checkerboard_samples_stay_inside_their_squares():
    """Also where float32 rounds corner + 2 u up to the next square."""

    class Edge:
        integers = staticmethod(Generator(3).integers)
        uniform = staticmethod(lambda shape: np.full(shape, 1 - 2.0**-24, np.float32))

    toy = TOYS["checkerboard"]
    np.testing.assert_allclose(toy.log_density(toy.sample(1_000, Edge())), -np.log(32))


@pytest.mark.parametrize("name", TOYS)
def test_density_far_away_and_at_nan(name):
    toy = TOYS[name]
    x = np.array([[np.nan, 0.0], [np.inf, 0.0], [0.0, -np.inf], [1e4, -1e4]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        log_p = toy.log_density(x)
    assert np.isnan(log_p[0])
    assert (log_p[1:3] == -np.inf).all()
    assert log_p[3] < -1e4
    assert toy.log_density(np.zeros((0, 2), np.float32)).shape == (0,)
    assert toy.sample(0, Generator(0)).shape == (0, 2)


def test_density_refuses_other_shapes():
    for shape in ((2,), (3, 3), (2, 2, 2)):
        with pytest.raises(ValueError, match=r"moons.log_density: x has shape .*, expected \(N, 2\)"):
            TOYS["moons"].log_density(np.zeros(shape))
