"""Module: what it finds, names, switches, saves and restores."""

import copy

import numpy as np
import pytest

from minigen import Tensor
from minigen.nn import BatchNorm, Dropout, Known, Linear, Module, Sequential, parameter
from minigen.nn import module as module_file
from minigen.optim import SGD
from minigen.random import Generator


class Nested(Module):
    """Layers in every place where people keep them."""

    def __init__(self, rng):
        self.first = Linear(2, 3, rng=rng)
        self.blocks = [Linear(3, 3, rng=rng), [Linear(3, 3, rng=rng)]]
        self.heads = {"a": Linear(3, 1, rng=rng), "b": {"c": Linear(3, 1, rng=rng)}}
        self.pair = (Linear(3, 3, rng=rng), parameter(np.ones(3, np.float32)))
        self.tied = self.first  # the same layer again
        self.count = Tensor(np.zeros(1, np.float32))  # a buffer

    def forward(self, x):
        h = self.pair[0](self.blocks[1][0](self.blocks[0](self.first(x)))) * self.pair[1]
        return self.heads["a"](h) + self.heads["b"]["c"](h)


PARTS = ["first", "blocks.0", "blocks.1.0", "heads.a", "heads.b.c", "pair.0"]
PARAMETERS = [f"{part}.{p}" for part in PARTS for p in ("weight", "bias")] + ["pair.1"]


def trained(module):
    """Names of the parameters that one step of gradient descent changes."""
    before = module.state_dict()
    optimizer = SGD(module.parameters(), lr=0.1)
    module(Tensor(np.ones((4, 2), np.float32))).sum().backward()
    optimizer.step()
    after = module.state_dict()
    return [name for name in after if not np.array_equal(before[name], after[name])]


def test_a_layer_is_found_and_trained_wherever_it_stands():
    module = Nested(Generator(0))
    assert [name for name, _ in module.named_parameters()] == PARAMETERS
    assert trained(module) == PARAMETERS


@pytest.mark.parametrize("kind", [list, tuple, dict])
def test_mutant_a_container_that_is_not_searched_is_noticed(kind, monkeypatch):
    """The bug of well-known teaching code: layers kept in a plain list, and so never trained."""
    search = module_file._inside

    def blind(name, value, seen):
        return () if isinstance(value, kind) else search(name, value, seen)

    monkeypatch.setattr(module_file, "_inside", blind)
    assert trained(Nested(Generator(0))) != PARAMETERS


def test_what_is_shared_counts_once():
    layer = Linear(2, 2, rng=Generator(0))
    twice = Sequential(layer, layer)
    assert [name for name, _ in twice.named_parameters()] == ["layers.0.weight", "layers.0.bias"]
    assert twice.num_parameters() == 6
    assert len(list(twice.modules())) == 2


def test_a_remembered_result_is_neither_parameter_nor_buffer():
    module = Nested(Generator(0))
    module.last = module(Tensor(np.ones((1, 2), np.float32)))
    assert "last" not in dict(module.named_tensors())


def test_a_module_that_contains_itself():
    module = Nested(Generator(0))
    module.me = [module]
    assert [name for name, _ in module.named_parameters()] == PARAMETERS


def test_a_set_of_layers_is_refused():
    module = Nested(Generator(0))
    module.others = {Linear(1, 1, rng=Generator(0))}
    with pytest.raises(TypeError, match=r"others is a set.*list or a dict"):
        module.parameters()


def test_two_parts_of_one_name_are_refused():
    module = Nested(Generator(0))
    module.heads = {0: Linear(3, 1, rng=Generator(0)), "0": Linear(3, 1, rng=Generator(0))}
    with pytest.raises(ValueError, match=r"called 'heads\.0"):
        module.state_dict()


def test_train_and_eval_reach_every_module():
    module = Nested(Generator(0))
    assert module.eval() is module
    assert len(list(module.modules())) == 1 + len(PARTS)
    assert not any(m.training for m in module.modules())
    assert all(m.training for m in module.train().modules())


