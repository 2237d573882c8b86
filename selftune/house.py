"""Where the parts lie that are no modules: launcher, pages, Streamlit's own settings.

Answers "from which folder is the dashboard served?": the checkout, or `launch/` in an installed package,
which holds the same files (pyproject.toml, packages).
"""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
HOUSE = PACKAGE / "launch" if (PACKAGE / "launch").is_dir() else PACKAGE.parent
APP = HOUSE / "app.py"
PAGES = HOUSE / "pages"
