/* The ring: the layers as strips of heat around the loop, the image at its entrance, all at the cursor. */

const GAP = 40; // pixels along the ring between two layers, where the arrow is
const THICK = 17; // pixels across a strip; THIN in a low ring
const THIN = 12;
const LOW = 46; // half the height of a ring, below which its strips are thin and names of hidden layers above and below it

/** Points of an ellipse by the share of its length (0 to 1), clockwise from its left end: position and outward normal; and how thick its strips are. */
function ellipse(cx, cy, rx, ry) {
    const count = 400;
    const lengths = new Float64Array(count + 1);
    const angle = (n) => Math.PI + (2 * Math.PI * n) / count;
    for (let n = 1; n <= count; n += 1) {
        const dx = rx * (Math.cos(angle(n)) - Math.cos(angle(n - 1)));
        const dy = ry * (Math.sin(angle(n)) - Math.sin(angle(n - 1)));
        lengths[n] = lengths[n - 1] + Math.hypot(dx, dy);
    }
    const whole = lengths[count];
    const point = (share) => {
        const at = (((share % 1) + 1) % 1) * whole;
        let n = 1;
        while (lengths[n] < at) {
            n += 1;
        }
        const a = angle(n - 1 + (at - lengths[n - 1]) / (lengths[n] - lengths[n - 1]));
        const nx = Math.cos(a) / rx;
        const ny = Math.sin(a) / ry;
        const norm = Math.hypot(nx, ny);
        return { x: cx + rx * Math.cos(a), y: cy + ry * Math.sin(a), nx: nx / norm, ny: ny / norm };
    };
    return { point, whole, thick: ry < LOW ? THIN : THICK };
}

/** The ring's geometry in a card of this size, kept while the size stays. */
function keptLayout(g, about, memory) {
    if (memory.ring?.w !== g.w || memory.ring.h !== g.h) {
        memory.ring = { w: g.w, h: g.h, layout: ringLayout(g, about) };
    }
    return memory.ring.layout;
}

/** The outline of a piece of the strip from one share of the ring's length to another. */
function cellPath(ring, from, to) {
    const steps = Math.max(1, Math.ceil(((to - from) * ring.whole) / 6));
    const path = new Path2D();
    for (const side of [1, -1]) {
        for (let n = 0; n <= steps; n += 1) {
            const p = ring.point(side > 0 ? from + ((to - from) * n) / steps : to - ((to - from) * n) / steps);
            path.lineTo(p.x + (side * p.nx * ring.thick) / 2, p.y + (side * p.ny * ring.thick) / 2);
        }
    }
    path.closePath();
    return path;
}

/** The ring's geometry: the image's square, the ellipse, and for each layer its span and the outlines of its cells. */
function ringLayout(g, about) {
    const side = clamp(Math.min(g.w * 0.2, g.h * 0.42), 44, 104);
    const left = 12;
    const ringLeft = left + side + 40;
    const rx = Math.max(Math.min((g.w - ringLeft - 14 - THICK / 2) / 2, g.h * 0.85), 30);
    const ry = Math.max(Math.min(g.h / 2 - THICK / 2 - 20, rx), 30);
    const spare = (g.w - ringLeft - 14 - THICK / 2 - 2 * rx) / 2;
    const ring = ellipse(ringLeft + spare + rx, g.h / 2, rx, ry);
    const layers = about.layers;
    const gap = Math.min(GAP / ring.whole, 0.4 / layers.length);
    const span = (1 - gap * layers.length) / layers.length;
    const strips = layers.map((layer, k) => {
        const start = gap / 2 + k * (span + gap);
        // Each cell reaches half a pixel under the next one, so that no seam shows between them.
        const under = 0.5 / ring.whole;
        const cells = Array.from({ length: layer.shown }, (_, u) =>
            cellPath(ring, start + (span * u) / layer.shown, start + (span * (u + 1)) / layer.shown + (u + 1 < layer.shown ? under : 0)));
        return { start, span, cells };
    });
    const image = { x: left + spare * 0.5, y: (g.h - side) / 2, side };
    return { image, ring, gap, strips, centre: { x: ringLeft + spare + rx, y: g.h / 2, rx, ry } };
}

/** An arrow along the ring from one share of its length to another. */
function ringArrow(g, ring, from, to, colour) {
    const steps = 8;
    const end = to - 4 / ring.whole;
    const points = Array.from({ length: steps + 1 }, (_, n) => ring.point(from + ((end - from) * n) / steps));
    curve(g, 0, steps, (n) => points[n].x, (n) => points[n].y, { colour, width: 1.25 });
    arrowHead(g, ring.point(end), ring.point(to), colour);
}

