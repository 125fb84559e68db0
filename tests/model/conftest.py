"""What tests of checkpoint files share."""

from __future__ import annotations

import pytest
from rule_made import official_state
from tiny import TINY
from torch import Tensor


@pytest.fixture(scope="session")
def tiny_state() -> dict[str, Tensor]:
    return official_state(TINY, seed=7)
