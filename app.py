"""Launcher of the dashboard: `python -m selftune up`, or `streamlit run app.py`.

Only wiring: which script runs, which routes stand beside it, which middleware stands before it.
"""

from __future__ import annotations

import os
from pathlib import Path

import streamlit as st

from selftune import doors, lifeline, ui, web
from selftune.runtime import data_root

lifeline.tie()
web.believe_listed_proxies_only()
web.log_no_addresses()
FRAME = Path(web.__file__).resolve().parent / "frame.py"
ROOT = data_root()
BASE = "/" + path if (path := st.get_option("server.baseUrlPath").strip("/")) else ""
DOOR = doors.door(
    os.environ,
    address=st.get_option("server.address"),
    root=ROOT,
    note=lambda record: ui.desk(str(ROOT)).office.note(record),
)

app = st.App(
    FRAME,
    secrets=doors.secrets(DOOR),
    routes=web.routes(ROOT, DOOR, BASE),
    middleware=web.middleware(
        DOOR, doors.allowed_hosts(ROOT), peers=doors.governance(ROOT).proxy.peers, base=BASE
    ),
)
