# PYTHON_ARGCOMPLETE_OK
"""``python -m tinyseg`` and the command ``tinyseg``: a process around :func:`tinyseg.cli.main`.

Nothing heavy is imported here before Ctrl-C is taken care of: the first second of a start goes into imports.
"""

from __future__ import annotations

import os
import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import NoReturn

EXIT_INTERRUPTED = 130


def leave(number: int, frame: FrameType | None) -> None:
    """Ctrl-C where there is nothing to finish: while starting and after the end."""
    try:
        os.write(2, b"tinyseg: interrupted\n")
    finally:
        os._exit(EXIT_INTERRUPTED)


def entry() -> NoReturn:
    """Run the command line of this process, and exit with its code."""
    # A parent that ignores Ctrl-C (a shell's background job, nohup) is obeyed.
    heard = signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
    if heard:
        signal.signal(signal.SIGINT, leave)
    from tinyseg.system import console  # noqa: PLC0415 - after Ctrl-C is taken care of

    console.occupy_standard_streams()
    from tinyseg.cli import main  # noqa: PLC0415 - heavy

    code = main()
    try:
        sys.stdout.flush()
    except (OSError, ValueError):  # told already; the interpreter would tell it again
        console.drop_output()
    if heard:
        signal.signal(signal.SIGINT, leave)
    sys.exit(code)


if __name__ == "__main__":
    entry()
