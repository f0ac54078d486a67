"""The explorer in a real browser, Chromium: its own page, and the notebook in JupyterLab on
loopback; hands on keyboard and mouse.

The text of the page is compared with that of the model; what it shows, with the colours that the
model's rates have.
"""

from __future__ import annotations

import io
import itertools
import re
import subprocess
import sys
import time
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import xarray

# the harness is shared with the measurements and the screenshots
sys.path.insert(0, str(Path(__file__).parents[2]))

pytest.importorskip("playwright", reason="the browser test needs playwright: pip install 'fsp_dynamics[test]'")
pytest.importorskip("jupyterlab", reason="the browser test needs JupyterLab: pip install 'fsp_dynamics[notebook]'")

from PIL import Image
from playwright.sync_api import expect

from benchmarks import lab
from fsp_dynamics.explorer.model import Model
from fsp_dynamics.explorer.session import Session

pytestmark = [
    pytest.mark.rare,
    pytest.mark.slow,
    pytest.mark.cli,
    pytest.mark.xdist_group("browser"),  # one page, in turn
    pytest.mark.skipif(lab.chromium() is None, reason="no Chromium on this machine: install Debian's package chromium"),
]


PATIENCE = 30_000  # ms


@pytest.fixture(scope="module", params=["page", "notebook"])
def shown(explored_run, tmp_path_factory, request):
    """A real run in a browser window: the page of `fsp explore`, or the notebook."""
    with lab.window() as page:
        page.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        if request.param == "page":
            with lab.served(Model(Session.of(explored_run))) as server:
                page.visit(server.address)
                yield page
        else:
            with lab.started(tmp_path_factory.mktemp("lab"), run=explored_run.folder) as server:
                page.open(server)
                page.run_explorer()
                yield page


@pytest.fixture
def page(shown):
    """The page with every control at its default and no update applied."""
    shown.button("play").wait_for()
    if shown.button("forget").is_enabled():
        shown.after(lambda: shown.button("forget").click())
    shown.after(lambda: shown.button("reset").click())
    return shown


@pytest.fixture(scope="module")
def model(explored_run):
    return Model(Session.of(explored_run))


def expected_text(model: Model, **parameters) -> str:
    return model.frame(parameters).readouts["text"]


def reads(page, text: str) -> None:
    """The status line eventually shows exactly this: a busy machine may take a while, and a reply
    on its way is not the last one.
    """
    expect(page.readout()).to_have_text(text, use_inner_text=True, timeout=PATIENCE)


def wait_for_frames(page, seconds: float = 1.5) -> None:
    """Wait until no new frame has come for so long."""
    frame, since = page.data("frame"), time.monotonic()
    while time.monotonic() - since < seconds:
        page.page.wait_for_timeout(50)
        if page.data("frame") != frame:
            frame, since = page.data("frame"), time.monotonic()


def group_of(page, name: str) -> None:
    """Open the group of controls that holds this one."""
    page.control(name).evaluate("element => { element.closest('details').open = true; }")


def test_the_page_shows_the_frame_of_the_model(page, model) -> None:
    reads(page, expected_text(model))
    frame = model.frame({})
    figure = page.page.locator('figure[data-view="raster"]').first
    page.page.get_by_label("Enlarge Firing rates").click()  # units of several pixels
    figure.scroll_into_view_if_needed()
    box = figure.locator("canvas").first.bounding_box()
    viridis = np.array(matplotlib.colormaps["viridis"].colors)
    layers = {layer["name"]: k for k, layer in enumerate(model.about["layers"])}
    starts = np.cumsum([0, *(layer["shown"] for layer in model.about["layers"])])
    seen = []
    for across in (0.3, 0.5, 0.85):
        for down in (0.25, 0.4, 0.6, 0.75):
            x, y = int(box["x"] + across * box["width"]), int(box["y"] + down * box["height"])
            page.page.mouse.move(x + 0.5, y + 0.5)
            page.page.wait_for_timeout(60)
            probe = re.search(r"(hidden \d|output), unit (\d+), t = ([\d.]+): rate ([\d.]+)", figure.inner_text())
            if probe is None:
                continue
            layer, unit, t, rate = probe[1], int(probe[2]), float(probe[3]), float(probe[4])
            row = int(np.abs(frame["times"] - t).argmin())
            assert rate == pytest.approx(frame["rates"][row, starts[layers[layer]] + unit], abs=2e-3)
            page.page.mouse.move(box["x"] + 2, box["y"] + 2)
            page.page.wait_for_timeout(60)
            picture = Image.open(io.BytesIO(page.page.screenshot())).convert("RGB")
            column = (
                np.array([picture.getpixel((x, y + beside)) for beside in (-1, 0, 1)]) / 255
            )  # a unit may be narrower than two pixels
            near = np.linalg.norm(viridis[:, None] - column, axis=2)  # (256, 3)
            values = near.argmin(0) / 255
            best = np.abs(values - rate).argmin()
            seen.append((rate, values[best], near[:, best].min()))
    page.page.get_by_label("Firing rates: back to all views").click()
    assert len(seen) >= 6
    for rate, by_colour, distance in seen:
        assert distance < 0.08, "a colour of the map"
        assert by_colour == pytest.approx(rate, abs=0.08)
    assert np.ptp([rate for rate, _, _ in seen]) > 0.2, "points that differ"


