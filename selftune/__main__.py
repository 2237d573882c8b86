"""`python -m selftune`."""

from __future__ import annotations

import sys

from selftune import lifeline
from selftune.cli import main

if __name__ == "__main__":
    lifeline.tie()
    sys.exit(main())
