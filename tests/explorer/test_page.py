"""What is seen of the explorer, and how it is opened, in a real browser at several sizes of the
window: how many views beside the controls, no label cut, views hidden and enlarged.
"""

from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))  # the harness is shared with the measurements and the screenshots

pytest.importorskip("playwright", reason="the browser test needs playwright: pip install 'fsp_dynamics[test]'")

from PIL import Image
from playwright.sync_api import expect

import fsp_dynamics as fsp
from benchmarks import lab
from fsp_dynamics.explorer.model import Model
from fsp_dynamics.explorer.session import Session

ROOT = Path(__file__).parents[2]
PATIENCE = 60_000  # ms
pytestmark = [
    pytest.mark.rare,
    pytest.mark.slow,
    pytest.mark.cli,
    pytest.mark.xdist_group("browser"),  # one page, in turn
    pytest.mark.skipif(lab.chromium() is None, reason="no Chromium on this machine: install Debian's package chromium"),
]

CUT = """() => {
    const drawn = [...document.querySelectorAll('figure')].map(({ dataset }) => dataset.cut).filter((cut) => cut);
    const kinds = ':is(label, button, summary, .fsp-caption, .fsp-heading span)';
    const written = [...document.querySelectorAll(`.fsp-explorer ${kinds}`)].filter((e) => e.clientWidth > 0);
    return drawn.concat(written.filter((e) => e.scrollWidth > e.clientWidth + 1).map((e) => e.textContent));
}"""

# from now on every canvas knows the boxes of the words drawn on it since it was cleared
BOXES = """(() => {
    const { clearRect, fillText } = CanvasRenderingContext2D.prototype;
    Object.assign(CanvasRenderingContext2D.prototype, {
        clearRect(...area) {
            this.canvas.words = [];
            clearRect.apply(this, area);
        },
        fillText(text, x, y) {
            const box = this.measureText(text);
            const [left, right] = [x - box.actualBoundingBoxLeft, x + box.actualBoundingBoxRight];
            const [top, bottom] = [y - box.actualBoundingBoxAscent, y + box.actualBoundingBoxDescent];
            this.canvas.words?.push({ text, left, right, top, bottom });
            fillText.call(this, text, x, y);
        },
    });
})()"""
# words of one view that lie over each other, and words that reach over the edge of their canvas
COVERED = """() => [...document.querySelectorAll('.fsp-views figure')].flatMap((figure) => {
    const canvases = [...figure.querySelectorAll('canvas')];
    const words = canvases.flatMap((canvas) => (canvas.words ?? []).filter(({ text }) => text.trim()));
    const shared = (a, b, from, to) => Math.min(a[to], b[to]) - Math.max(a[from], b[from]);
    const pairs = words.flatMap((a, n) => words.slice(0, n).filter((b) =>
        shared(a, b, 'left', 'right') > 1 && shared(a, b, 'top', 'bottom') > 1).map((b) => `${b.text} | ${a.text}`));
    const { clientWidth, clientHeight } = canvases[0];
    const outside = words.filter(({ left, top, right, bottom }) =>
        left < -1 || top < -1 || right > clientWidth + 1 || bottom > clientHeight + 1);
    const found = [...pairs, ...outside.map(({ text }) => `${text} at the edge`)];
    return found.map((text) => `${figure.dataset.view}: ${text}`);
})"""
DRAWN = "[...document.querySelectorAll('.fsp-views canvas')].flatMap((canvas) => canvas.words ?? []).length"


@pytest.fixture(scope="module", params=["random", "run"])
def served(request, explored_run):
    with lab.served(Model(Session.of(explored_run if request.param == "run" else None))) as server:
        yield server


@pytest.fixture
def opened(served, request):
    """The page in a window of the given width, height and zoom."""
    width, height, zoom = getattr(request, "param", (1366, 768, 1))
    with lab.window(width, height, zoom=zoom) as page:
        page.page.add_init_script(BOXES)
        page.visit(served.address)
        yield page


def at(*sizes: tuple[float, ...]):
    return pytest.mark.parametrize(
        ("opened", "views"), [(size[:3], size[3]) for size in sizes], indirect=["opened"], ids=str
    )


