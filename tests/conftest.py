"""What every test shares: the repository's root, quiet libraries, repeatable random cases."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# Before any test imports a library: no test reaches a hub, no tokenizer forks threads.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

settings.register_profile("edgegen", deadline=None, derandomize=True)
settings.load_profile("edgegen")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return Path(__file__).resolve().parent.parent