def test_arrow_keys_move_a_slider(page, model) -> None:
    before = page.picture("output")
    slider = page.control("gain")
    for _ in range(4):
        page.after(lambda: slider.press("ArrowRight"))
    assert float(slider.input_value()) == pytest.approx(1.2)
    reads(page, expected_text(model, gain=1.2))
    assert page.picture("output") != before
    page.after(lambda: slider.press("Delete"))
    reads(page, expected_text(model))
    assert page.picture("output") == before


def test_frames_follow_a_slider_while_it_is_dragged(page, model) -> None:
    slider = page.control("beta")
    slider.scroll_into_view_if_needed()
    box, first = slider.bounding_box(), page.data("frame")
    y = box["y"] + box["height"] / 2
    begin = box["x"] + 7 + (1.9 / 2.9) * (box["width"] - 14)
    page.page.mouse.move(begin, y)
    page.page.mouse.down()
    frames, end = set(), time.monotonic() + PATIENCE / 1000
    for k in itertools.count(1):
        page.page.mouse.move(begin - 3 * min(k, 25) - k % 2, y)
        page.page.wait_for_timeout(20)
        frames.add(page.data("frame"))
        if k >= 25 and (len(frames - {first}) >= 3 or time.monotonic() > end):
            break
    page.page.mouse.up()
    beta = float(slider.input_value())
    assert beta < 0.6
    assert len(frames - {first}) >= 3, "the page lives while a slider is dragged"
    reads(page, expected_text(model, beta=beta))


def test_the_slider_snaps_to_no_nudge(page, model) -> None:
    slider = page.control("beta")
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    zero = box["x"] + 7 + (0.9 / 2.9) * (box["width"] - 14)
    page.after(lambda: page.page.mouse.click(zero + 1, box["y"] + box["height"] / 2))
    assert float(slider.input_value()) == 0
    reads(page, expected_text(model, beta=0.0))


def test_one_update_is_applied_and_forgotten(page, explored_run) -> None:
    own = Model(Session.of(explored_run))
    before = expected_text(own)
    page.after(lambda: page.button("learn").click())
    own.learn({})
    assert expected_text(own) != before
    reads(page, expected_text(own))
    page.after(lambda: page.button("learn").click())
    own.learn({})
    reads(page, expected_text(own))
    page.after(lambda: page.button("forget").click())
    reads(page, before)


def test_checkpoints_are_scrubbed_through(page, model, explored_run) -> None:
    group_of(page, "epoch")
    slider = page.control("epoch")
    for epoch in (0, 2, 4):
        page.after(lambda epoch=epoch: slider.fill(str(epoch)))
        reads(page, expected_text(model, epoch=epoch))
        network = explored_run.network(epoch)
        loop = re.search(
            r"loop:? ?([\d.]+)",
            page.page.locator('figure[data-view="alignment"] canvas[role="img"]').first.get_attribute("aria-label"),
        )
        assert loop is not None
        from fsp_dynamics.analysis.alignment import loop_alignment

        assert float(loop[1]) == pytest.approx(loop_alignment(network).degrees["loop"], abs=0.06)


def test_a_drawing_takes_the_place_of_the_image(page, model) -> None:
    pad = page.page.locator('canvas[data-name="drawing"]').first
    pad.scroll_into_view_if_needed()
    box = pad.bounding_box()
    page.page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.15 * box["height"])
    page.page.mouse.down()
    for k in range(1, 11):
        page.page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + (0.15 + 0.07 * k) * box["height"])
    page.page.mouse.up()
    expect(page.readout()).to_have_text(re.compile(r"^Drawing\. Free: "), use_inner_text=True, timeout=PATIENCE)
    wait_for_frames(page)
    by_mouse = page.text()
    for key in ("ArrowLeft", "ArrowUp"):
        for _ in range(8):
            pad.press(key)
    page.after(lambda: pad.press("Space"))  # in a corner, where the mouse has not been
    assert page.text().startswith("Drawing. Free: ")
    assert page.text() != by_mouse
    page.after(lambda: page.control("label", "select").select_option("3"))
    assert "Nudged towards 3" in page.text()
    assert "Nudged" not in by_mouse


def test_invalid_values_are_reported_and_the_views_stay(page, model) -> None:
    page.after(lambda: page.control("r").fill("2"))
    kept = page.text()
    page.control("beta").fill("-0.9")
    alert = page.page.locator('[role="alert"]').filter(has_text="beta")
    alert.first.wait_for()
    assert alert.first.inner_text().startswith("beta = -0.9, expected above -0.5 (-1/r of the output)")
    assert page.text() == kept == expected_text(model, r=2.0)
    page.after(lambda: page.control("beta").fill("-0.4"))
    reads(page, expected_text(model, r=2.0, beta=-0.4))
    assert alert.count() == 0


