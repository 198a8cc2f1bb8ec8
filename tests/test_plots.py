"""Figures: the pixels are where they belong, nothing is cut off, and matplotlib's global state is left alone."""

import io
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.image import imread

from minigen import plots

RNG = np.random.default_rng(0)
LONG = "a title that is a good deal longer than the picture below it is wide, step 3000: samples"
DIGITS = RNG.random((10, 8, 8, 1))
POINTS = RNG.normal(size=(300, 2))
LABELS = RNG.integers(0, 10, 300)
STEPS = np.arange(1, 101)
SEEN = np.arange(30).reshape(5, 6) < 19  # what comes before the pixel at (3, 2), but for one
CURVES = {"training": (STEPS, -30 - 50 / STEPS), "held out": ([50, 100], [-33.0, -32.0])}

FIGURES = {
    "one image": lambda title: plots.image_grid(DIGITS[:1], title),
    "a grid": lambda title: plots.image_grid(DIGITS, title),
    "a wide grid": lambda title: plots.image_grid(DIGITS, title, columns=10),
    "a grid of colours": lambda title: plots.image_grid(RNG.random((5, 32, 32, 3)), title),
    "rows": lambda title: plots.image_rows({"data": DIGITS, "what the model has seen": DIGITS, "rebuilt": DIGITS}, title),
    "one column": lambda title: plots.image_rows({"data": DIGITS[:1], "rebuilt": DIGITS[:1]}, title),
    "codes": lambda title: plots.latent_scatter(POINTS, LABELS, title, ("first", "second")),
    "codes without labels": lambda title: plots.latent_scatter(POINTS, None, title),
    "points": lambda title: plots.points(POINTS, POINTS * [5, 1], title),
    "panels": lambda title: plots.point_panels(dict.fromkeys(("data", "flow\n1.0 nats", "c", "d", "e"), POINTS), title),
    "one panel": lambda title: plots.point_panels({"data": POINTS}, title),
    "tall points": lambda title: plots.points(POINTS, POINTS * [1, 5], title),
    "curves": lambda title: plots.curves(CURVES, title, lines={"best possible": -25.0, "independent": -40.0}),
    "receptive fields": lambda title: plots.receptive_fields({"a": SEEN, "another": SEEN}, (3, 2), 2, title),
    "one value": lambda title: plots.curves({"training": ([1], [-5.0])}, title),
}


def pixels(png: bytes) -> np.ndarray:
    return imread(io.BytesIO(png), format="png")[..., :3]


@pytest.mark.parametrize(("name", "title"), [*((name, LONG) for name in FIGURES), ("a grid", ""), ("rows", ""), ("codes", "")])
def test_nothing_is_cut_off(name, title):
    """What is cut touches the edge of the picture; the edge of each is white."""
    picture = pixels(FIGURES[name](title))
    edge = np.concatenate([picture[:3].reshape(-1, 3), picture[-3:].reshape(-1, 3), picture[:, :3].reshape(-1, 3),
                           picture[:, -3:].reshape(-1, 3)])  # fmt: skip
    assert (edge == 1).all()
    assert (picture < 0.9).any()
    assert max(picture.shape) < 2000


def test_each_image_stands_in_its_place():
    images = np.zeros((5, 2, 2, 1), np.float32)
    images[3, 0, 1] = 1  # the upper right pixel of the first image in the second row, where a row has three
    tiled = plots._tile(images, 3)
    side = (tiled.shape[1] - plots.GAP) // 3
    assert tiled.shape == (2 * side + plots.GAP, 3 * side + plots.GAP, 3)
    dark = np.argwhere(tiled[..., 0] == 0)
    half = (side - plots.GAP) // 2
    top, left = side + plots.GAP, plots.GAP + half
    assert (dark.min(axis=0) == (top, left)).all()
    assert (dark.max(axis=0) == (top + half - 1, left + half - 1)).all()
    assert (tiled[top : top + 2 * half, 2 * side + plots.GAP :] == 1).all()  # the sixth place is empty


def test_grey_images_are_dark_on_white_and_colours_stay():
    assert pixels(plots.image_grid(np.ones((1, 8, 8, 1)))).min() == 0
    red = pixels(plots.image_grid(np.ones((1, 8, 8, 3)) * [1.0, 0.0, 0.0]))
    assert ((red == [1, 0, 0]).all(axis=-1)).mean() > 0.4  # the rest is the edge


def test_values_out_of_range_are_clipped():
    grey = np.full((1, 8, 8, 1), 0.5)
    assert plots.image_grid(grey * [[[[4.0]]]]) == plots.image_grid(np.ones((1, 8, 8, 1)))
    assert plots.image_grid(-grey) == plots.image_grid(grey * 0)


def test_floors_and_baselines_are_drawn_and_in_range():
    with_floor = plots.curves(CURVES, lines={"best possible": 500.0})
    grey = np.array([int(plots.MUTED[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    dashes = (abs(pixels(with_floor) - grey) < 0.02).all(axis=-1)
    assert dashes.any(axis=0).mean() > 0.5  # across most of the picture
    assert not (abs(pixels(plots.curves(CURVES)) - grey) < 0.02).all(axis=-1).any()


def test_the_range_of_curves_is_not_spoilt_by_their_start():
    """The first values of a training are far off; here they are 10,000 times as far as all that follows."""
    y = np.linspace(-30, -20, 100)
    calm = plots.curves({"elbo": (STEPS, y)})
    wild = plots.curves({"elbo": (STEPS, np.where(STEPS < 10, -1e5, y))})
    assert abs(pixels(calm)[:, 300:] - pixels(wild)[:, 300:]).mean() < 0.02


def test_points_are_at_the_scale_of_the_data():
    far = np.concatenate([POINTS, [[1e6, 1e6]]])
    assert plots.points(far, POINTS) == plots.points(POINTS, POINTS)


def test_figures_are_deterministic_and_leave_their_input_alone():
    before = DIGITS.copy(), POINTS.copy(), LABELS.copy()
    for name in ("a grid", "rows", "codes"):
        assert FIGURES[name]("title") == FIGURES[name]("title"), name
    for array, copy in zip((DIGITS, POINTS, LABELS), before, strict=True):
        assert (array == copy).all()


def test_matplotlib_is_imported_late_and_pyplot_never():
    """pyplot is what holds global state: the backend, the current figure."""
    code = (
        "import sys; from minigen import plots; assert 'matplotlib' not in sys.modules;"
        "plots.curves({'a': ([1, 2], [1, 2])}, 'title'); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_a_pixel_sees_and_what_it_is_blind_for():
    """Counted in the legend, and in the colours of the picture."""
    from matplotlib.figure import Figure

    drawn = []
    show = Figure.savefig
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", lambda self, *args, **options: (drawn.append(self), show(self, *args, **options)))
        plots.receptive_fields({"a": SEEN}, (3, 2), 2)
    (ax,) = drawn[0].axes
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["this pixel", "seen, 19", "blind spot, 1"]
    picture = ax.images[0].get_array()
    np.testing.assert_allclose(picture[3, 1], plots._rgb(plots.SERIES[1]), atol=1e-2)  # earlier, near, and not seen
    np.testing.assert_allclose(picture[3, 2], plots._rgb(plots.INK), atol=1e-2)
    assert (picture[4] == picture[3, 5]).all()  # later
