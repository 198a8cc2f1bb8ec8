"""Properties of every op, generated from the cards with hypothesis. Start at `test_gradients`.

The checks are in checks.py and minigen.autograd.gradcheck. An op of minigen.ops without a card fails
`test_every_op_has_a_card`; a card whose examples are all alike fails `test_cards_draw_the_edge_cases`; a gradient that is
only ever compared where it is zero fails `test_gradients`. HYPOTHESIS_PROFILE=thorough runs 10,000 examples of each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import checks
import numpy as np
import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from minigen import ops, set_backend
from minigen.autograd.cards import CARDS, Draw, OpCard
from minigen.autograd.gradcheck import check_card
from minigen.autograd.tape import OPS

NAMES = sorted(CARDS)
EXAMPLES = settings.default.max_examples
BACKENDS = ("numpy", "numba")


def for_all(card: OpCard, check: Callable, fraction: float) -> None:
    """Run check(args, kwargs, integer) on examples of the card; `fraction` of the profile's number of them."""

    @settings(max_examples=max(3, int(EXAMPLES * fraction)), database=None)
    @given(st.data())
    def run(data: st.DataObject) -> None:
        def integer(low: int, high: int) -> int:
            return data.draw(st.integers(low, high)) if low < high else low

        args, kwargs = card.sample(Draw(integer))
        note(f"{card.name}({', '.join(map(shown, args))}, **{kwargs})")
        check(args, kwargs, integer)

    run()


def shown(value: object) -> str:
    return f"{value.dtype}{value.shape}" if isinstance(value, np.ndarray) and value.size > 6 else repr(value)


@pytest.mark.parametrize("name", NAMES)
def test_gradients(name: str) -> None:
    """Orders 1 and 2 and the symmetry of the Hessian, by the complex step or differences, on both backends."""
    card = CARDS[name]
    live = Counter()

    def check(args: tuple, kwargs: dict, integer: Callable) -> None:
        with set_backend(BACKENDS[integer(0, 1)]):
            report = check_card(card, args, kwargs, seed=integer(0, 1000))
        live.update(i for i, alive in zip(card.wrt, report.live, strict=True) if alive)

    if card.wrt:
        for_all(card, check, 0.6)
        assert all(live[i] >= 3 for i in card.wrt), f"the gradient of some argument was hardly ever not zero: {dict(live)}"


@pytest.mark.parametrize("name", NAMES)
def test_values(name: str) -> None:
    """The reference's value, the dtype law, Numba as NumPy: in float64 and float32."""
    card = CARDS[name]

    def check(args: tuple, kwargs: dict, integer: Callable) -> None:
        with set_backend(BACKENDS[integer(0, 1)]):
            checks.check_value(card, args, kwargs)
            checks.check_dtype(card, args, kwargs)
        checks.check_backends(card, args, kwargs, (np.float32, np.float64)[integer(0, 1)])

    for_all(card, check, 0.6)


@pytest.mark.parametrize("name", NAMES)
def test_structure(name: str) -> None:
    """Memory layouts, views, linearity in the cotangent, adjoints of linear ops, NaN."""
    card = CARDS[name]

    def check(args: tuple, kwargs: dict, integer: Callable) -> None:
        with set_backend(BACKENDS[integer(0, 1)]):
            checks.check_layouts(card, args, kwargs, list(checks.LAYOUTS)[integer(0, len(checks.LAYOUTS) - 1)])
            if card.wrt:
                checks.check_views(card, args, kwargs)
                checks.check_linear_in_cotangent(card, args, kwargs)
                checks.check_constant_cotangent(card, args, kwargs)
                checks.check_nan(card, args, kwargs, card.wrt[integer(0, len(card.wrt) - 1)], integer(0, 1000))
            for position in card.linear:
                checks.check_linear_input(card, args, kwargs, position)

    for_all(card, check, 0.5)


# Arguments of which the op, or its gradient, is a product with another argument, with a cotangent, or with itself: at the
# largest numbers that product overflows, and then meets another one of the opposite sign, or a 0.
PRODUCTS = {
    "batch_norm": (0, 1), "group_norm": (1,), "group_norm_silu": (1,), "instance_norm": (1,), "layer_norm": (1,),
    "kl_normal": (3,), "linear": (0, 1), "pow": (1,), "scaled_dot_product_attention": (0, 1, 2),
}  # fmt: skip
SOLVERS = ("inv", "slogdet", "solve_triangular")  # a matrix with an extreme number in it is ill-conditioned


@pytest.mark.parametrize("name", [name for name in NAMES if CARDS[name].wrt and name not in SOLVERS])
def test_extreme_values(name: str) -> None:
    """±Inf, ±max, ±1e30, ±104, ±89, ±88, ±20, ±1e-8, ±0 in float32, on both backends, to order 2: no overflow on the way."""
    card = CARDS[name]

    def check(args: tuple, kwargs: dict, integer: Callable) -> None:
        position = card.wrt[integer(0, len(card.wrt) - 1)]
        values = [v for v in checks.EXTREME if position not in PRODUCTS.get(name, ()) or abs(v) < 88 or np.isinf(v)]
        with set_backend(BACKENDS[integer(0, 1)]):
            checks.check_extreme(card, args, kwargs, position, integer(0, 1000), values[integer(0, len(values) - 1)])

    for_all(card, check, 0.4)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", [name for name in NAMES if CARDS[name].kinks])
def test_kinks(name: str, backend: str, dtype: type) -> None:
    with set_backend(backend):
        checks.check_kinks(CARDS[name], dtype)


# ---- the cards themselves


def test_every_op_has_a_card() -> None:
    public = {name for name in ops.__all__ if callable(getattr(ops, name))}
    assert not public - set(CARDS), f"without a card in minigen/autograd/cards: {sorted(public - set(CARDS))}"
    unknown = set(CARDS) - public - set(OPS)  # ops that only rules use may have cards too
    assert not unknown, f"cards of no op: {sorted(unknown)}"


@pytest.mark.parametrize("name", NAMES)
def test_cards_draw_the_edge_cases(name: str) -> None:
    """Among 300 examples: axes of size 0 and 1; elementwise also no axes, and broadcasting; and enough that are full.

    All differentiable inputs are arrays of float64, as the card promises.
    """
    card = CARDS[name]
    rng = np.random.default_rng(0)
    draw = Draw(lambda low, high: int(rng.integers(low, high, endpoint=True)))
    seen = Counter()
    for _ in range(300):
        args, _kwargs = card.sample(draw)
        arrays = [args[i] for i in card.wrt] or [a for a in args if isinstance(a, np.ndarray)]
        for a in arrays:
            assert isinstance(a, np.ndarray), f"argument of type {type(a).__name__}"
            assert not card.wrt or a.dtype == np.float64
        shapes = [a.shape for a in arrays]
        seen["an axis of size 0"] += any(0 in s for s in shapes)
        seen["an axis of size 1"] += any(1 in s for s in shapes)
        seen["no axes"] += () in shapes
        seen["broadcasting"] += len(set(shapes)) > 1
        seen["more than one number everywhere"] += all(a.size > 1 for a in arrays)
    required = {"an axis of size 0": 3, "an axis of size 1": 3, "more than one number everywhere": 60}
    if getattr(card.function, "__module__", "").endswith((".elementwise", ".activation")):
        required |= {"no axes": 3} | ({"broadcasting": 60} if len(card.wrt) == 2 else {})
    for feature, least in required.items():
        assert seen[feature] >= least, f"{seen[feature]} of 300 examples have {feature}, there should be {least}"
