/*
 * The controls. Each is { spec, element, show(value), ... }: `show` moves it without a request, `changed(name, value, time)` is called
 * when the user moves it. All listeners end with `signal`.
 */

const POSITIONS = 1000; // of a logarithmic slider

/** Whether a number control's slider is logarithmic (its range must then be above 0). */
function isLog(spec) {
    return Boolean(spec.log) && spec.low > 0;
}

/** Share of the slider's length (0 to 1) at which `value` lies. */
function shareOf(spec, value) {
    const share = isLog(spec)
        ? Math.log(value / spec.low) / Math.log(spec.high / spec.low)
        : (value - spec.low) / (spec.high - spec.low);
    return clamp(Number.isFinite(share) ? share : 0, 0, 1);
}

/** The value at a share of the slider's length: rounded to the step, or to three digits where it is logarithmic. */
function valueAt(spec, share) {
    const value = isLog(spec)
        ? Number((spec.low * (spec.high / spec.low) ** share).toPrecision(3))
        : spec.low + share * (spec.high - spec.low);
    return allowed(spec, value);
}

/** `value` within the range, on the step (linear sliders) and whole where it must be. */
function allowed(spec, value) {
    let result = value;
    if (spec.integer) {
        result = Math.round(result);
    } else if (!isLog(spec) && spec.step > 0) {
        result = Number((spec.low + Math.round((result - spec.low) / spec.step) * spec.step).toPrecision(12));
    }
    return clamp(result, spec.low, spec.high);
}

/** The value of `snap` within 1.5 % of the slider's length, or `value` itself. */
function snapped(spec, value) {
    const share = shareOf(spec, value);
    const near = (spec.snap ?? []).find((stop) => Math.abs(shareOf(spec, stop) - share) < 0.015);
    return near ?? value;
}

/** A number as the user types it: no superscripts, no true minus. */
function plain(value) {
    if (!finite(value)) {
        return "";
    }
    const short = Number(value.toPrecision(6));
    return short !== 0 && Math.abs(short) < 1e-3 ? short.toExponential() : String(short);
}

/** The slider and its field, labelled; double click on the label (or Delete on the slider) goes back to the default. */
function numberControl(spec, prefix, signal, changed) {
    const id = `${prefix}-${spec.name}`;
    const unit = spec.unit ? ` (${spec.unit})` : "";
    const name = make("label", { for: id, text: spec.label, title: `${spec.help ?? spec.label}\nDouble click: back to ${plain(spec.default)}` });
    const steps = isLog(spec) ? { min: 0, max: POSITIONS, step: 5 } : { min: spec.low, max: spec.high, step: spec.step > 0 ? spec.step : "any" };
    const slider = make("input", { type: "range", id, "data-name": spec.name, "aria-description": spec.help ?? null, ...steps });
    const field = make("input", {
        type: "number", "data-name": `${spec.name}-field`, "aria-label": `${spec.label}${unit}, exact value`,
        min: spec.low, max: spec.high, step: "any", inputmode: "decimal" });
    const hatch = make("span", { class: "fsp-hatch", hidden: true });
    const note = make("span", { class: "fsp-note", hidden: true });
    const inside = (spec.snap ?? []).filter((stop) => stop >= spec.low && stop <= spec.high);
    const stops = inside.map((stop) => make("i", { style: `--at: ${shareOf(spec, stop)}` }));
    const amount = make("span", { class: "fsp-value" }, field, make("span", { class: "fsp-unit", text: spec.unit ?? "" }));
    const row = make("div", { class: "fsp-number" }, name, amount, make("span", { class: "fsp-track" }, hatch, ...stops, slider), note);
    const control = { spec, element: row, slider, field, hatch, note, value: spec.default };
    control.show = (value) => showNumber(control, value);
    control.limit = (limit) => showLimit(control, limit);
    control.reach = (high) => showReach(control, high);
    listenNumber(control, name, signal, changed);
    control.show(spec.default);
    return control;
}

/** Moves the slider and writes the field (not while it is being typed in). */
function showNumber(control, value) {
    const { spec, slider, field } = control;
    control.value = value;
    slider.value = isLog(spec) ? Math.round(shareOf(spec, value) * POSITIONS) : value;
    slider.style.setProperty("--at", shareOf(spec, value));
    mark(slider, "aria-valuetext", `${format(value, 4)}${spec.unit ? ` ${spec.unit}` : ""}`);
    if (!field.matches(":focus") || Number(field.value) !== value) {
        field.value = plain(value);
    }
    warn(control);
}

/** Hatches the part of the slider above `limit.above` or below `limit.below`; null or nothing takes the hatching away. */
function showLimit(control, limit) {
    const { spec, hatch, slider } = control;
    const above = finite(limit?.above) && limit.above < spec.high ? limit.above : null;
    const below = finite(limit?.below) && limit.below > spec.low ? limit.below : null;
    control.above = above;
    control.below = below;
    hatch.hidden = above === null && below === null;
    if (!hatch.hidden) {
        hatch.style.setProperty("--from", above === null ? 0 : shareOf(spec, above));
        hatch.style.setProperty("--to", above === null ? shareOf(spec, below) : 1);
    }
    slider.title = above !== null ? `unstable above ${format(above)}` : below !== null ? `not allowed below ${format(below)}` : "";
    warn(control);
}

