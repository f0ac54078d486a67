/*
 * Drawing: axes, lines, legends. A "pen" g is { c, w, h, ratio, theme }: a context scaled to CSS pixels, its size, the device's pixels per CSS
 * pixel, and the colours. An axis box is { left, right, top, bottom, X, Y, atX, atY }: X and Y map values to pixels, atX and atY back.
 */

/** Position between pixels at which a line of one pixel is sharp. */
function crisp(g, value) {
    return (Math.round(value * g.ratio - 0.5) + 0.5) / g.ratio;
}

/** Sets the font; `weight` 400 or 600. */
function font(g, size = 11, weight = 400) {
    g.c.font = `${weight} ${size}px ${g.theme.font}`;
}

/** `string` cut so that it is at most `most` pixels wide in the present font. */
function shortened(g, string, most) {
    if (g.c.measureText(string).width <= most) {
        return string;
    }
    let length = string.length;
    while (length > 0 && g.c.measureText(`${string.slice(0, length)}…`).width > most) {
        length -= 1;
    }
    return length > 0 ? `${string.slice(0, length).trimEnd()}…` : "";
}

/**
 * Writes one line; `align` left, center or right; `base` a canvas baseline; wider than `most` it is cut or, where it must be
 * `whole`, left out; with a `halo` it stands out from lines behind it.
 */
function label(g, string, x, y, options = {}) {
    const { align = "left", base = "alphabetic", colour = g.theme.muted, size = 11, weight = 400 } = options;
    const { most = Infinity, whole = false, halo = false } = options;
    font(g, size, weight);
    if (whole && g.c.measureText(string).width > most) {
        return;
    }
    g.c.textAlign = align;
    g.c.textBaseline = base;
    const text = most === Infinity ? string : shortened(g, string, most);
    if (text !== string) {
        g.cut?.push(string);
    }
    if (halo) {
        g.c.strokeStyle = g.theme.page;
        g.c.lineWidth = 4;
        g.c.lineJoin = "round";
        g.c.strokeText(text, x, y);
    }
    g.c.fillStyle = colour;
    g.c.fillText(text, x, y);
}

/** A straight line. */
function segment(g, x0, y0, x1, y1, { colour = g.theme.hair, width = 1, dash = [] } = {}) {
    g.c.strokeStyle = colour;
    g.c.lineWidth = width;
    g.c.setLineDash(dash);
    g.c.beginPath();
    g.c.moveTo(x0, y0);
    g.c.lineTo(x1, y1);
    g.c.stroke();
    g.c.setLineDash([]);
}

/** A line through points `first` to `last` at pixels x(i), y(i); a gap where one of them is not finite. */
function curve(g, first, last, x, y, { colour, width = 1.5, dash = [] }) {
    g.c.strokeStyle = colour;
    g.c.lineWidth = width;
    g.c.lineJoin = "round";
    g.c.setLineDash(dash);
    g.c.beginPath();
    let down = false;
    for (let i = first; i <= last; i += 1) {
        const px = x(i);
        const py = y(i);
        if (!Number.isFinite(px) || !Number.isFinite(py)) {
            down = false;
        } else if (down) {
            g.c.lineTo(px, py);
        } else {
            g.c.moveTo(px, py);
            down = true;
        }
    }
    g.c.stroke();
    g.c.setLineDash([]);
}

/** A marker: "disc", "circle", "square", "cross", "plus" or "down" (a triangle that points down), of radius r. */
function marker(g, shape, x, y, r, colour, width = 1.5) {
    const c = g.c;
    c.fillStyle = colour;
    c.strokeStyle = colour;
    c.lineWidth = width;
    c.beginPath();
    if (shape === "disc" || shape === "circle") {
        c.arc(x, y, r, 0, 2 * Math.PI);
    } else if (shape === "square") {
        c.rect(x - r, y - r, 2 * r, 2 * r);
    } else if (shape === "down") {
        c.moveTo(x - r, y - r);
        c.lineTo(x + r, y - r);
        c.lineTo(x, y + r * 0.7);
        c.closePath();
    } else {
        const turn = shape === "cross" ? r : 0;
        c.moveTo(x - r, y - turn);
        c.lineTo(x + r, y + turn);
        c.moveTo(x - turn, y + r);
        c.lineTo(x + turn, y - r);
    }
    if (shape === "disc" || shape === "square" || shape === "down") {
        c.fill();
    } else {
        c.stroke();
    }
}

/** A box of axes without any drawing: `x` and `y` are [low, high], margins in pixels. */
function boxOf(g, x, y, { left = 44, right = 12, top = 24, bottom = 34 } = {}) {
    const box = { left, top, right: Math.max(g.w - right, left + 10), bottom: Math.max(g.h - bottom, top + 10), x, y };
    const perX = (box.right - box.left) / (x[1] - x[0] || 1);
    const perY = (box.bottom - box.top) / (y[1] - y[0] || 1);
    box.X = (value) => box.left + (value - x[0]) * perX;
    box.Y = (value) => box.bottom - (value - y[0]) * perY;
    box.atX = (pixel) => x[0] + (pixel - box.left) / perX;
    box.atY = (pixel) => y[0] + (box.bottom - pixel) / perY;
    return box;
}

/**
 * Thin axes: a line below, faint lines at the marks of y, the name of y above its numbers and the name of x below its own.
 * `xMarks` and `yMarks` are lists of { value, text }.
 */
