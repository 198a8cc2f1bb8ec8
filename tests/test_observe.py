"""Looking inside: the anomaly mode names the first NaN in every op; the printed tape; the drawings."""

from __future__ import annotations

import importlib
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from engine_helpers import temporary_ops  # noqa: F401 - a fixture

from minigen import Tensor, grad, nn, ops, set_backend
from minigen.autograd import cards, observe, tape
from minigen.autograd.cards import CARDS, Draw
from minigen.autograd.observe import AnomalyError, anomaly_mode, draw_graph, draw_svg, printed_tape, record
from minigen.autograd.tape import OBSERVERS, Array, op
from minigen.random import Generator

engine = importlib.import_module("minigen.autograd.grad")
THIS = Path(__file__).name

def leaf(*values: float, dtype: type = np.float32) -> Tensor:
    return Tensor(np.array(values, dtype), requires_grad=True)


@pytest.fixture
def logarithm():
    """log x, with NumPy's warnings off, as all ops have them."""

    @op
    def _logarithm(x: Array) -> Array:
        with np.errstate(all="ignore"):
            return np.log(x)

    @op
    def _reciprocal(x: Array) -> Array:
        with np.errstate(all="ignore"):
            return 1 / x

    _logarithm.vjp(x=lambda g, x: g * _reciprocal(x))
    return _logarithm


# ---- anomaly_mode


def test_the_op_and_the_line_are_named_forward(logarithm) -> None:
    x = leaf(1.0, 0.0, 2.0)
    y = x * 2.0
    with anomaly_mode(), pytest.raises(AnomalyError) as caught:
        logarithm(y)  # this line
    error = caught.value
    assert (error.op, error.phase, error.made) == ("logarithm", "forward", "Inf")
    assert re.search(rf"{THIS}:\d+ in test_the_op_and_the_line_are_named_forward: logarithm\(y\)  # this line", error.where)
    assert str(error).startswith("logarithm made 1 Inf of 3 numbers, forward\n    in     float32(3,) finite\n    line   ")


def test_the_op_and_the_line_are_named_backward(logarithm) -> None:
    @op
    def _safe(x: Array) -> Array:
        return np.where(x > 0, np.log(np.where(x > 0, x, 1)), 0)

    _safe.vjp(x=lambda g, x: g * tape.OPS["reciprocal"](x))
    x = leaf(1.0, 0.0)
    with anomaly_mode():
        y = _safe(x)  # recorded here
        with pytest.raises(AnomalyError) as caught:
            grad(y.sum(), x)
    error = caught.value
    assert (error.op, error.phase, error.made) == ("safe", "backward", "Inf")
    assert "y = _safe(x)  # recorded here" in error.where
    assert "the gradient rule of safe made 1 Inf of 2 numbers, backward" in str(error)
    assert "in its rule: reciprocal" in str(error)


def test_the_users_own_line_comes_first_and_that_of_the_layer_second() -> None:
    layer = nn.Linear(1, 1, rng=Generator(0))
    layer.weight.data[:] = 3e38
    with anomaly_mode(), np.errstate(over="ignore"), pytest.raises(AnomalyError) as caught:
        layer(leaf(2.0).reshape(1, 1))  # my own line
    mine, layers = caught.value.where.split("\n")
    assert re.fullmatch(rf".*{THIS}:\d+ in test_the_users_own_line.*: layer\(leaf.*# my own line", mine)
    assert re.fullmatch(r" +inside .*layers\.py:\d+ in forward: .*", layers)


def test_the_users_own_line_is_found_behind_a_decorator_of_the_package() -> None:
    """`@no_grad()` calls the function from a line of contextlib, which is nobody's."""
    source = "@no_grad()\ndef sample(logarithm, x):\n    return logarithm(x)\n"
    room = {"no_grad": tape.no_grad}
    exec(compile(source, f"{observe.PACKAGE}a_model.py", "exec"), room)
    with anomaly_mode(), pytest.raises(AnomalyError) as caught:
        room["sample"](ops.log, leaf(0.0))  # not contextlib's
    mine, models = caught.value.where.split("\n")
    assert mine.endswith("# not contextlib's")
    assert "a_model.py:3 in sample" in models


def test_nan_from_infinities_is_found_and_masks_pass() -> None:
    x = leaf(1.0, 2.0)
    with anomaly_mode():
        masked = x + np.array([0.0, -np.inf], np.float32)  # an Inf that was given, not made
        assert np.isinf((masked * 2.0).data).any()
        with pytest.raises(AnomalyError, match="multiply made 1 NaN of 2 numbers"), np.errstate(invalid="ignore"):
            _ = masked * np.zeros(2, np.float32)
        _ = x * np.array([np.nan, 1.0], np.float32)  # given, too
        _ = x * float("inf")


def test_only_the_first_is_blamed_and_what_follows_is_not(logarithm) -> None:
    y = logarithm(leaf(-1.0))
    assert np.isnan(y.data).all()
    with anomaly_mode():
        _ = y * y
        with pytest.raises(AnomalyError) as caught:
            logarithm(leaf(-1.0))
    assert (caught.value.op, caught.value.made) == ("logarithm", "NaN")


