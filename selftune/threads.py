"""One thread for linear algebra, unless the environment says otherwise; importing this says so.

Must come before numpy. Our matrices have a hundred rows: more threads win nothing there and wait for each
other by spinning, on the cores of the system that is being tuned (four times the CPU of a cycle).
"""

from __future__ import annotations

import os

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
