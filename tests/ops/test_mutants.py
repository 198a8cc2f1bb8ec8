"""The tests of gradients are tested: broken rules must be found. Quick here, all ops in a slow test; see mutants.py."""

from __future__ import annotations

import mutants
import pytest

from minigen.autograd.cards import CARDS

FEW = ["multiply", "tanh", "matmul", "concat", "where", "softmax", "linear", "gated_tanh"]


def test_every_kind_of_mutant_of_a_few_ops_is_killed() -> None:
    tried = mutants.run(FEW)
    text, score, unexplained = mutants.report(tried)
    assert not unexplained, text
    assert score >= 0.99
    assert sum(bool(m.killed) for m in tried) > 80, text
    kinds = {m.name for m in tried if m.killed}
    assert kinds >= {
        "drop the cotangent", "flip the sign", "scale by 1 + 1e-5", "transpose", "off by one", "forget to un-broadcast",
        "forget input 0", "swap 0 and 1", "forget factor 0", "leak float64", "detach the gradient",
        "take factors for constants",
    }  # fmt: skip


def test_a_relative_error_of_1e_5_is_found_in_every_op() -> None:
    """In the gradient of the first order (raw), and in that of the second (recorded)."""
    tried = mutants.run(kinds=["scale by 1 + 1e-5"])
    missed = [(m.op, m.world) for m in tried if not m.killed]
    assert not missed
    differentiable = {name for name, card in CARDS.items() if card.wrt and name in mutants.OPS}
    assert differentiable <= {m.op for m in tried}, "some op was not reached"


@pytest.mark.slow
def test_the_mutation_score_of_all_ops() -> None:
    tried = mutants.run()
    text, score, unexplained = mutants.report(tried)
    print(text)
    assert score >= 0.99, text
    assert not unexplained, text
