"""What the tests of the emulator share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from minigen.autograd import backend
from minigen.emulator import NoCompiler


@pytest.fixture
def emulator() -> Iterator[None]:
    """Afterwards "cuda" means what it meant."""
    try:
        with backend.emulate():
            yield
    except NoCompiler as error:
        pytest.skip(str(error))