/** Notes below the slider that its value lies in the hatched part. */
function warn({ value, above = null, below = null, note }) {
    const high = above !== null && value > above;
    const low = below !== null && value <= below;
    note.hidden = !high && !low;
    write(note, high ? `above ${format(above)}: unstable` : low ? `below ${format(below)}: not allowed` : "");
}

/** Gives the control another upper end. */
function showReach(control, high) {
    if (high === control.spec.high || !(high >= control.spec.low)) {
        return;
    }
    control.spec = { ...control.spec, high };
    control.field.max = high;
    if (!isLog(control.spec)) {
        control.slider.max = high;
    }
    control.show(Math.min(control.value, high));
}

/** Connects slider, field and label. Sliders snap only while a pointer drags them: arrow keys must be able to leave a stop. */
function listenNumber(control, name, signal, changed) {
    const { slider, field } = control;
    let dragged = false;
    const set = (value, event) => {
        control.show(value);
        changed(control.spec.name, control.value, event.timeStamp);
    };
    slider.addEventListener("pointerdown", () => { dragged = true; }, { signal });
    slider.addEventListener("keydown", (event) => {
        dragged = false;
        if (event.key === "Delete" || event.key === "Backspace") {
            event.preventDefault();
            set(control.spec.default, event);
        }
    }, { signal });
    slider.addEventListener("input", (event) => {
        const { spec } = control;
        const raw = Number(slider.value);
        const value = isLog(spec) ? valueAt(spec, raw / POSITIONS) : allowed(spec, raw);
        const next = dragged ? snapped(spec, value) : value;
        if (next !== control.value) {
            set(next, event);
        }
    }, { signal });
    field.addEventListener("change", (event) => {
        const typed = Number(field.value);
        if (field.value.trim() === "" || !Number.isFinite(typed)) {
            field.value = plain(control.value);
            return;
        }
        const { spec } = control;
        const value = clamp(spec.integer ? Math.round(typed) : typed, spec.low, spec.high);
        field.value = plain(value);
        if (value !== control.value) {
            set(value, event);
        }
    }, { signal });
    name.addEventListener("dblclick", (event) => set(control.spec.default, event), { signal });
}

/** A list of choices, labelled. */
function choiceControl(spec, prefix, signal, changed) {
    const id = `${prefix}-${spec.name}`;
    const name = make("label", { for: id, text: spec.label, title: `${spec.help ?? spec.label}\nDouble click: back to ${spec.default}` });
    const list = make("select", { id, "data-name": spec.name, "aria-description": spec.help ?? null },
        ...spec.choices.map((choice) => make("option", { value: choice, text: choice })));
    const control = { spec, element: make("div", { class: "fsp-choice" }, name, list), value: spec.default };
    control.show = (value) => {
        control.value = value;
        list.value = value;
    };
    const set = (value, event) => {
        control.show(value);
        changed(spec.name, value, event.timeStamp);
    };
    list.addEventListener("change", (event) => set(list.value, event), { signal });
    name.addEventListener("dblclick", (event) => set(spec.default, event), { signal });
    control.show(spec.default);
    return control;
}

/** The control for one entry of the trait `controls`. */
function controlFor(spec, prefix, signal, changed) {
    const kinds = { number: numberControl, choice: choiceControl, pad: padControl };
    return kinds[spec.kind](spec, prefix, signal, changed);
}

/** The button that goes to an image on which something moves. */
function nextButton() {
    return button("next", "Next informative image", "The next image that the network gets wrong, or right by a margin of at most 0.5");
}

const GROUPS = ["image", "phases", "dynamics", "network", "view"];
const OPEN_GROUPS = ["image", "dynamics", "phases"];

/** All controls, in the order of their groups, with the button for the next informative image: { controls (a map by name), next, element }. */
function controlPanel(specs, prefix, signal, changed) {
    const controls = new Map();
    const next = nextButton();
    const groups = [...new Set([...GROUPS, ...specs.map(({ group }) => group)])];
    const boxes = groups.map((group) => {
        const members = specs.filter((spec) => spec.group === group);
        if (members.length === 0) {
            return null;
        }
        const made = members.map((spec) => controlFor(spec, prefix, signal, changed));
        made.forEach((control) => controls.set(control.spec.name, control));
        const inner = make("div", { class: "fsp-controls" }, ...made.map(({ element }) => element));
        if (group === "image") {
            controls.get("sample").element.after(next);
        }
        const open = OPEN_GROUPS.includes(group);
        return make("details", { class: "fsp-group", "data-group": group, open }, make("summary", { text: group }), inner);
    });
    return { controls, next, element: make("div", { class: "fsp-groups" }, ...boxes) };
}
