"""What a training step gets: a batch of the training data, where the run computes."""

from __future__ import annotations

from typing import Any

from ..autograd.backend import move
from ..data import BatchOrder, Dataset


class Batches:
    """x, labels = batches(): the next samples in the order of `order`, and {"y": their labels} if `labelled` and there are any.

    On a GPU the data lie there from the start, and the order of an epoch goes over when it begins; no step copies anything.
    """

    def __init__(self, data: Dataset, order: BatchOrder, device: str, labelled: bool):
        self.order, self.device = order, device
        self.x = move(data.x, device)
        self.y = move(data.y, device) if labelled and data.y is not None else None
        self.permutation: Any = None  # the order of this epoch, here
        self.copied: Any = None  # and there

    def __call__(self) -> tuple[Any, dict[str, Any]]:
        chosen = next(self.order)  # (batch,)
        if self.device != "cpu":
            if self.permutation is not self.order.permutation:
                self.permutation = self.order.permutation
                self.copied = move(self.permutation, self.device)
            chosen = self.copied[self.order.position - len(chosen) : self.order.position]
        return self.x[chosen], {} if self.y is None else {"y": self.y[chosen]}