def test_a_sum_of_cotangents_that_overflows_is_noticed() -> None:
    x = leaf(1.0)
    with anomaly_mode(), np.errstate(over="ignore"):
        y = x * 1.0
        total = (y * 3e38).sum() * 0.9 - (y * -3e38).sum() * 0.9 * 1e-3
        with pytest.raises(AnomalyError, match=r"rule of multiply .* was given an Inf or NaN") as caught:
            grad([total, y.sum()], x, [np.float32(1.0), np.float32(3e38)])
    assert caught.value.phase == "backward"


def test_what_was_recorded_before_is_named_without_its_line() -> None:
    @op
    def _bad(x: Array) -> Array:
        return x * 1

    _bad.vjp(x=lambda g: g * np.float32(np.nan))
    x = leaf(1.0)
    out = _bad(x).sum()
    with anomaly_mode(), pytest.raises(AnomalyError, match=r"(?s)bad made .* unknown: run the forward pass inside") as caught:
        grad(out, x)
    assert caught.value.where == ""


def test_finite_training_raises_nothing() -> None:
    x = leaf(0.5, -0.5)
    with anomaly_mode():
        g = grad((ops.tanh(x) * x).sum(), x, create_graph=True)
        (g * g).sum().backward()
    assert np.isfinite(x.grad.data).all()


# ---- in every op


def drawn(card: cards.OpCard) -> tuple[tuple, dict]:
    """An example whose inputs are not empty, and none of its indices either."""
    rng = np.random.default_rng(1)
    draw = Draw(lambda low, high: int(rng.integers(low, high, endpoint=True)))
    examples = (card.sample(draw) for _ in range(400))
    full = (e for e in examples if all(a.size for a in e[0] if isinstance(a, np.ndarray)))
    return next(e for e in full if all(e[0][i].size > 1 for i in card.wrt))


def run(card: cards.OpCard, args: tuple, kwargs: dict) -> None:
    full = list(args)
    inputs = []
    for i in card.wrt:
        full[i] = Tensor(args[i], requires_grad=True)
        inputs.append(full[i])
    result = card.function(*full, **kwargs)  # the line that is named
    outputs = [r for r in (result if isinstance(result, tuple | list) else [result]) if r.node is not None]
    grad(outputs, inputs, [np.ones_like(o.data) for o in outputs], allow_unused=True)


def planted(result, bad: float):
    """The result of an op or a rule, with one bad number in its first array that is not empty."""
    if isinstance(result, tuple | list):
        for i, part in enumerate(result):
            changed = planted(part, bad)
            if changed is not part:
                return [*result[:i], changed, *result[i + 1 :]]
        return result
    if result is None or not np.size(result) or np.asarray(result).dtype.kind != "f":
        return result
    result = np.array(result, order="C")
    result.reshape(-1)[0] = bad
    return result


class Names(tape.Observer):
    def __init__(self) -> None:
        self.ran: set[str] = set()
        self.rules: set[str] = set()

    def recorded(self, node) -> None:
        self.ran.add(node.op.name)

    def backward(self, node, g, gradients, seconds) -> None:
        self.rules.add(node.op.name)


@pytest.mark.parametrize("name", sorted(name for name, card in CARDS.items() if card.wrt))
def test_a_bad_number_made_by_any_op_or_rule_is_found(name: str) -> None:
    """For each op that a card records: its forward function is broken, then its rule, by a NaN, then by an Inf."""
    card = CARDS[name]
    args, kwargs = drawn(card)
    names = Names()
    with set_backend("numpy"):
        OBSERVERS.append(names)
        run(card, args, kwargs)
        OBSERVERS.remove(names)
        assert names.ran == names.rules
        for broken in names.ran:
            for bad, made in ((np.nan, "NaN"), (np.inf, "Inf")):
                this = tape.OPS[broken]
                forward, gradients = this.forward, engine._gradients

                def faulty(*args, forward=forward, bad=bad, **kwargs):
                    return planted(forward(*args, **kwargs), bad)

                def faulty_rule(node, *rest, gradients=gradients, this=this, bad=bad):
                    found = gradients(node, *rest)
                    return planted(found, bad) if node.op is this else found

                for phase, patch in (
                    ("forward", mock.patch.object(this, "forward", faulty)),
                    ("backward", mock.patch.object(engine, "_gradients", faulty_rule)),
                ):
                    with patch, pytest.raises(AnomalyError) as caught, anomaly_mode():
                        run(card, args, kwargs)
                    error = caught.value
                    assert (error.op, error.phase, error.made) == (broken, phase, made)
                    assert "the line that is named" in error.where


def test_observers_are_removed_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), anomaly_mode(), record():
        raise ZeroDivisionError
    assert OBSERVERS == []


# ---- the printed tape


