"""The command line: the table of commands, and what becomes of what they raise.

Commands parse, call and print; what they can do, Python can do in the same words. Nothing heavy
is imported before a command runs, so ``--help`` answers at once.
"""

from __future__ import annotations

import gc
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated

import typer
from typer.main import get_command

from edgegen import __version__
from edgegen.errors import EdgegenError

from .commands import (
    adapt,
    compare,
    condition,
    devices,
    export,
    inspect,
    profile,
    run,
    sources,
    study,
)

HELP = """Small encoder-decoder language models on devices without a server GPU.

A checkpoint becomes a bundle of quantised graphs (export), a bundle makes text (run), and
numbers say which device and precision to ship (profile).

  edgegen sources
  edgegen export -m pypi:firefox-en-pt -o bundles/en-pt --weight-format int8
  edgegen run bundles/en-pt "The train leaves at nine."

Exit status: 0 done; 1 found worse or not sound (compare, devices --check), or a bug; 2 something to
mend, said in one line on standard error; 130 Ctrl-C.
"""

# In the order of `edgegen --help`.
COMMANDS = (
    ("export", export.export, export.HELP),
    ("adapt", adapt.adapt, adapt.HELP),
    ("condition", condition.condition, condition.HELP),
    ("run", run.run, run.HELP),
    ("inspect", inspect.inspect, inspect.HELP),
    ("profile", profile.profile, profile.HELP),
    ("compare", compare.compare, compare.HELP),
    ("study", study.study, study.HELP),
    ("devices", devices.devices, devices.HELP),
    ("sources", sources.sources, sources.HELP),
)

# Which extra brings a module. Those of the device side are always there.
EXTRAS = {
    "gguf": "export",
    "google": "export",
    "huggingface_hub": "export",
    "nncf": "export",
    "onnx": "export",
    "onnx_ir": "export",
    "onnxscript": "export",
    "optimum": "export",
    "safetensors": "export",
    "sentencepiece": "export",
    "torch": "export",
    "transformers": "export",
    "yaml": "export",
    "openvino": "openvino",
    "ray": "ray",
    "soundfile": "audio",
    "soxr": "audio",
}


def flowed(text: str) -> str:
    """A help page for any width: the lines of a paragraph joined, examples (indented) kept."""
    parts = text.strip().split("\n\n")
    # The tag is also what keeps typer from taking the indentation away.
    return "\n\n".join(
        f"[cyan]{part}[/cyan]" if part.startswith(" ") else " ".join(part.splitlines())
        for part in parts
    )


app = typer.Typer(
    name="edgegen",
    help=flowed(HELP),
    rich_markup_mode="rich",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _name, _command, _help in COMMANDS:
    app.command(_name, help=flowed(_help))(_command)


def show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"edgegen {__version__}")
        raise typer.Exit


@app.callback()
def edgegen(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=show_version,
            is_eager=True,
            metavar="",
            help="Print the version and exit.",
        ),
    ] = False,
) -> None:
    """The options before a command."""


def process() -> int:
    """``main`` as a process of its own; returns the exit status."""
    status = main()
    # All that is left goes with the process: to look for garbage takes a tenth of a short run.
    gc.freeze()
    return status


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line (``sys.argv`` without ``arguments``); returns the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:2] == ["profile", "compare"]:  # what compares profiles is looked for there too
        words = words[1:]
    _use_utf8()
    try:
        with warnings.catch_warnings():
            if not sys.warnoptions:  # a library's words to programmers; results carry ours
                warnings.simplefilter("ignore")
            status: object = get_command(app).main(words, "edgegen", standalone_mode=False)
            sys.stdout.flush()
    except KeyboardInterrupt:
        status = 130
    except typer.Abort:  # the end of input where an answer was awaited
        status = 1
    except BrokenPipeError:
        return _quiet()
    except Exception as error:
        return _failed(error, words)
    if status == 130 and sys.stderr.isatty():
        print(file=sys.stderr)  # the shell's prompt starts on a line of its own
    return status if isinstance(status, int) else 0


def _failed(error: Exception, words: Sequence[str]) -> int:
    """Say what happened; the exit status."""
    line = explained(error, words)
    if line is None:
        _say(f"edgegen {__version__}: unexpected error, a bug; please report it with these lines:")
        traceback.print_exception(error)
        return 1
    _say(line)
    return 2


def explained(error: Exception, words: Sequence[str] = ()) -> str | None:
    """The one line for an error that the user can mend, of the ``words`` typed; None for a bug."""
    if isinstance(error, typer.TyperException):
        return _usage(error, words)
    if isinstance(error, EdgegenError):
        return f"edgegen: {error}"
    if isinstance(error, ModuleNotFoundError):
        module = (error.name or "").partition(".")[0]
        if module in EXTRAS:
            return (
                f"edgegen: {module} is not installed, which this needs; "
                f"pip install 'edgegen[{EXTRAS[module]}]'."
            )
    if isinstance(error, OSError) and error.strerror:
        where = f"{os.fsdecode(error.filename)}: " if error.filename else ""
        return f"edgegen: {where}{error.strerror}."
    if isinstance(error, MemoryError):
        return "edgegen: not enough memory; close other programs or use a narrower weight format."
    return None


def _usage(error: typer.TyperException, words: Sequence[str]) -> str:
    """What was wrong with the words typed, and where the right ones stand."""
    context: typer.Context | None = getattr(error, "ctx", None)
    command = context.command_path if context else "edgegen"
    if context is None and words and words[0] in {name for name, _, _ in COMMANDS}:
        command += f" {words[0]}"  # of an option without its value, typer keeps no context
    message = error.format_message().strip().rstrip(".")
    if not message:  # no command at all: the help was printed
        return f"edgegen: no command given; see {command} --help."
    end = "" if message.endswith("?") else "."
    return f"{command}: {message}{end} See {command} --help."


def _say(line: str) -> None:
    with suppress(BrokenPipeError):
        print(" ".join(line.splitlines()), file=sys.stderr, flush=True)


def _use_utf8() -> None:
    """Pipes and files carry UTF-8 on every system."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None and not stream.isatty():
            reconfigure(encoding="utf-8")


def _quiet() -> int:
    """The reader of a pipe went away: keep Python's own last flush from complaining."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1
