/* The layout of the page. It builds elements; the explorer connects them. */

const PLAY = "M4 2.5v11l9-5.5z";
const PAUSE = "M4 2.5h3v11H4zM9 2.5h3v11H9z";

/** A button of the top row. */
function button(action, text, title) {
    return make("button", { type: "button", "data-action": action, title, text });
}

/** The time cursor with play and pause, and its text. */
function transport() {
    const play = make("button", { type: "button", "data-action": "play", class: "fsp-play", "aria-label": "Play" }, icon(PLAY));
    const time = make("input", { type: "range", min: 0, max: 1, step: 1, value: 0, "data-name": "time", "aria-label": "Time cursor" });
    const moment = make("span", { class: "fsp-moment", "data-role": "cursor" });
    const track = make("span", { class: "fsp-track fsp-time" }, make("span", { class: "fsp-phases" }), time);
    return { play, time, moment, track, element: make("div", { class: "fsp-transport" }, play, track, moment) };
}

/** The top row, the status line and the error message. */
function head(title) {
    const move = transport();
    const buttons = [
        button("learn", "Apply update", "Add one Hebbian update to the weights"),
        button("forget", "Forget updates", "Back to the weights before any update"),
        button("reset", "Reset", "All controls back to their defaults"),
        button("code", "Copy code", "Copy Python code that computes what is shown"),
        button("png", "PNG", "Save all views as one picture"),
        button("netcdf", "NetCDF", "Save the trajectory as a NetCDF file"),
    ];
    const row = make("div", { class: "fsp-buttons" }, ...buttons);
    const bar = make("div", { class: "fsp-bar", role: "group", "aria-label": title }, move.element, row);
    const reason = make("span");
    const next = nextButton();
    const remark = make("p", { class: "fsp-remark", "data-role": "remark", hidden: true }, reason, " ", next);
    const readout = make("p", { role: "status", "aria-live": "polite", "data-role": "readout", class: "fsp-readout", text: "Waiting for Python …" });
    const refusal = make("p", { role: "alert", "data-role": "refusal", class: "fsp-refusal" });
    const speed = make("span", { class: "fsp-speed", "data-role": "speed" });
    const status = make("div", { class: "fsp-status" }, make("div", { class: "fsp-messages" }, readout, remark, refusal));
    return { move, bar, row, readout, remark, reason, refusal, speed, status, buttons: [...buttons, next] };
}

/** The drawer of the sweep; at the right end of its line, how long Python took. */
function drawer(cards, speed) {
    const caption = make("span", { class: "fsp-caption" });
    const summary = make("summary", { "data-role": "sweep" }, make("span", { class: "fsp-title", text: "Sweep" }), caption, speed);
    const grid = make("div", { class: "fsp-sweepviews" }, ...cards.map(({ element }) => element));
    return { element: make("details", { class: "fsp-sweep" }, summary, grid), caption, grid };
}

/** The whole page around the panel of controls and the cards. */
function pageOf(about, panel, cards, sweepCards, menu) {
    const top = head(about.title);
    top.row.append(menu);
    const sweep = drawer(sweepCards, top.speed);
    const views = make("div", { class: "fsp-views" }, ...cards.map(({ element }) => element));
    const origin = about.run === null ? about.dataset : `run ${about.run}, ${about.dataset}`;
    const heading = make("div", { class: "fsp-heading", role: "heading", "aria-level": 2 },
        make("span", { text: about.sizes.join("-") }), make("span", { class: "fsp-dataset", text: origin }));
    const rail = make("div", { class: "fsp-rail" }, heading, panel.element);
    const area = make("div", { class: "fsp-area", tabindex: -1 }, views);
    const main = make("div", { class: "fsp-main" }, top.bar, top.status, area, sweep.element);
    const root = make("div", {
        class: "fsp-explorer", role: "region", "aria-label": `Explorer: ${about.title}`,
    }, make("div", { class: "fsp-body" }, rail, main));
    return { ...top, root, rail, views, sweep, buttons: [...top.buttons, panel.next] };
}