/** The head of an arrow that comes from `from` and ends at `to`. */
function arrowHead(g, from, to, colour) {
    const turn = Math.atan2(to.y - from.y, to.x - from.x);
    g.c.fillStyle = colour;
    g.c.beginPath();
    g.c.moveTo(to.x, to.y);
    for (const side of [2.65, -2.65]) {
        g.c.lineTo(to.x + 7 * Math.cos(turn + side), to.y + 7 * Math.sin(turn + side));
    }
    g.c.closePath();
    g.c.fill();
}

/** The image (or, where it has no square, a strip of its pixels) with a thin frame; three planes are red, green and blue. */
function drawImage(g, memory, scene, x, y, side) {
    const pixels = scene.frame.arrays.image.data;
    const { coloured } = scene.about;
    const n = scene.about.side ?? 1;
    const height = scene.about.side ? n : pixels.length / (coloured ? 3 : 1);
    const level = (i) => Math.round(255 * clamp(pixels[i] || 0, 0, 1));
    const picture = bitmap(memory, "image", n, height, (out) => {
        const size = out.length;
        for (let i = 0; i < size; i += 1) {
            out[i] = coloured ? packed(level(i), level(i + size), level(i + 2 * size)) : g.theme.grey[level(i)];
        }
    });
    g.c.imageSmoothingEnabled = false;
    g.c.drawImage(picture, x, y, side, side);
    g.c.strokeStyle = g.theme.hair;
    g.c.lineWidth = 1;
    g.c.strokeRect(crisp(g, x), crisp(g, y), Math.round(side), Math.round(side));
}

/** A name beside the ring at its point p: `side` 1 outside, -1 inside, far enough away to clear the strip. */
function besideRing(g, ring, text, p, side, options = {}) {
    font(g, options.size, options.weight);
    const reach = ring.thick / 2 + 4 + (Math.abs(p.nx) * g.c.measureText(text).width) / 2 + Math.abs(p.ny) * 6;
    label(g, text, p.x + side * p.nx * reach, p.y + side * p.ny * reach, { align: "center", base: "middle", ...options });
}

/** Numbers of the classes around the output's strip, the target bold; where they would be too close only the first, the last and the target. */
function classNumbers(g, scene, strip, ring) {
    const shown = scene.about.layers.at(-1).shown;
    const { target } = scene.frame.readouts;
    const close = (strip.span * ring.whole) / shown < 11;
    for (let u = 0; u < shown; u += 1) {
        const bold = u === target;
        const edge = (u === 0 || u === shown - 1) && !(target !== null && Math.abs(u - target) === 1);
        if (!close || bold || edge) {
            const p = ring.point(strip.start + (strip.span * (u + 0.5)) / shown);
            besideRing(g, ring, String(u), p, 1, bold ? { size: 11, weight: 700, colour: g.theme.ink } : { size: 10 });
        }
    }
}

/** What does not change with the cursor: image, arrows with the names of the matrices, names of the layers, class numbers. */
function drawRing(g, scene, memory) {
    const layout = keptLayout(g, scene.about, memory);
    const { image, ring, strips, centre } = layout;
    const layers = scene.about.layers;
    drawImage(g, memory, scene, image.x, image.y, image.side);
    const below = { align: "center", base: "top", most: image.side + 22, colour: g.theme.ink };
    label(g, imageName(scene), image.x + image.side / 2, image.y + image.side + 6, below);
    const entry = ring.point(0);
    segment(g, image.x + image.side + 5, entry.y, entry.x - 6, entry.y, { colour: g.theme.muted, width: 1.25 });
    arrowHead(g, { x: entry.x - 20, y: entry.y }, { x: entry.x - 3, y: entry.y }, g.theme.muted);
    const names = matrixNames(scene.about);
    const above = { align: "center", base: "bottom", size: 10, most: entry.x - image.x - image.side };
    label(g, names.input, (image.x + image.side + entry.x) / 2 - 1, entry.y - 6, above);
    for (let k = 0; k < layers.length; k += 1) {
        drawGap(g, layout, k, names);
        const name = centre.ry < 76 && centre.rx < 130 ? shortLayer(layers[k].name) : layers[k].name;
        const p = ring.point(strips[k].start + strips[k].span / 2);
        const low = centre.ry < LOW;
        const outside = low && k < layers.length - 1 && Math.abs(p.ny) > 0.5;
        besideRing(g, ring, name, p, outside ? 1 : -1, { colour: g.theme.ink, size: low ? 10 : 11 });
    }
    classNumbers(g, scene, strips.at(-1), ring);
    return layout;
}

