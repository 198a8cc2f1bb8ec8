"""The mode harness, on samples whose numbers are known beforehand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigen.data import TOYS, load
from minigen.evaluation.modes import HITS, count_classes, count_modes, reverse_kl, spread
from minigen.random import Generator

GRIDS = ("ring-8", "grid-9", "25gaussians", "8gaussians")
SQUARE = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])


@pytest.mark.parametrize("name", GRIDS)
def test_the_data_themselves_get_what_the_data_get(name):
    """A share of 1 - exp(-k²/2), all modes, and a reverse KL that is (K - 1)/(2n) on average, with 2n KL ~ χ²(K - 1)."""
    toy, n = TOYS[name], 20_000
    for sigmas in (1.0, 2.0, 3.0):
        report = count_modes(toy.sample(n, Generator(0)), toy.modes, toy.sigma, sigmas)
        share = 1 - math.exp(-0.5 * sigmas**2)
        assert report.ideal == share
        assert abs(report.share - share) < 4 * math.sqrt(share * (1 - share) / n) + (5e-3 if name == "8gaussians" else 0)
        assert report.hit == report.modes == len(toy.modes)
        k = len(toy.modes)
        assert report.reverse_kl < (k - 1 + 4 * math.sqrt(2 * (k - 1))) / (2 * n)


def test_one_mode_found():
    samples = np.broadcast_to(SQUARE[2], (100, 2))
    report = count_modes(samples, SQUARE, 0.1)
    assert (report.share, report.hit, report.modes) == (1.0, 1, 4)
    assert abs(report.reverse_kl - math.log(4)) < 1e-12


def test_the_border_of_quality_is_a_circle():
    """3 sigma in every direction, and not in a square."""
    angle = np.linspace(0, 2 * np.pi, 60)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    assert count_modes(SQUARE[3] + 0.299 * circle, SQUARE, 0.1).share == 1
    assert count_modes(SQUARE[3] + 0.301 * circle, SQUARE, 0.1).share == 0


def test_scattered_points_are_near_all_modes_and_on_none():
    """What a count of modes that were met once would call a success: uniform points, 2% of them on a mode."""
    toy = TOYS["25gaussians"]
    samples = Generator(0).uniform((10_000, 2), -5, 5)
    report = count_modes(samples, toy.modes, toy.sigma)
    assert all(count_modes(samples, mode[None], toy.sigma).share > 0 for mode in toy.modes)
    assert report.hit == 0
    assert abs(report.share - 25 * math.pi * 0.15**2 / 100) < 0.006
    assert report.reverse_kl < 0.01


def test_a_hit_needs_20_good_samples():
    def hit(good, bad):
        samples = np.concatenate([np.repeat(SQUARE[:1], good, axis=0), np.repeat(SQUARE[:1] + 0.35, bad, axis=0)])
        return count_modes(samples, SQUARE, 0.1).hit

    assert (HITS, hit(20, 0), hit(19, 100)) == (20, 1, 0)


def test_a_nan_is_not_good():
    assert count_modes(np.full((5, 2), np.nan), SQUARE, 0.1).share == 0


@given(st.lists(st.integers(0, 50), min_size=2, max_size=30).filter(any))
def test_reverse_kl_is_between_0_and_log_k(counts):
    value = reverse_kl(np.array(counts))
    assert -1e-12 < value < math.log(len(counts)) + 1e-12
    half = reverse_kl(np.array(counts + [0] * len(counts)))  # as many modes again, never met
    assert abs(half - value - math.log(2)) < 1e-12


def test_reverse_kl_of_uneven_ones():
    assert abs(reverse_kl(np.array([3, 1])) - (0.75 * math.log(1.5) + 0.25 * math.log(0.5))) < 1e-12


def test_refusals():
    with pytest.raises(ValueError, match=r"not \(3, 5\) and \(4, 2\)"):
        count_modes(np.zeros((3, 5)), SQUARE, 0.1)
    with pytest.raises(ValueError, match=r"not \(0, 2\)"):
        count_modes(np.zeros((0, 2)), SQUARE, 0.1)
    with pytest.raises(ValueError, match="fewer sigmas"):
        count_modes(SQUARE, SQUARE, 0.2)


def test_a_report_never_tells_one_number_alone():
    toy = TOYS["ring-8"]
    reports = [count_modes(toy.sample(500, Generator(seed)), toy.modes, toy.sigma) for seed in range(3)]
    for text in (str(reports[0]), spread(reports)):
        parts = ("share", "(data: 0.989)", "at least 20 hits 8", "of 8", "reverse KL", "one mode: 2.079", "n = 500")
        assert all(part in text for part in parts), text
    shares = [r.share for r in reports]
    assert f"share {np.mean(shares):.3f} ± {np.std(shares, ddof=1):.3f}" in spread(reports)
    assert spread(reports).endswith("3 seeds")
    with pytest.raises(ValueError, match="at least 2"):
        spread(reports[:1])
    with pytest.raises(ValueError, match="equal n"):
        spread([reports[0], count_modes(toy.sample(400, Generator(0)), toy.modes, toy.sigma)])


def by_brightness(images):
    """A classifier that needs no training."""
    return (10 * images.mean(axis=(1, 2, 3))).astype(int)


def test_classes_by_a_classifier():
    images = np.broadcast_to(np.array([0.05, 0.05, 0.15, 0.25])[:, None, None, None], (4, 2, 2, 1))
    labels = np.array([0, 1, 2, 3] * 5)
    report = count_classes(images, by_brightness, labels, batch_size=3)
    assert report.share.tolist() == [0.5, 0.25, 0.25, 0]
    assert report.missing == [3]
    assert abs(report.kl - (0.5 * math.log(2))) < 1e-12
    assert all(part in str(report) for part in ("50.0 25.0 25.0 0.0", "none of class 3", "0.3466 nats", "n = 4"))
    scores = count_classes(images, lambda x: np.eye(4)[by_brightness(x)], labels)
    np.testing.assert_array_equal(scores.share, report.share)
    with pytest.raises(ValueError, match="knows a class 2"):
        count_classes(images, by_brightness, labels % 2)


def test_data_have_the_classes_of_the_data():
    digits = load("digits", "test")
    answers = iter(np.split(digits.y, range(100, len(digits), 100)))
    report = count_classes(digits.x, lambda x: next(answers), digits.y, batch_size=100)
    assert (report.kl, report.missing) == (0, [])
    assert "no class is missing" in str(report)