def test_the_table_of_a_backward_pass() -> None:
    x, w = Tensor(np.ones((4, 3), np.float32), requires_grad=True), leaf(1.0, 2.0, 3.0)
    with record() as seen:
        (ops.tanh(x * w)).sum().backward()
    rows = [row for row in seen.rows if not row.during]
    assert [row.op for row in rows] == ["multiply", "tanh", "sum"]
    assert rows[0].inputs == ["float32(4, 3)", "float32(3,)"]
    assert rows[0].output == "float32(4, 3)"
    assert [row.bytes for row in rows] == [48, 48, 4]
    assert [row.kept for row in rows] == [48 + 12, 48, 0]
    assert all(row.backward > 0 and row.forward > 0 and row.recorded for row in rows)
    assert {row.op for row in seen.rows if row.during == "rule"} >= {"broadcast_to"}, "sum's rule"
    assert {row.op for row in seen.rows if row.during == "walk"} == {"sum", "reshape"}, "w was broadcast"
    lines = str(seen).splitlines()
    assert lines[0].split() == ["#", "op", "inputs", "result", "bytes", "kept", "forward", "ms", "backward", "ms"]
    assert lines[1].split()[:8] == ["1", "multiply", "float32(4,", "3)", "float32(3,)", "float32(4,", "3)", "48"]
    assert len(lines) == 1 + 3 + 2
    assert lines[-1].split()[:3] == ["total", "100", "108"]
    assert seen.by_op().splitlines()[0].split()[:2] == ["op", "calls"]
    assert len(seen.by_op().splitlines()) == 4


def test_the_table_shows_a_recorded_backward_pass() -> None:
    x = leaf(1.0, 2.0)
    with record() as seen:
        g = grad((x * x).sum(), x, create_graph=True)
        grad(g.sum(), x)
    shown = [line.split()[1] for line in str(seen).splitlines()[1:-1]]
    assert shown[:2] == ["multiply", "sum"]
    assert shown.count("multiply") == 3, "x * x, and g x twice in its gradient"


def test_printed_tape_prints(capsys) -> None:
    with printed_tape():
        ops.add(np.ones(2), 1.0)
    printed = capsys.readouterr().out
    assert "add" in printed
    assert "float64(2,)  1.0" in printed


# ---- drawings


def graph() -> tuple[Tensor, dict]:
    names = {"w": leaf(1.0, 2.0), "b <&> c": leaf(0.5, 0.5)}
    h = ops.tanh(names["w"] * names["b <&> c"])
    return (h * h + names["w"]).sum(), names


def test_dot_has_a_box_per_op_and_leaf_and_an_edge_per_input() -> None:
    y, names = graph()
    text = draw_graph(y, names)
    assert text.startswith("digraph")
    assert text.endswith("}")
    labels = re.findall(r'label="([^"\\]*)', text)
    assert labels == ["w", "b <&> c", "multiply", "tanh", "multiply", "add", "sum"]
    assert len(re.findall("->", text)) == 2 + 1 + 1 + 2 + 1


def test_svg_is_valid_and_nothing_overlaps(tmp_path) -> None:
    y, names = graph()
    text = draw_svg(y, tmp_path / "graph.svg", names)
    assert (tmp_path / "graph.svg").read_text(encoding="utf-8") == text
    root = ET.fromstring(text)
    svg = "{http://www.w3.org/2000/svg}"
    boxes = [
        tuple(float(rect.get(key)) for key in ("x", "y", "width", "height")) for rect in root.iterfind(f"{svg}g/{svg}rect")
    ]
    assert len(boxes) == 7
    width, height = float(root.get("width")), float(root.get("height"))
    for i, (x, y0, w, h) in enumerate(boxes):
        assert x >= 0
        assert y0 >= 0
        assert x + w <= width
        assert y0 + h <= height
        for x2, y2, w2, h2 in boxes[:i]:
            assert x + w <= x2 or x2 + w2 <= x or y0 + h <= y2 or y2 + h2 <= y0, "two boxes overlap"
    shown = [text.text for text in root.iterfind(f"{svg}g/{svg}text")]
    assert {"w", "b <&> c", "tanh", "sum", "(2,)", "()"} <= set(shown)
    assert len(root.findall(f"{svg}path")) == 7


def test_drawing_a_second_order_graph_and_ops_with_several_results() -> None:
    @op(outputs=2)
    def _both(x: Array) -> tuple[Array, Array]:
        return x * 2, x * 3

    _both.vjp(x=lambda g: g[0] * 2 + g[1] * 3)
    x = leaf(1.0, 2.0)
    a, b = _both(x)
    g = grad((a * b * a).sum(), x, create_graph=True)
    text = draw_graph((g * g).sum())
    assert 'label="both' in text
    assert "select" not in text
    ET.fromstring(draw_svg((g * g).sum()))


def test_nothing_to_draw_is_an_error() -> None:
    with pytest.raises(ValueError, match="no history"):
        draw_graph(Tensor([1.0]))
    assert "leaf" in draw_svg(leaf(1.0))
