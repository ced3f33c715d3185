"""What every test shares: the repository's root, quiet libraries, repeatable random cases."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

from edgegen.unreported import REPORTER

# Before any test imports a library: no test reaches a hub, no tokenizer forks threads.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# Nor is anyone told of it, where a test imports OpenVINO itself.
sys.modules[REPORTER] = None  # type: ignore[assignment]

settings.register_profile("edgegen", deadline=None, derandomize=True)
settings.load_profile("edgegen")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def tiny_t5_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A T5 of random weights with a tokenizer: a word in, some words out."""
    from tiny_families import write_bundle

    return write_bundle(tmp_path_factory.mktemp("bundles") / "tiny-t5", "t5-tied")


@pytest.fixture(scope="session")
def tiny_speech_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Whisper of random weights: half a minute of sound in, some words out."""
    from tiny_families import write_bundle

    return write_bundle(tmp_path_factory.mktemp("bundles") / "tiny-asr", "whisper")