def test_state_round_trip():
    module, other = Nested(Generator(0)), Nested(Generator(1))
    state = module.state_dict()
    assert list(state) == [*PARAMETERS, "count"]
    other.load_state_dict(state)
    for name, array in other.state_dict().items():
        np.testing.assert_array_equal(array, state[name])
    state["count"][...] = 7  # a copy: nobody else sees it
    assert module.count.data == other.count.data == 0


def test_loading_is_known_to_what_backward_needs():
    module = Sequential(Linear(2, 2, rng=Generator(0)), Linear(2, 2, rng=Generator(0)))
    out = module(Tensor(np.ones((1, 2), np.float32))).sum()
    module.load_state_dict(module.state_dict())
    with pytest.raises(RuntimeError, match="linear"):
        out.backward()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("pair.1"), r"Nested: missing \['pair.1'\], unexpected \[\]"),
        (lambda s: s.update(new=np.zeros(1)), r"missing \[\], unexpected \['new'\]"),
        (lambda s: s.update({"pair.1": np.ones(4, np.float32)}), r"pair.1 is float32\(3,\) here, and float32\(4,\)"),
        (lambda s: s.update({"pair.1": np.ones(3)}), r"pair.1 is float32\(3,\) here, and float64\(3,\)"),
        (lambda s: s.update({"drop.rng": np.full(4, 2**63, np.uint64)}), "drop.rng is no position of a generator"),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(change, message):
    module = Nested(Generator(0))
    module.drop = Dropout(0.5, rng=Generator(3))
    before, state = module.state_dict(), {name: array + 1 for name, array in module.state_dict().items()}
    change(state)
    with pytest.raises(ValueError, match=message):
        module.load_state_dict(state)
    for name, array in module.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_the_position_of_a_generator_is_part_of_the_state():
    """So that a resumed run drops the same units."""
    rng = Generator(2**100 + 5)
    rng.split(3)
    drop, x = Dropout(0.5, rng=rng), Tensor(np.ones(100, np.float32))
    drop(x)
    state = drop.state_dict()
    expected = [drop(x).data for _ in range(3)]
    other = Dropout(0.5, rng=Generator(0))
    other.load_state_dict(state)
    np.testing.assert_array_equal([other(x).data for _ in range(3)], expected)
    assert other.rng.state == rng.state


def test_astype():
    module = Sequential(Linear(2, 3, rng=Generator(0)), BatchNorm(3))
    before = module.state_dict()
    assert module.astype("float64") is module
    for name, t in module.named_tensors():
        assert t.dtype == np.float64
        assert t.requires_grad == ("running" not in name)
        np.testing.assert_array_equal(t.data, before[name])
    out = module(Tensor(np.random.default_rng(0).normal(size=(5, 2))))
    out.sum().backward()
    assert out.dtype == module[0].weight.grad.dtype == np.float64


def test_repr_shows_the_tree_and_the_shapes():
    inner = Sequential(BatchNorm(3), Dropout(0.1, rng=Generator(0)))
    module = Sequential(Linear(2, 3, rng=Generator(0), activation="tanh"), abs, inner)
    assert repr(module) == (
        "Sequential()\n"
        "  layers.0: Linear(tanh)  weight (2, 3), bias (3,)\n"
        "  layers.1: abs\n"
        "  layers.2: Sequential()\n"
        "    layers.0: BatchNorm()  weight (3,), bias (3,), running_mean (3,), running_var (3,)\n"
        "    layers.1: Dropout(p=0.1)"
    )


def test_a_module_without_forward_says_so():
    with pytest.raises(TypeError, match="Module has no forward"):
        Module()(1)


def test_known_reads_a_buffer_after_it_was_written():
    buffer = Tensor(np.zeros((), np.float32))
    known = Known(buffer)
    assert known() == 0
    buffer.data[...] = 3  # unnoticed, as it is not said
    assert known() == 0
    buffer.mark_written()
    assert known() == 3
    copied = copy.deepcopy(known)
    copied.buffer[...] = 5
    assert (known(), copied()) == (3, 5)
