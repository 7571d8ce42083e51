"""Every test: one thread, a fixed seed, and the shapes written in partial_fc's signatures checked at each call."""

from __future__ import annotations

import pytest
import torch
from jaxtyping import install_import_hook

# Installed for good: modules that are first imported inside a test are checked too.
install_import_hook("partial_fc", "beartype.beartype")

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(20)
