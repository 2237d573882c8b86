"""Launcher of the dashboard: `python -m selftune up`, or `streamlit run app.py`.

Only wiring: which script runs, which routes stand beside it, which middleware stands before it.
"""

from __future__ import annotations

import os
from pathlib import Path

import streamlit as st

from selftune import lifeline, web
from selftune.runtime import data_root

lifeline.tie()
FRAME = Path(web.__file__).resolve().parent / "frame.py"
ROOT = data_root()
DOOR = web.door(os.environ, address=st.get_option("server.address"), root=ROOT)

app = st.App(
    FRAME,
    routes=web.routes(ROOT),
    middleware=web.middleware(DOOR, web.allowed_hosts(ROOT)),
)