@at(
    (1366, 768, 1, 8),
    (1400, 900, 1, 8),
    (1920, 1080, 1, 8),
    (900, 700, 1, 4),
    (1366, 768, 1.5, 4),
    (1400, 900, 1.5, 4),
    (900, 700, 1.5, 2),
)
def test_views_are_seen_beside_the_control_in_hand(opened, views: int) -> None:
    """While any slider is moved, the views stay where they are."""
    assert len(opened.page.evaluate(lab.SEEN)) >= views
    for name in ("sample", "beta", "gain", "r"):
        slider = opened.control(name)
        slider.scroll_into_view_if_needed()
        opened.after(lambda slider=slider: slider.press("ArrowRight"))
        assert len(opened.page.evaluate(lab.SEEN)) >= views, f"with {name} in hand"
        expect(slider).to_be_in_viewport(ratio=1)
    assert opened.page.evaluate("document.documentElement.scrollHeight <= innerHeight"), "the page itself never scrolls"


@at(
    (1100, 800, 1, 0),
    (1366, 768, 1, 0),
    (1180, 700, 1, 0),
    (1250, 700, 1, 0),
    (900, 700, 1, 0),
    (860, 700, 1, 0),
    (1366, 768, 1.5, 0),
    (1400, 900, 1.5, 0),
    (900, 700, 1.5, 0),
)
def test_no_label_is_cut_or_covered(opened, views: int) -> None:
    assert opened.page.evaluate(CUT) == []
    assert opened.page.evaluate(DRAWN) > 50
    assert opened.page.evaluate(COVERED) == []
    opened.after(lambda: opened.control("nudged").fill("1"))
    opened.after(lambda: opened.control("free").fill("3"))
    assert "needs about" in opened.text()
    assert opened.page.evaluate(CUT) == []


def test_a_view_is_hidden_and_brought_back(opened) -> None:
    before = opened.picture("output")
    opened.page.get_by_label("Hide Firing rates").click()
    opened.page.get_by_label("Hide Spectrum").click()
    assert set(opened.page.evaluate(lab.SEEN)).isdisjoint({"raster", "spectrum"})
    opened.page.get_by_text("Views", exact=True).click()
    opened.page.get_by_label("Spectrum", exact=True).check()
    assert "spectrum" in opened.page.evaluate(lab.SEEN)
    opened.button("all").click()
    opened.page.mouse.click(5, 5)
    assert len(opened.page.evaluate(lab.SEEN)) == 8
    assert opened.picture("output") == before


def test_the_last_view_stays(opened) -> None:
    for title in ("Network at the cursor", "Firing rates", "Output", "Settling", "Path in a plane", "Spectrum"):
        opened.page.get_by_label(f"Hide {title}").click()
    opened.page.get_by_label("Hide Update of each matrix").click()
    assert opened.page.evaluate(lab.SEEN) == ["alignment"]
    expect(opened.page.get_by_label("Hide Alignment")).to_be_hidden()
    opened.page.get_by_text("Views", exact=True).click()
    expect(opened.page.get_by_label("Alignment", exact=True)).to_be_disabled()


def test_a_view_is_enlarged_and_reduced(opened) -> None:
    figure = opened.page.locator('figure[data-view="settling"]')
    small = figure.bounding_box()
    opened.page.get_by_label("Enlarge Settling").click()
    assert opened.page.evaluate(lab.SEEN) == ["settling"]
    large = figure.bounding_box()
    assert large["width"] > 2.5 * small["width"]
    assert large["height"] > 2.5 * small["height"]
    canvas = figure.locator("canvas").first
    assert canvas.evaluate("e => e.width === Math.round(e.clientWidth * devicePixelRatio)"), "drawn at its new size"
    opened.page.keyboard.press("Escape")
    assert len(opened.page.evaluate(lab.SEEN)) == 8
    assert figure.bounding_box() == small


def test_the_picture_holds_what_is_scrolled_away(served) -> None:
    with lab.window(900, 700) as page:
        page.visit(served.address)
        with page.page.expect_download() as started:
            page.button("png").click()
        with Image.open(started.value.path()) as picture:
            inner = page.page.evaluate("document.querySelector('.fsp-views').getBoundingClientRect().height")
            assert picture.height >= 2 * inner > 2 * 700


def test_the_next_informative_image_is_shown(opened, served) -> None:
    first = served.model.sample
    expected = served.model.next_informative({"sample": first})["sample"]
    opened.after(lambda: opened.page.get_by_role("button", name="Next informative image").first.click())
    expect(opened.control("sample")).to_have_value(str(expected), timeout=PATIENCE)
    assert opened.text() == served.model.frame({"sample": expected}).readouts["text"]


