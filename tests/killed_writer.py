"""A process that kills a bundle's writer before every call that touches the disk, one by one.

    python killed_writer.py SCENARIO FOLDER

For each such call a folder FOLDER/0, FOLDER/1, ... is made, prepared as SCENARIO says, and a forked
child writes the bundle ``new`` to ``b`` in it, to die by SIGKILL before that call. The last child
lives. Prints, a line each, how the children ended: ``killed`` or ``done``.

    fresh       nothing is there
    replace     the bundle ``old`` is there
    recover     ``old`` lies aside as a kill between the renames leaves it, beside a half-written
                folder
    truncate    as replace, but the kernel kills the writer in the middle of a write, after as many
                bytes of one file as the number of the folder says
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from pathlib import Path

import tiny_bundle

from edgegen import bundle_swap

# Audit events of calls that change or open something; os.fsync and os.write raise none.
TOUCHES = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.scandir", "os.listdir"}
MAX_STEPS = 1000


def prepare(scenario: str, target: Path) -> None:
    target.parent.mkdir()
    if scenario == "fresh":
        return
    tiny_bundle.write(target, "old")
    if scenario == "recover":
        target.rename(bundle_swap.backup_of(target))
        half = bundle_swap.unfinished_of(target)
        half.mkdir()
        (half / "part").write_bytes(b"half")


def kill_before(step: int) -> None:
    """Arm this process to kill itself before the ``step``-th call that touches the disk."""
    left = step

    def count(event: str, _: object) -> None:
        nonlocal left
        if event in TOUCHES:
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1

    sys.addaudithook(count)


def child(scenario: str, target: Path, step: int) -> int:
    process = os.fork()
    if process == 0:
        if scenario == "truncate":
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (step, step))
        else:
            kill_before(step)
        tiny_bundle.write(target, "new")
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def main(scenario: str, folder: Path) -> None:
    stride = 97 if scenario == "truncate" else 1
    for step in range(0, MAX_STEPS * stride, stride):
        target = folder / str(step) / "b"
        prepare(scenario, target)
        ended = child(scenario, target, step)
        if ended not in (0, -signal.SIGKILL, -signal.SIGXFSZ):
            sys.exit(f"step {step} ended with {ended}")
        print("killed" if ended else "done", flush=True)
        if not ended:
            return
    sys.exit(f"still killed at step {MAX_STEPS}")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
