"""A real JupyterLab in a real browser for the tests that drive widgets, and how their parts are moved and read."""

import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CHROMIUM

from twodmse import Encoder

sync_api = pytest.importorskip("playwright.sync_api")
expect = sync_api.expect
PATIENCE = 60_000  # milliseconds a change may take on a busy machine
READY = "window.jupyterapp?.shell.currentWidget?.sessionContext?.isReady"


class Lab:
    """A server over a folder of its own, and the browser that opens its notebooks."""

    def __init__(self, home: Path, address: str, token: str, browser: Any) -> None:
        self.home, self.address, self.token, self.browser = home, address, token, browser

    def run_all(self, notebook: str) -> Any:
        """The page of a notebook in the folder after "run all", in a window 1200 px wide."""
        page = self.browser.new_page(viewport={"width": 1200, "height": 1500})
        page.set_default_timeout(PATIENCE)
        page.goto(f"{self.address}/doc/tree/{notebook}?reset&token={self.token}")
        page.wait_for_function(READY)
        assert page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')"), "a cell failed"
        return page


@contextmanager
def started(home: Path) -> Iterator[Lab]:
    """Server and browser over a folder: the checkout, and the reader's own settings, are never touched."""
    (home / "tmp").mkdir()
    config = home / ".j_CONFIG" / "labconfig"  # switches off a pop-up about news
    config.mkdir(parents=True)
    (config / "page_config.json").write_text(
        '{"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": true}}'
    )
    kinds = ("_CONFIG", "_DATA", "_RUNTIME", "LAB_SETTINGS", "LAB_WORKSPACES")
    env = os.environ | {f"JUPYTER{kind}_DIR": str(home / f".j{kind}") for kind in kinds}
    env |= {"TMPDIR": str(home / "tmp")}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address, token = f"http://127.0.0.1:{free.getsockname()[1]}", secrets.token_hex(16)
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--expose-app-in-browser",
        "--ip=127.0.0.1", f"--port={address.rsplit(':')[-1]}", "--ServerApp.port_retries=0",
        f"--ServerApp.root_dir={home}", f"--IdentityProvider.token={token}",
    ]  # fmt: skip
    with open(home / "lab.log", "w") as log:
        server = subprocess.Popen(command, env=env, stdout=log, stderr=log)
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{address}/api/status?token={token}", timeout=5).close()
                break
            except OSError:
                assert server.poll() is None, (home / "lab.log").read_text()
                time.sleep(0.2)
        expect.set_options(timeout=PATIENCE)
        with sync_api.sync_playwright() as p, p.chromium.launch(**CHROMIUM) as browser:
            yield Lab(home, address, token, browser)
    finally:
        server.terminate()  # the server ends its kernels too
        server.wait(30)


def press(view: Any, slider: str, key: str, times: int = 1) -> None:
    """One step a press: on the layer's slider, or in the box beside the dim's, which is the exact one."""
    for _ in range(times):
        if slider == "dim":
            view.locator(".twodmse-dim-box input").press({"ArrowRight": "ArrowUp", "ArrowLeft": "ArrowDown"}[key])
        else:
            view.locator(f".twodmse-{slider} .noUi-handle").press(key)


def go_to(view: Any, layer: int, dim: int, prefix: str = "") -> None:
    """Type the cell into the boxes: no test leans on where the one before left the view."""
    for box, value in ((f"{prefix}layer .widget-readout", layer), (f"{prefix}dim-box input", dim)):
        view.locator(f".twodmse-{box}").fill(str(value))
        view.locator(f".twodmse-{box}").press("Enter")


def typed(view: Any, box: str) -> str:
    return view.locator(f".twodmse-{box} input").input_value()


def numbers(view: Any) -> list[float]:
    return [float(words) for words in view.locator(".twodmse-number").all_inner_texts()]


def cosine_of(encoder: Encoder, texts: list[str], layer: int, dim: int) -> float:
    first, second = encoder.encode(texts, layer, dim).astype(np.float64)
    return float(first @ second)