function axes(g, box, { xName, yName, xMarks, yMarks, lines = true }) {
    for (const { value, text } of yMarks) {
        const y = crisp(g, box.Y(value));
        if (lines) {
            segment(g, box.left, y, box.right, y, { colour: g.theme.faint });
        }
        label(g, text, box.left - 7, y, { align: "right", base: "middle" });
    }
    const below = crisp(g, box.bottom);
    segment(g, box.left, below, box.right, below);
    let free = -Infinity;
    for (const { value, text } of xMarks) {
        const x = crisp(g, box.X(value));
        segment(g, x, below, x, below + 4);
        font(g);
        const half = g.c.measureText(text).width / 2;
        const at = clamp(x, half + 1, g.w - half - 1);
        if (at - half > free) {
            label(g, text, at, below + 7, { align: "center", base: "top" });
            free = at + half + 6;
        }
    }
    label(g, xName, (box.left + box.right) / 2, g.h - 3, { align: "center", base: "bottom", most: g.w - 8 });
    if (yName) {
        label(g, yName, 4, 3, { base: "top", most: g.w - 8 });
    }
}

/** How wide a legend of these items is; see `legend`. */
function legendWidth(g, items, gap = 12) {
    font(g);
    return items.reduce((sum, item) => sum + 23 + g.c.measureText(item.text).width + gap, -gap);
}

/** A row of small samples (line with its dashes, marker or both) and their names, ending at `right`. Items: { text, colour, dash, shape, line }. */
function legend(g, items, right, top, gap = 12) {
    let x = right - legendWidth(g, items, gap);
    for (const item of items) {
        if (item.line !== false) {
            segment(g, x, top + 6, x + 18, top + 6, { colour: item.colour, width: item.width ?? 1.75, dash: item.dash ?? [] });
        }
        if (item.shape) {
            marker(g, item.shape, x + 9, top + 6, 3.5, item.colour);
        }
        if (item.fill) {
            g.c.fillStyle = item.fill;
            g.c.fillRect(x + 2, top + 1, 14, 10);
        }
        label(g, item.text, x + 23, top, { base: "top" });
        x += 23 + g.c.measureText(item.text).width + gap;
    }
}

/** The legend beside `yName` where both fit, else with the short names of its items, else nothing but the samples' initials. */
function fittingLegend(g, items, room, top) {
    const short = items.map((item) => ({ ...item, text: item.short ?? item.text }));
    const tight = short.map((item) => ({ ...item, text: item.text.slice(0, 1) }));
    const fits = [[items, 12], [short, 12], [short, 6], [tight, 6]].find(([list, gap]) => legendWidth(g, list, gap) <= room) ?? [tight, 4];
    legend(g, fits[0], g.w - 8, top, fits[1]);
}

/** Axes over the time of a frame: the nudged phase lightly tinted, a line at the border, the phases named inside. */
function timeAxes(g, frame, box, options) {
    const border = box.X(frame.readouts.border);
    const end = box.X(frame.times[frame.T - 1]);
    if (end > border) {
        g.c.fillStyle = g.theme.tint;
        g.c.fillRect(border, box.top, end - border, box.bottom - box.top);
    }
    axes(g, box, { xName: "time", xMarks: ticks(box.x[0], box.x[1], (box.right - box.left) / 70), ...options });
    if (end > border) {
        const x = crisp(g, border);
        segment(g, x, box.top, x, box.bottom, { colour: g.theme.hair, dash: [3, 3] });
    }
}

/** The range of time that a frame's axes show. */
function timeRange(frame) {
    return [frame.times[0], Math.max(frame.times[frame.T - 1], frame.times[0] + 1e-9)];
}

/** The cursor of time: a line with a handle. */
function timeCursor(g, scene, box) {
    const x = crisp(g, clamp(box.X(scene.frame.times[scene.at]), box.left, box.right));
    segment(g, x, box.top - 3, x, box.bottom, { colour: g.theme.ink, width: 1 });
    marker(g, "down", x, box.top - 4, 4, g.theme.ink);
}

/** Pixel values for the canvas: an image of width x height whose 32-bit pixels `fill` writes; returned as a canvas kept in `memory`. */
function bitmap(memory, name, width, height, fill) {
    let kept = memory[name];
    if (!kept || kept.canvas.width !== width || kept.canvas.height !== height) {
        const canvas = document.createElement("canvas");
        canvas.width = width;
        canvas.height = height;
        const context = canvas.getContext("2d");
        kept = { canvas, context, image: context.createImageData(width, height) };
        kept.pixels = new Uint32Array(kept.image.data.buffer);
        memory[name] = kept;
    }
    fill(kept.pixels);
    kept.context.putImageData(kept.image, 0, 0);
    return kept.canvas;
}

/** A bar of the colours of `table` with the texts of its ends, ending at `right`. */
function colourKey(g, memory, colours, low, high, right, top) {
    const bar = bitmap(memory, "key", 256, 1, (pixels) => pixels.set(colours));
    label(g, high, right, top, { align: "right", base: "top" });
    const x = right - g.c.measureText(high).width - 65;
    g.c.drawImage(bar, x, top + 2, 60, 8);
    label(g, low, x - 5, top, { align: "right", base: "top" });
}
