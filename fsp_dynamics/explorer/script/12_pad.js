/* The drawing pad: a grid of cells drawn with a soft brush, by pointer or by keyboard. */

/** `cells` touched at (x, y) in cells by a brush that falls off softly: raised towards 1, or lowered towards 0 when erasing. */
function brush(cells, side, x, y, erase) {
    const drawn = side / 18 + 0.35; // width of the bell in cells: 0.8 at 8 x 8, 1.9 at 28 x 28
    const width = erase ? 1.5 * drawn : drawn; // a stroke erased along its own line should leave no rim
    const reach = Math.ceil(2.2 * width);
    for (let i = Math.max(Math.floor(y) - reach, 0); i <= Math.min(Math.floor(y) + reach, side - 1); i += 1) {
        for (let j = Math.max(Math.floor(x) - reach, 0); j <= Math.min(Math.floor(x) + reach, side - 1); j += 1) {
            const distance = Math.hypot(j + 0.5 - x, i + 0.5 - y) / width;
            const touch = Math.min(1.15 * Math.exp(-0.9 * distance * distance), 1);
            const at = i * side + j;
            cells[at] = erase ? Math.min(cells[at], 1 - touch) : Math.max(cells[at], touch > 0.04 ? touch : 0);
        }
    }
}

/** Draws the cells, or, while there is no drawing, the image faintly; with the keyboard's cell where the pad has the focus. */
function paintPad(pad) {
    const { canvas, cells, ghost, side, theme, memory, ratio } = pad;
    const size = canvas.width;
    if (!theme || !ratio) {
        return;
    }
    const c = canvas.getContext("2d");
    const source = cells ?? ghost;
    const strength = cells ? 255 : 70;
    c.imageSmoothingEnabled = false;
    c.clearRect(0, 0, size, size);
    c.drawImage(bitmap(memory, "cells", side, side, (pixels) => {
        for (let i = 0; i < pixels.length; i += 1) {
            pixels[i] = theme.grey[Math.round(strength * clamp(source?.[i] || 0, 0, 1))];
        }
    }), 0, 0, size, size);
    if (pad.focused) {
        const cell = size / side;
        c.strokeStyle = theme.nudged;
        c.lineWidth = 2 * ratio;
        c.strokeRect(pad.column * cell + ratio, pad.row * cell + ratio, cell - 2 * ratio, cell - 2 * ratio);
    }
}

/** Gives the canvas the size that the page gives it now, in device pixels, and draws. Measured here alone: measuring costs a layout. */
function fitPad(pad) {
    pad.ratio = window.devicePixelRatio || 1;
    const size = Math.max(Math.round(pad.canvas.clientWidth * pad.ratio), 1);
    if (pad.canvas.width !== size) {
        Object.assign(pad.canvas, { width: size, height: size });
    }
    pad.paint();
}

/** Numbers of a drawing as they are sent: three decimals, within 0 and 1. */
function plainCells(cells) {
    return Array.from(cells, (value) => Math.round(clamp(value || 0, 0, 1) * 1000) / 1000);
}

