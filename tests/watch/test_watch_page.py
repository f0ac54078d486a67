"""The page of `fsp watch --browser`: who reaches it, what it answers, and what a browser shows."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

import pytest
from made_runs import made_run

from fsp_dynamics import loopback
from fsp_dynamics.cli import main
from fsp_dynamics.experiments.watching import QUANTITIES, Watch
from fsp_dynamics.watch.server import WatchServer

sys.path.insert(0, str(Path(__file__).parents[2]))  # the harness is shared with the measurements
from benchmarks import lab

MORE = {"residual": 2e-5, "images_per_second": 900.0}


@pytest.fixture
def folder(tmp_path):
    return made_run(tmp_path / "runs" / "a", done=3, status="unfinished", last=MORE)


@pytest.fixture
def page(folder):
    with WatchServer(Watch([folder.parent]), every=0.2) as served:
        thread = threading.Thread(target=served.serve_forever, args=(0.05,))
        thread.start()
        yield served
        served.shutdown()
        thread.join()


def grow(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(lines[-1].replace(f'"epoch": {len(lines)}', f'"epoch": {len(lines) + 1}') + "\n")


def ask(page, path, body=None):
    connection = http.client.HTTPConnection(*page.server_address[:2], timeout=60)
    connection.request("GET" if body is None else "POST", path, body)
    answer = connection.getresponse()
    return answer.status, answer.headers, answer.read()


def test_the_page_is_whole_and_the_runs_are_as_they_are_now(page, folder):
    status, headers, content = ask(page, f"/{page.secret}/")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert "default-src 'self'" in headers["Content-Security-Policy"]
    for name in ("watch.css", "watch.js"):
        assert name.encode() in content
        assert ask(page, f"/{page.secret}/{name}")[0] == 200
    assert b"http" not in content.replace(b"http-equiv", b""), "nothing from elsewhere"
    for epochs in (3, 4):
        found = json.loads(ask(page, f"/{page.secret}/runs.json")[2])
        assert [chart["name"] for chart in found["charts"]] == [quantity.name for quantity in QUANTITIES]
        assert (found["runs"][0]["epochs"], len(found["runs"][0]["lines"]["error"]["test"])) == (epochs, epochs)
        grow(folder)


@pytest.mark.parametrize("path", ["/", "/runs.json", "/wrong/runs.json", "/{secret}", "/{secret}/../runs.json"])
def test_without_the_secret_there_is_nothing(page, path):
    status, _, content = ask(page, path.format(secret=page.secret))
    assert status == 404
    assert page.secret.encode() not in content


def test_the_page_takes_no_message(page):
    assert ask(page, f"/{page.secret}/message", b"{}")[0] == 404
    assert page.server_address[0] == "127.0.0.1"


def test_the_command_opens_the_page_and_ends_with_ctrl_c(folder, monkeypatch, capsys):
    opened, served = threading.Event(), []

    def interrupted(self):
        served.append(self.address)
        assert opened.wait(60)
        raise KeyboardInterrupt

    monkeypatch.setattr(WatchServer, "serve_forever", interrupted)
    monkeypatch.setattr(loopback.webbrowser, "open", lambda address: opened.set())
    assert main(["watch", str(folder), "--browser"]) == 0
    assert f"the runs are at {served[0]} (Ctrl-C ends it)" in capsys.readouterr().err
    opened.set()
    monkeypatch.setattr(loopback.webbrowser, "open", lambda _: pytest.fail("a browser was opened"))
    assert main(["watch", str(folder), "--browser", "--no-open"]) == 0


@pytest.mark.cli
def test_a_served_page_ends_cleanly_on_ctrl_c(folder):
    words = [sys.executable, "-m", "fsp_dynamics", "watch", str(folder), "--browser", "--no-open"]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env={**os.environ})
    try:
        address = process.stderr.readline().split()[4]
        with urllib.request.urlopen(f"{address}runs.json", timeout=60) as answer:
            assert json.load(answer)["runs"][0]["epochs"] == 3
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert process.stderr.read() == ""
    finally:
        process.kill()


@pytest.mark.rare
@pytest.mark.slow
@pytest.mark.skipif(lab.chromium() is None, reason="no Chromium on this machine: install Debian's package chromium")
def test_a_browser_draws_the_runs_and_what_is_added(page, folder):
    sync_api = pytest.importorskip("playwright.sync_api")
    made_run(folder.parent / "b", seed=1, test=5.0, last=MORE)
    with sync_api.sync_playwright() as player:
        browser = player.chromium.launch(executable_path=lab.chromium(), args=["--no-sandbox"])
        shown = browser.new_page(viewport={"width": 1100, "height": 800})
        problems = []
        shown.on("pageerror", lambda error: problems.append(str(error)))
        shown.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        shown.goto(page.address)
        expect = sync_api.expect
        expect(shown.locator("figure")).to_have_count(len(QUANTITIES), timeout=30_000)
        first = shown.locator("tbody tr").first
        expect(first).to_contain_text("3 of 20")
        lines = shown.locator("figure[data-chart=error] svg[role=img] path")
        expect(lines).to_have_count(6)
        grow(folder)
        expect(first).to_contain_text("4 of 20", timeout=30_000)
        shown.locator("tbody input").first.uncheck()
        expect(lines).to_have_count(3)
        shown.locator("figure[data-chart=error] svg[role=img]").hover()
        expect(shown.locator("figure[data-chart=error] .tip")).to_contain_text("b test  5.25")
        if os.environ.get("FSP_PICTURES"):
            shown.locator("tbody input").first.check()
            shown.screenshot(path=os.environ["FSP_PICTURES"], full_page=True)
        page.secret = "another"  # as of another server at the same port
        expect(shown.locator("#state")).to_contain_text("has ended", timeout=30_000)
        assert [each for each in problems if "404" not in each] == []
        browser.close()


@pytest.mark.rare
@pytest.mark.slow
@pytest.mark.skipif(lab.chromium() is None, reason="no Chromium on this machine: install Debian's package chromium")
@pytest.mark.parametrize(
    ("width", "height", "zoom", "whole"), [(1366, 768, 1, 4), (1920, 1080, 1, 4), (1366, 768, 1.5, 2)]
)
def test_charts_are_whole_in_the_window_and_no_column_is_cut(page, folder, width, height, zoom, whole):
    made_run(folder.parent / "b", seed=1, test=5.0, last=MORE)
    sync_api = pytest.importorskip("playwright.sync_api")
    with lab.window(width, height, zoom=zoom) as shown:
        shown.page.goto(page.address)
        sync_api.expect(shown.page.locator("tbody tr")).to_have_count(2, timeout=30_000)
        boxes = [figure.bounding_box() for figure in shown.page.locator("figure").all()]
        assert sum(box["y"] + box["height"] <= round(height / zoom) for box in boxes) >= whole
        scroll = shown.page.locator(".scroll")
        assert scroll.evaluate("e => e.scrollWidth <= e.clientWidth")
