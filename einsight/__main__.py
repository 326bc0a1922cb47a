"""Run the command: the console script `einsight`, or `python -m einsight`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command and end the process with its exit code."""
    from einsight.command import main as run

    sys.exit(run())


if __name__ == "__main__":
    main()
