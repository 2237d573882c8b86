"""Pictures of every page (language, theme, width) into the git-ignored `shots/`: `make shots`.

Serves a data root of its own on loopback, so that what is shown does not depend on this machine's.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from itertools import product
from pathlib import Path

from playwright.sync_api import sync_playwright

from tests.browser.conftest import CHROMIUM_ARGS, data_root, serve
from tests.browser.test_smoke import PATHS, PHONE, SIZES
from tests.conftest import CHECKOUT


def main() -> int:
    """0 when every picture was taken."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if not chromium:
        print(
            "no Chromium on this machine: on Debian 'apt-get install chromium fonts-noto-cjk'",
            file=sys.stderr,
        )
        return 1
    out = CHECKOUT / "shots"
    out.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        process, url = serve(data_root(Path(folder) / "root", 40), Path(folder) / "server.log")
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGS)
        try:
            for name, language, scheme, size in product(PATHS, ("ko", "en"), ("light", "dark"), SIZES):
                width, height = SIZES[size]
                page = browser.new_context(
                    viewport={"width": width, "height": height},
                    color_scheme="dark" if scheme == "dark" else "light",
                    locale="ko-KR" if language == "ko" else "en-US",
                    user_agent=PHONE if size == "phone" else None,
                ).new_page()
                page.goto(url + PATHS[name])
                page.wait_for_selector("h1", timeout=30_000)
                page.wait_for_timeout(1500)
                whole = page.evaluate("() => document.querySelector('[data-testid=stMain]').scrollHeight")
                page.set_viewport_size({"width": width, "height": min(4000, max(height, whole))})
                page.wait_for_timeout(700)
                page.screenshot(path=out / f"{name}_{language}_{scheme}_{size}.png")
                page.context.close()
        finally:
            browser.close()
            process.terminate()
            process.wait(timeout=20)
    print(f"pictures in {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
