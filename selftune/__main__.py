"""`python -m selftune`."""

from __future__ import annotations

import sys

from selftune import lifeline, threads  # `threads` before whatever imports numpy
from selftune.cli import main

__all__ = ["lifeline", "main", "threads"]

if __name__ == "__main__":
    lifeline.tie()
    sys.exit(main())
