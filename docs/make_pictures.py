"""Makes the picture of TensorBoard in the README: python docs/make_pictures.py.

Trains config.json for a few epochs, starts a TensorBoard server on the run, and opens it in a headless Chromium. Wants
`pip install playwright`, and a Chromium: `playwright install chromium`, or one of the system.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
PAGES = {"custom_scalars": 800, "images": 900}  # each with its height in pixels
WIDTH, ZOOM, SETTLED_MS = 1500, 1, 8000


def main() -> None:
    """Write docs/tensorboard.png."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        sys.exit("pip install playwright && playwright install chromium")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        settings = [f"trainer.save_dir={folder}", "trainer.epochs=12", "trainer.log_every_steps=5"]
        command = [sys.executable, "train.py", "-c", "config.json", *(arg for s in settings for arg in ("--set", s))]
        subprocess.run(command, cwd=ROOT, check=True)
        chromium = shutil.which("chromium") or shutil.which("chromium-browser")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        with _served(folder) as address:
            shots = []
            for name, height in PAGES.items():
                page = browser.new_page(viewport={"width": WIDTH, "height": height}, device_scale_factor=ZOOM)
                page.goto(f"{address}/#{name}")
                page.wait_for_timeout(SETTLED_MS)  # TensorBoard says nowhere that it has drawn everything
                shots.append(Image.open(BytesIO(page.screenshot())).convert("RGB"))
                page.close()
        browser.close()
    picture = Image.new("RGB", (WIDTH * ZOOM, sum(shot.height for shot in shots)))
    for index, shot in enumerate(shots):
        picture.paste(shot, (0, sum(above.height for above in shots[:index])))
    picture.quantize(256).save(ROOT / "docs" / "tensorboard.png", optimize=True)


@contextmanager
def _served(folder: str) -> Iterator[str]:
    """Start TensorBoard on `folder`; yield its address when it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", folder, "--port", str(port), "--load_fast=false"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{address}/data/runs", timeout=10).close()
                break
            except OSError:
                time.sleep(0.2)
        yield address
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