def test_the_page_says_why_nothing_moves() -> None:
    from test_informative import always

    with lab.served(Model(Session.of(always(3)), 0)) as server, lab.window(1366, 768) as page:
        page.visit(server.address)
        remark = page.page.locator('[data-role="remark"]')
        expect(remark).to_be_hidden()
        page.after(lambda: page.control("label", "select").select_option("3"))
        expect(remark).to_contain_text("Nothing moves: this image is already classified exactly.")
        assert "no change" not in remark.inner_text()
        page.after(lambda: page.control("label", "select").select_option("any"))
        page.after(lambda: page.control("sample").fill(str(int((server.model.session.data.test.labels == 3).argmax()))))
        expect(remark).to_be_visible()
        page.after(lambda: remark.get_by_role("button").click())
        expect(remark).to_be_hidden()


def test_an_image_in_colour_is_drawn_in_colour() -> None:
    """Red above, blue below; nothing else on the page is as red or as blue."""
    images = np.zeros((30, 3, 8, 8))
    images[:, 0, :4], images[:, 2, 4:] = 1, 1
    data = fsp.dataset_from_arrays(images, np.arange(30) % 3)
    session = Session.of(fsp.loop_network([192, 5, 3], rng=0), data)
    with lab.served(Model(session)) as server, lab.window(1366, 768) as page:
        page.visit(server.address)
        page.button("play").wait_for()
        shot = np.asarray(Image.open(io.BytesIO(page.page.screenshot())).convert("RGB")).astype(int)
    places = [np.argwhere((shot == colour).all(2)) for colour in ((255, 0, 0), (0, 0, 255))]
    red, blue = places
    assert min(len(red), len(blue)) > 500
    assert red[:, 0].max() < blue[:, 0].min()
    assert (red[:, 1].min(), red[:, 1].max()) == (blue[:, 1].min(), blue[:, 1].max())


def test_the_epoch_shown_is_marked(explored_run) -> None:
    with lab.served(Model(Session.of(explored_run))) as server, lab.window(1920, 1080) as page:
        page.visit(server.address)
        page.control("epoch").evaluate("element => { element.closest('details').open = true; }")
        histories = set()
        for epoch in (2, 4, 5):
            page.after(lambda epoch=epoch: page.control("epoch").fill(str(epoch)))
            label = page.page.locator('figure[data-view="alignment"] canvas[role="img"]').get_attribute("aria-label")
            assert f"epoch {epoch} marked" in label
            with Image.open(io.BytesIO(page.picture("alignment"))) as picture:
                width, height = picture.size  # curves alone are the same for every epoch
                histories.add(picture.crop((0, round(0.62 * height), width, height)).tobytes())
        assert len(histories) == 3


def test_names_on_the_page_are_those_of_the_notebook(served) -> None:
    """Every view in the table, in order; buttons and controls by the names that they bear."""
    notebook = json.loads((ROOT / "notebooks" / "02_explore.ipynb").read_text(encoding="utf-8"))
    text = "".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    with lab.window() as page:
        page.visit(served.address)
        titles = page.page.locator(".fsp-views .fsp-title").all_inner_texts()
        words = page.page.locator(".fsp-explorer :is(label, button, summary)").all_inner_texts()
    assert re.findall(r"^\| \*\*(.+?)\*\* \|", text, re.M) == titles
    for name in (
        "loop ×",
        "integrator",
        "step dt",
        "β",
        "Apply update",
        "Next informative image",
        "Views",
        "Copy code",
    ):
        assert name in text.replace("\n", " ")
        assert any(name == word.strip() for word in words), name


def test_explore_opens_a_page_that_runs_by_itself(explored_run) -> None:
    """The command itself: an address, a first frame with nothing pressed, and Ctrl-C."""
    command = [sys.executable, "-m", "fsp_dynamics", "explore", str(explored_run.folder), "--no-browser"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        line = process.stderr.readline()
        address = re.fullmatch(r"the explorer is at (http://127\.0\.0\.1:\d+/\S+/) \(Ctrl-C ends it\)\n", line)
        assert address is not None, line
        with lab.window(1366, 768) as page:
            page.visit(address[1])
            assert page.text().startswith("Image ")
            assert page.page.title() == f"Explorer: 64-20-15-10, run {explored_run.folder.name}"
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0
            page.control("beta").press("ArrowRight")
            expect(page.page.locator('[role="alert"]')).to_contain_text("Python does not answer", timeout=PATIENCE)
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