/** The arrow from layer k to the next and its name. Without a loop none leads from the output to hidden 1, and the others lead both ways. */
function drawGap(g, { ring, gap, strips }, k, names) {
    const last = k === strips.length - 1;
    const name = last ? names.loop : names.forward[k];
    if (name === null) {
        return;
    }
    const from = strips[k].start + strips[k].span + 5 / ring.whole;
    const to = from + gap - 9 / ring.whole;
    ringArrow(g, ring, from, to, g.theme.muted);
    if (!last && names.loop === null) {
        arrowHead(g, ring.point(from + 4 / ring.whole), ring.point(from), g.theme.muted);
    }
    const p = ring.point((from + to) / 2);
    label(g, name, p.x - p.nx * 14, p.y - p.ny * 11, { align: last ? "left" : "center", base: "middle", size: 10 });
}

/** What is written below the image. */
function imageName({ about, frame: { readouts } }) {
    const drawn = readouts.parameters.drawing ? "drawing" : null;
    const named = readouts.target === null ? null : `class ${about.classes[readouts.target]}`;
    return [drawn, named].filter(Boolean).join(", ");
}

/** Names of the matrices as they stand in `about`: from the image, from layer to layer, from output to hidden 1; null where there is none. */
function matrixNames(about) {
    const find = (name) => about.matrices.find((matrix) => matrix.name === name)?.label ?? null;
    return { input: find("input") ?? "", loop: find("loop"), forward: about.layers.map((_, k) => find(`forward[${k}]`)) };
}

/** The cells of every layer at the cursor, and the prediction in the middle. */
function ringCursor(g, scene, layout) {
    const { strips, centre } = layout;
    const { rates } = scene.frame.arrays;
    let unit = scene.at * scene.frame.M;
    scene.about.layers.forEach((layer, k) => {
        for (let u = 0; u < layer.shown; u += 1, unit += 1) {
            const rate = rates.data[unit];
            g.c.fillStyle = Number.isFinite(rate) ? g.theme.rateColours[Math.round(255 * clamp(rate, 0, 1))] : g.theme.faint;
            g.c.fill(strips[k].cells[u]);
        }
    });
    drawReading(g, readingAt(scene), centre);
}

/** The prediction in the middle of the ring: class and rate in two lines, in a low ring in one (without the rate where both are too long). */
function drawReading(g, { text, detail }, { x, y, rx, ry }) {
    const middle = { align: "center", base: "middle", most: 2 * rx - 60 };
    const bold = { weight: 600, colour: g.theme.ink };
    if (ry < LOW) {
        font(g, 12, 600);
        const first = g.c.measureText(text).width;
        font(g);
        const whole = first + 6 + g.c.measureText(detail).width;
        const both = whole <= 2 * rx - 90;
        label(g, text, x - (both ? (whole - first) / 2 : 0), y, { ...middle, ...bold, size: 12 });
        if (both) {
            label(g, detail, x + whole / 2, y, { ...middle, align: "right" });
        }
        return;
    }
    // Longer text leaves the middle line to the names of the layers at the sides.
    const long = text.length > 2;
    const up = !long && ry < 76 ? 10 : 0; // out of the way of the output's name
    label(g, text, x, y - up - (long ? 15 : 2), { ...middle, ...bold, size: long ? 14 : up ? 22 : 26 });
    label(g, detail, x, y - up + (long ? 15 : 20), middle);
}

/** The prediction at the cursor: the class with the highest rate, and that rate. */
function readingAt(scene) {
    const { output } = scene.frame.arrays;
    const n = scene.frame.outputs;
    const row = output.data.subarray(scene.at * n, (scene.at + 1) * n);
    const best = argmax(row);
    if (best < 0) {
        return { text: "–", detail: "not finite" };
    }
    return { text: scene.about.classes[best] ?? String(best), detail: `rate ${fixed(row[best], 2)}` };
}

const ringView = {
    name: "ring",
    title: "Network at the cursor",
    draw: drawRing,
    cursor: ringCursor,
    value: momentText,
    describe(scene) {
        const { sizes } = scene.about;
        const back = matrixNames(scene.about).loop === null ? "each layer leads back to the one before" : "the output leads back to it";
        return `The layers arranged in a ring, ${sizes.join(", ")} units: the image (${imageName(scene)}) enters hidden 1, ${back}. `
            + `The highest output is ${readingAt(scene).text}, ${readingAt(scene).detail}, at ${momentText(scene)}.`;
    },
};

/** Time and phase at the cursor. */
function momentText(scene) {
    const { times, arrays } = scene.frame;
    return `t = ${fixed(times[scene.at], 2)}, ${arrays.phase.data[scene.at] < 0.5 ? "free" : "nudged"}`;
}
