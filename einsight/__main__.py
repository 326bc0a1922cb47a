"""Run the command: the console script `einsight`, or `python -m einsight`."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command and end the process with its exit code."""
    # Looking for plugins of pydantic means reading the metadata of every installed package.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "true")
    from einsight.command import main as run

    sys.exit(run())


if __name__ == "__main__":
    main()
