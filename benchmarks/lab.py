"""The explorer in a browser, as a page of its own or in a local JupyterLab: for tests, measurements
and screenshots.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fsp_dynamics.experiments.notebook import NOTEBOOK, RUN
from fsp_dynamics.explorer.model import Model
from fsp_dynamics.explorer.server import PageServer

ROOT = Path(__file__).parents[1]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    *("--no-sandbox", "--headless", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-quic"),
)
EXPLORER = "[data-frame]"
# the views of which all is inside their scrolling area and the window
SEEN = """() => {
    const area = document.querySelector('.fsp-area').getBoundingClientRect();
    return [...document.querySelectorAll('.fsp-views figure')].filter((figure) => {
        const box = figure.getBoundingClientRect();
        return box.width > 0 && box.top >= area.top - 1 && box.bottom <= Math.min(area.bottom, innerHeight) + 1;
    }).map((figure) => figure.dataset.view);
}"""
# no news, no update checks, no notifications
QUIET = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "docmanager-extension/plugin": {"autosave": False},
    "notebook-extension/tracker": {"windowingMode": "none"},
}


def chromium() -> str | None:
    """The path of a Chromium on this machine, or None."""
    return next((found for name in BROWSERS if (found := shutil.which(name))), None)


@dataclass(slots=True)
class Lab:
    """A running JupyterLab in its own folder. Use it as `with started(folder) as lab`."""

    folder: Path
    port: int
    token: str
    server: subprocess.Popen[bytes]

    def address(self, notebook: str) -> str:
        """The address of a notebook in the folder, shown without the rest of JupyterLab."""
        return f"http://127.0.0.1:{self.port}/doc/tree/{notebook}?token={self.token}"


@contextlib.contextmanager
def started(folder: Path, *, run: Path | None = None, dark: bool = False) -> Iterator[Lab]:
    """JupyterLab on the loopback interface with the notebook of the explorer, and $FSP_RUN if a run
    is given. Raises TimeoutError if it does not start.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / NOTEBOOK, folder)
    settings = folder / "settings" / "@jupyterlab"
    for name, content in {
        **QUIET,
        "apputils-extension/themes": {"theme": f"JupyterLab {'Dark' if dark else 'Light'}"},
    }.items():
        path = settings / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    own = {f"JUPYTER_{name}_DIR": str(folder / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
    own |= {
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
    }
    environment = {**os.environ, **own, **({RUN: str(run.resolve())} if run else {})}
    port, token = _free_port(), secrets.token_hex(16)
    options = [
        f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0",
        "--ServerApp.ip=127.0.0.1",
        f"--IdentityProvider.token={token}",
    ]
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        "--allow-root",
        f"--ServerApp.root_dir={folder}",
        *options,
    ]
    with (folder / "lab.log").open("wb") as log:
        server = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
        lab = Lab(folder, port, token, server)
        try:
            _wait(lab)
            yield lab
        finally:
            server.terminate()
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()


@contextlib.contextmanager
def served(model: Model) -> Iterator[PageServer]:
    """The page of this model, as `fsp explore` serves it, from a thread."""
    with PageServer(model) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@dataclass(slots=True)
class Page:
    """The explorer in a browser window. `page` is Playwright's; `messages` are those of the
    console.
    """

    page: Any
    messages: list[str] = field(default_factory=list)

    def listen(self) -> None:
        """Keep the messages of the console."""
        self.page.on("console", lambda message: self.messages.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.messages.append(f"error: {error}"))

    def visit(self, address: str) -> None:
        """Load the explorer's own page and wait for its first frame."""
        self.listen()
        self.page.goto(address)
        self.page.wait_for_selector(EXPLORER, timeout=120_000)

    def open(self, lab: Lab) -> None:
        """Load the notebook and wait for its kernel."""
        self.listen()
        self.page.goto(lab.address(NOTEBOOK.name))
        self.page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
        connected = "document.querySelector('.jp-Toolbar-kernelName')?.textContent.startsWith('Python 3')"
        self.page.wait_for_function(connected, timeout=60_000)
        self.page.wait_for_selector('.jp-Notebook-ExecutionIndicator[data-status="idle"]', timeout=60_000)

    def run_explorer(self) -> float:
        """Run the first code cell, which shows the explorer; returns the seconds until its first
        frame is drawn.
        """
        cell = self.page.locator(".jp-CodeCell").first
        # an idle kernel may not be connected yet, and then nothing runs
        for _ in range(20):
            cell.locator(".cm-content").click()
            begin = time.perf_counter()
            self.page.keyboard.press("Shift+Enter")
            self.page.wait_for_timeout(300)
            if cell.locator(".jp-InputPrompt").inner_text().strip() != "[ ]:":
                break
        self.page.wait_for_selector(EXPLORER, timeout=120_000)
        seconds = time.perf_counter() - begin
        self.page.locator(EXPLORER).first.scroll_into_view_if_needed()
        return seconds

    def data(self, name: str) -> str:
        """A data attribute of the explorer: `frame`, the id of the last frame drawn, or `latency`,
        ms from input to pixels.
        """
        return str(self.page.locator(EXPLORER).first.get_attribute(f"data-{name}"))

    def after(self, act: Any, timeout: float = 30.0) -> float:
        """Call `act` and wait for a new frame; its latency in milliseconds. Raises TimeoutError if
        there is none.
        """
        before, end = self.data("frame"), time.perf_counter() + timeout
        act()
        while self.data("frame") == before:
            if time.perf_counter() > end:
                raise TimeoutError(f"no new frame in {timeout} s after frame {before}")
            self.page.wait_for_timeout(5)
        return float(self.data("latency"))

    def control(self, name: str, kind: str = "range") -> Any:
        """The input element of a parameter: its slider, or by `kind` its number or its list
        ("select").
        """
        selector = f'select[data-name="{name}"]' if kind == "select" else f'input[type="{kind}"][data-name="{name}"]'
        return self.page.locator(EXPLORER).first.locator(selector)

    def button(self, action: str) -> Any:
        return self.page.locator(EXPLORER).first.locator(f'[data-action="{action}"]')

    def readout(self) -> Any:
        """The status line."""
        return self.page.locator(EXPLORER).first.locator('[data-role="readout"]')

    def text(self) -> str:
        """The text of the status line."""
        return str(self.readout().inner_text())

    def picture(self, view: str) -> bytes:
        """A screenshot of a view, PNG."""
        return bytes(self.page.locator(EXPLORER).first.locator(f'figure[data-view="{view}"]').screenshot())


@contextlib.contextmanager
def window(width: int = 1400, height: int = 900, dark: bool = False, zoom: float = 1) -> Iterator[Page]:
    """A browser window of that size, in pixels of the screen. Raises FileNotFoundError without
    Chromium.
    """
    from playwright.sync_api import sync_playwright

    found = chromium()
    if found is None:
        raise FileNotFoundError(f"none of {', '.join(BROWSERS)} is on the PATH; install Debian's package chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=list(FLAGS))
        try:
            page = browser.new_page(
                viewport={"width": round(width / zoom), "height": round(height / zoom)},
                device_scale_factor=zoom,
                color_scheme="dark" if dark else "light",
                accept_downloads=True,
            )
            yield Page(page)
        finally:
            browser.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(lab: Lab, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and lab.server.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{lab.port}/api?token={lab.token}", timeout=5).read()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise TimeoutError(
        f"JupyterLab did not answer within {seconds:.0f} s: {(lab.folder / 'lab.log').read_text()[-2000:]}"
    )