def test_the_sweep_fills_while_the_page_lives(page, model) -> None:
    page.after(lambda: page.control("gain").press("ArrowRight"))
    drawer = page.page.locator("summary").filter(has_text=re.compile("sweep", re.I)).first
    drawer.click()
    page.page.wait_for_timeout(100)
    page.after(lambda: page.control("gain").press("ArrowRight"))
    reads(page, expected_text(model, gain=1.1))
    page.page.locator(lab.EXPLORER).first.get_by_text(re.compile("complete")).first.wait_for(timeout=30_000)
    assert "loop" in drawer.inner_text()
    drawer.click()


def test_playing_moves_the_cursor_without_requests(page) -> None:
    frame, before = page.data("frame"), page.picture("ring")
    page.page.locator('input[data-name="time"]').first.fill("0")
    page.button("play").click()
    page.page.wait_for_timeout(600)
    page.button("play").click()
    assert float(page.page.locator('input[data-name="time"]').first.input_value()) > 0
    assert page.picture("ring") != before
    assert page.data("frame") == frame


def test_what_is_seen_can_be_saved(page, model, tmp_path: Path) -> None:
    with page.page.expect_download() as started:
        page.button("netcdf").click()
    started.value.save_as(tmp_path / "path.nc")
    with xarray.open_dataset(tmp_path / "path.nc") as table:
        np.testing.assert_allclose(table["rate_output"][:, 0], model.path({}).rates[-1][:, 0], atol=1e-6)
    with page.page.expect_download() as started:
        page.button("png").click()
    started.value.save_as(tmp_path / "views.png")
    with Image.open(tmp_path / "views.png") as picture:
        assert min(picture.size) >= 600
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 200
    page.button("code").click()
    copied = "async code => await navigator.clipboard.readText() === code"
    page.page.wait_for_function(copied, arg=model.frame({}).readouts["code"], timeout=PATIENCE)


def test_everything_has_a_name_and_can_be_reached(page) -> None:
    unnamed = page.page.locator(lab.EXPLORER).first.evaluate(
        """root => [...root.querySelectorAll('input, select, button, canvas')]
            .filter(e => e.getAttribute('aria-hidden') !== 'true').filter(e =>
            !(e.labels && e.labels.length) && !e.getAttribute('aria-label')
            && !e.getAttribute('aria-labelledby') && !e.textContent.trim()
        ).map(e => e.outerHTML.slice(0, 120))"""
    )
    assert unnamed == []
    page.control("sample").focus()
    names = set()
    for _ in range(60):
        page.page.keyboard.press("Tab")
        names.add(
            page.page.evaluate("document.activeElement.dataset.name ?? document.activeElement.dataset.action ?? ''")
        )
    assert {
        "noise",
        "drawing",
        "integrator",
        "dt",
        "gain",
        "beta",
        "nudged",
        "time",
        "learn",
        "code",
        "png",
        "netcdf",
    } <= names


def test_two_columns_or_one_nothing_is_cut_off(page) -> None:
    try:
        for width in (1400, 900, 600):
            page.page.set_viewport_size({"width": width, "height": 800})
            page.page.wait_for_timeout(300)
            over = page.page.locator(lab.EXPLORER).first.evaluate("e => e.scrollWidth - e.clientWidth")
            assert over <= 1, f"{over} pixels too wide at {width}"
    finally:
        page.page.set_viewport_size({"width": 1400, "height": 900})


@pytest.mark.parametrize(("width", "height", "views"), [(1366, 768, 5), (900, 700, 2)])
def test_views_are_seen_beside_the_controls(page, width: int, height: int, views: int) -> None:
    """In a notebook too, whose toolbars take some of the window."""
    try:
        page.page.set_viewport_size({"width": width, "height": height})
        page.page.wait_for_timeout(500)
        page.page.locator(lab.EXPLORER).first.evaluate("e => e.scrollIntoView({ block: 'start' })")
        slider = page.control("beta")
        slider.scroll_into_view_if_needed()
        page.after(lambda: slider.press("ArrowRight"))
        expect(slider).to_be_in_viewport(ratio=1)
        assert len(page.page.evaluate(lab.SEEN)) >= views
    finally:
        page.page.set_viewport_size({"width": 1400, "height": 900})


def test_screenshots_are_taken(explored_run, tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from figures import explorer; "
        f"explorer.main({str(explored_run.folder)!r}, Path({str(tmp_path)!r}), ['narrow'])"
    )
    subprocess.run([sys.executable, "-c", code], cwd=lab.ROOT, check=True, timeout=120)
    with Image.open(tmp_path / "explorer-narrow.png") as picture:
        assert picture.size == (900, 700)
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 200


def test_the_console_stays_clean(page) -> None:
    """Last: nothing above has logged an error or a warning (on a busy machine JupyterLab warns that
    it is slow).
    """
    slow = re.compile(r"^warning: Plugin \S+ (\(.*\) took|is taking too long)")
    messages = [line for line in page.messages if line.split(":")[0] in ("error", "warning")]
    assert [line for line in messages if not slow.match(line)] == []
