"""What every test shares: the repository's root, quiet libraries, repeatable random cases."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Any

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


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle of a few hundred bytes, alone in its folder, for a test to break or replace."""
    import tiny_bundle

    tiny_bundle.write(tmp_path / "b")
    return tmp_path / "b"


@pytest.fixture(scope="session")
def spm() -> bytes:
    """A SentencePiece vocabulary of a few words, with Marian's ids."""
    from tiny_pieces import spm_bytes

    return spm_bytes()


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a command in this process: status, standard output, standard error."""
    from edgegen.cli import main

    def call(*arguments: object, stdin: bytes = b"") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        told = capsys.readouterr()
        return status, told.out, told.err

    return call