/** The pad with its buttons. Its value is null (the sample is used) or a list of side x side numbers. */
function padControl(spec, prefix, signal, changed) {
    const { side } = spec;
    const said = make("span", { class: "fsp-hidden", "aria-live": "polite" });
    const canvas = make("canvas", {
        class: "fsp-pad", tabindex: 0, role: "application", "data-name": spec.name, title: spec.help ?? null,
        "aria-label": `${spec.label}, ${side} by ${side} cells: arrow keys move, space draws, shift and space erases` });
    const copy = button("copy", "Copy image", "Take the image shown into the pad, to change it");
    const clear = button("clear", "Clear", "Throw the drawing away and go back to the sample");
    const hint = make("span", { class: "fsp-hint", text: "Draw here. Shift erases." });
    const element = make("div", { class: "fsp-padbox", role: "group", "aria-label": spec.label },
        make("span", { class: "fsp-padname", text: spec.label }), canvas, make("div", { class: "fsp-padside" }, hint, copy, clear), said);
    const pad = { spec, element, canvas, side, cells: null, ghost: null, theme: null, memory: {}, focused: false, value: null };
    Object.assign(pad, { row: side >> 1, column: side >> 1 }); // the keyboard's cell
    pad.paint = () => paintPad(pad);
    pad.fit = () => fitPad(pad);
    pad.show = (value) => {
        pad.value = value ?? null;
        pad.cells = value ? Float32Array.from(value) : null;
        clear.disabled = pad.cells === null;
        pad.paint();
    };
    pad.under = (image, theme) => {
        pad.ghost = image.length === side * side ? image : null;
        copy.disabled = pad.ghost === null;
        pad.theme = theme;
        pad.paint();
    };
    pad.commit = (value, time) => {
        pad.show(value);
        changed(spec.name, pad.value, time);
    };
    listenPad(pad, said, signal);
    clear.addEventListener("click", (event) => pad.commit(null, event.timeStamp), { signal });
    copy.addEventListener("click", (event) => pad.commit(plainCells(pad.ghost), event.timeStamp), { signal });
    pad.show(null);
    return pad;
}

/** Connects the pad's canvas: pointer (shift, right button or a pen's rubber erases), keyboard, focus. */
function listenPad(pad, said, signal) {
    const { canvas, side } = pad;
    let from = null;
    const touch = (event) => {
        const box = canvas.getBoundingClientRect();
        const to = [((event.clientX - box.left) / box.width) * side, ((event.clientY - box.top) / box.height) * side];
        const cells = pad.cells ?? new Float32Array(side * side);
        const start = from ?? to;
        const steps = Math.max(1, Math.ceil(Math.hypot(to[0] - start[0], to[1] - start[1]) / 0.35));
        const erase = event.shiftKey || (event.buttons & 34) !== 0;
        for (let n = 1; n <= steps; n += 1) {
            brush(cells, side, start[0] + ((to[0] - start[0]) * n) / steps, start[1] + ((to[1] - start[1]) * n) / steps, erase);
        }
        from = to;
        pad.commit(plainCells(cells), event.timeStamp);
    };
    canvas.addEventListener("pointerdown", (event) => {
        canvas.setPointerCapture(event.pointerId);
        pad.focused = false;
        from = null;
        touch(event);
    }, { signal });
    canvas.addEventListener("pointermove", (event) => {
        if (canvas.hasPointerCapture(event.pointerId) && event.buttons !== 0) {
            touch(event);
        }
    }, { signal });
    canvas.addEventListener("contextmenu", (event) => event.preventDefault(), { signal });
    canvas.addEventListener("focus", () => { pad.focused = canvas.matches(":focus-visible"); pad.paint(); }, { signal });
    canvas.addEventListener("blur", () => { pad.focused = false; pad.paint(); }, { signal });
    canvas.addEventListener("keydown", (event) => padKey(pad, event, said), { signal });
}

/** One key on the pad: arrows move the cell, space draws it, shift and space erases it. */
function padKey(pad, event, said) {
    const { side } = pad;
    const moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    const at = () => pad.row * side + pad.column;
    if (moves[event.key]) {
        pad.row = clamp(pad.row + moves[event.key][0], 0, side - 1);
        pad.column = clamp(pad.column + moves[event.key][1], 0, side - 1);
    } else if (event.key === " ") {
        const cells = plainCells(pad.cells ?? new Float32Array(side * side));
        cells[at()] = event.shiftKey ? 0 : 1;
        pad.commit(cells, event.timeStamp);
    } else {
        return;
    }
    event.preventDefault();
    pad.focused = true;
    pad.paint();
    write(said, `row ${pad.row + 1}, column ${pad.column + 1}: ${fixed(pad.cells?.[at()] ?? 0, 2)}`);
}
