"""Runs a script, and sends it SIGTERM once its parent process is gone: python sweeps/child.py train.py ARGS.

So a killed sweep leaves no run training: the run saves, and is resumed with the sweep.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
from pathlib import Path


def stop_with_stdin() -> None:
    """Send this process SIGTERM when its stdin, a pipe that the sweep holds, has ended."""

    def wait() -> None:
        while os.read(0, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    stop_with_stdin()
    sys.argv = sys.argv[1:]
    sys.path[0] = str(Path(sys.argv[0]).resolve().parent)
    runpy.run_path(sys.argv[0], run_name="__main__")
