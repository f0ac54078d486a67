/* Learning: the update of every matrix with its angle to the gradient, and how the matrices are aligned. */

/** Cells for n tiles in a width: at least `least` pixels wide each, in as few rows as that allows. */
function tiles(n, width, height, least, gap) {
    const columns = clamp(Math.floor((width + gap) / (least + gap)), 1, n);
    const rows = Math.ceil(n / columns);
    const even = Math.ceil(n / rows);
    const w = (width - gap * (even - 1)) / even;
    const h = (height - gap * (rows - 1)) / rows;
    return Array.from({ length: n }, (_, i) => ({ x: (i % even) * (w + gap), y: Math.floor(i / even) * (h + gap), w, h }));
}

/** Largest size among the finite numbers, or 0. */
function largest(data) {
    let most = 0;
    for (let i = 0; i < data.length; i += 1) {
        const size = Math.abs(data[i]);
        most = size > most && size < Infinity ? size : most;
    }
    return most;
}

/** One matrix's update as a picture, blue below zero and orange above; undefined entries are left blank. */
function updateBitmap(g, memory, k, { data, shape: [rows, columns] }, most) {
    return bitmap(memory, `update${k}`, columns, rows, (pixels) => {
        for (let i = 0; i < pixels.length; i += 1) {
            const share = most > 0 ? data[i] / most : 0;
            pixels[i] = Number.isFinite(data[i]) ? g.theme.signed[Math.round(127.5 + 127.5 * clamp(share, -1, 1))] : 0;
        }
    });
}

/** Heat maps of the updates of all matrices, each with its own scale (where there is room) and its angle to the gradient. */
function drawUpdates(g, scene, memory) {
    const { about, frame } = scene;
    const { updates } = frame.readouts;
    const n = updates.length;
    const places = tiles(n, g.w - 16, g.h - 8, g.h < 170 ? 60 : 68, 12);
    updates.forEach((update, k) => {
        const { x, y, w, h } = places[k];
        const left = 8 + x;
        const block = frame.arrays[`update_${k}`];
        const most = largest(block.data);
        const matrix = about.matrices.find(({ name }) => name === update.name);
        label(g, update.label, left, y + 3, { base: "top", weight: 600, colour: g.theme.ink, most: w });
        font(g, 11, 600);
        const used = g.c.measureText(update.label).width + 6;
        if (matrix) {
            label(g, `${matrix.pre}×${matrix.post}`, left + w, y + 3, { base: "top", align: "right", size: 10, whole: true, most: w - used });
        }
        const top = y + 18;
        const scaled = h >= 76;
        const height = Math.max(h - 18 - (scaled ? 42 : 20), 12);
        g.c.imageSmoothingEnabled = block.shape[0] > height * g.ratio || block.shape[1] > w * g.ratio;
        g.c.drawImage(updateBitmap(g, memory, k, block, most), left, top, w, height);
        g.c.strokeStyle = g.theme.hair;
        g.c.lineWidth = 1;
        g.c.strokeRect(crisp(g, left), crisp(g, top), Math.round(w), Math.round(height));
        if (most > 0 && scaled) {
            updateScale(g, memory, left, top + height + 5, w, most);
        } else if (most === 0) {
            label(g, "no change", left + w / 2, top + height / 2, { align: "center", base: "middle", most: w });
        }
        const strong = { base: "top", size: 13, weight: 600, colour: g.theme.ink };
        label(g, finite(update.degrees) ? `${fixed(update.degrees, 1)}°` : "no angle", left, top + height + (scaled ? 25 : 3), strong);
    });
    return { places };
}

/** The scale of one picture: a bar of its colours, and the changes of a weight at its ends. */
function updateScale(g, memory, left, top, width, most) {
    const bar = bitmap(memory, "scale", 256, 1, (pixels) => pixels.set(g.theme.signed));
    g.c.drawImage(bar, left, top, width, 5);
    const end = { base: "top", size: 10 };
    font(g, end.size);
    const text = format(most, 2);
    if (g.c.measureText(minus(`-${text}`)).width + g.c.measureText(text).width + 6 <= width) {
        label(g, minus(`-${text}`), left, top + 8, end);
        label(g, text, left + width, top + 8, { ...end, align: "right" });
    } else {
        label(g, `±${text}`, left + width / 2, top + 8, { ...end, align: "center" });
    }
}

const updatesView = {
    name: "updates",
    title: "Update of each matrix",
    draw: drawUpdates,
    value: (scene) => (scene.frame.readouts.learned > 0
        ? [`${scene.frame.readouts.learned} applied · angle to −dC/dW`, `${scene.frame.readouts.learned} applied`]
        : ["eq. 14, and its angle to −dC/dW", "angle to −dC/dW", "to −dC/dW"]),
    describe(scene) {
        const parts = scene.frame.readouts.updates.map(({ label: name, degrees, norm }) =>
            `${name} ${finite(degrees) ? `${fixed(degrees, 1)} degrees` : "undefined"}, norm ${format(norm)}`);
        return `Heat maps of the update of each matrix, negative blue, positive orange. Angles to the steepest descent: ${parts.join("; ")}.`;
    },
};

/** A half circle from 0 (right) over 90 (up) to 180 degrees: a fixed arrow for the product of the others, a hand for the matrix itself. */
function dial(g, x, y, r, degrees, colour, dash) {
    const c = g.c;
    c.fillStyle = g.theme.faint;
    c.beginPath();
    c.moveTo(x, y);
    c.arc(x, y, r, -Math.PI / 2, 0);
    c.closePath();
    c.fill();
    c.strokeStyle = g.theme.hair;
    c.lineWidth = 1;
    c.beginPath();
    c.arc(x, y, r, -Math.PI, 0);
    c.stroke();
    for (let at = 0; at <= 180; at += 30) {
        const turn = (at * Math.PI) / 180;
        const long = at % 90 === 0 ? 6 : 3;
        segment(g, x + Math.cos(turn) * (r - long), y - Math.sin(turn) * (r - long), x + Math.cos(turn) * r, y - Math.sin(turn) * r);
    }
    segment(g, x - r, y, x + r, y, { colour: g.theme.hair });
    if (finite(degrees)) {
        const turn = (degrees * Math.PI) / 180;
        segment(g, x, y, x + Math.cos(turn) * (r - 4), y - Math.sin(turn) * (r - 4), { colour, width: 2.5, dash });
        marker(g, "disc", x + Math.cos(turn) * (r - 4), y - Math.sin(turn) * (r - 4), 3, colour);
    }
    marker(g, "disc", x, y, 2.5, g.theme.ink);
}

/** Dials of all matrices of the loop in a row of this width and height. */
function drawDials(g, alignment, width, height) {
    const places = tiles(alignment.length, width - 16, height, height > 260 ? 130 : 48, 8);
    alignment.forEach(({ label: name, degrees }, k) => {
        const { x, y, w, h } = places[k];
        const centre = 8 + x + w / 2;
        const r = Math.max(Math.min(w / 2 - 4, h - 46, 84), 12);
        const base = y + 8 + r + (h - r - 46) / 2;
        dial(g, centre, base, r, degrees, g.theme.lines[layerLine(k, alignment.length)], []);
        if (r > 44) {
            label(g, "0°", centre + r, base + 4, { base: "top", size: 9, align: "right" });
            label(g, "180°", centre - r, base + 4, { base: "top", size: 9 });
        }
        const strong = { base: "top", align: "center", size: 13, weight: 600, colour: g.theme.ink };
        label(g, finite(degrees) ? `${fixed(degrees, 1)}°` : "none", centre, base + 7, strong);
        label(g, name, centre, base + 23, { base: "top", align: "center", most: w });
    });
}

/** The angles of the run by epoch, one line for each matrix, 90 degrees marked, right of `left` and below `top`. */
function drawHistory(g, scene, left, top) {
    const { data, shape: [epochs, columns] } = scene.frame.arrays.history;
    const { alignment } = scene.frame.readouts;
    let low = 90;
    let high = 90;
    for (let i = 0; i < data.length; i += 1) {
        if (i % columns !== 0 && Number.isFinite(data[i])) {
            low = Math.min(low, data[i]);
            high = Math.max(high, data[i]);
        }
    }
    const range = [Math.max(Math.floor((low - 2) / 30) * 30, 0), Math.min(Math.ceil((high + 2) / 30) * 30, 180)];
    const { epoch } = scene.frame.readouts.parameters;
    const first = Math.min(data[0], epoch);
    const last = Math.max(data[(epochs - 1) * columns], epoch);
    const box = boxOf(g, [first, Math.max(last, first + 1)], range, { left: left + 40, right: 34, top: top + 14 });
    const step = (30 * (box.bottom - box.top)) / (range[1] - range[0]) < 13 ? 60 : 30; // of the marks, which keep 90
    const yMarks = [0, 30, 60, 90, 120, 150, 180].filter((at) => at >= range[0] && at <= range[1] && (at - 90) % step === 0).map((value) => ({ value, text: `${value}°` }));
    axes(g, box, { xName: "epoch", xMarks: ticks(box.x[0], box.x[1], Math.min((box.right - box.left) / 40, box.x[1] - box.x[0])), yMarks });
    segment(g, box.left, crisp(g, box.Y(90)), box.right, crisp(g, box.Y(90)), { colour: g.theme.muted, dash: [3, 3] });
    markEpoch(g, box, epoch);
    const ends = [];
    for (let k = 0; k + 1 < columns; k += 1) {
        const colour = g.theme.lines[layerLine(k, columns - 1)];
        const y = (i) => box.Y(data[i * columns + k + 1]);
        curve(g, 0, epochs - 1, (i) => box.X(data[i * columns]), y, { colour, dash: DASHES[k % 5] });
        if (finite(y(epochs - 1))) {
            ends.push({ at: y(epochs - 1), text: alignment[k]?.label ?? "", colour });
        }
    }
    ends.sort((a, b) => a.at - b.at);
    const at = spread(ends.map((end) => end.at), 12, box.top, box.bottom);
    ends.forEach(({ text }, i) => label(g, text, box.right + 5, at[i], { base: "middle", size: 10, colour: g.theme.ink, most: g.w - box.right - 6 }));
    return box;
}

/** A line at the epoch whose weights are shown, with its number. */
function markEpoch(g, box, epoch) {
    const x = crisp(g, box.X(epoch));
    segment(g, x, box.top - 2, x, box.bottom, { colour: g.theme.ink });
    marker(g, "down", x, box.top - 3, 4, g.theme.ink);
    const text = `epoch ${epoch}, shown`;
    font(g, 10);
    const half = g.c.measureText(text).width / 2;
    label(g, text, clamp(x, half + 4, g.w - half - 4), box.top - 8, { align: "center", base: "bottom", size: 10, colour: g.theme.ink });
}

/** Dials, and where there is a run its history, below them or in a low card beside them. */
function drawAlignment(g, scene) {
    const { history } = scene.frame.arrays;
    const { alignment } = scene.frame.readouts;
    if (alignment.length === 0) {
        label(g, "This network has no loop.", g.w / 2, g.h / 2, { align: "center", base: "middle" });
        return null;
    }
    const epochs = history.shape[0];
    const beside = epochs > 0 && g.h < 130;
    const width = beside ? Math.min(g.w / 2, 16 + 56 * alignment.length) : g.w;
    const height = epochs > 0 && !beside ? Math.round(g.h * 0.46) : g.h - 6;
    drawDials(g, alignment, width, height);
    if (epochs > 0) {
        drawHistory(g, scene, beside ? width : 0, beside ? 10 : height);
    }
    return null;
}

const alignmentView = {
    name: "alignment",
    title: "Alignment",
    draw: drawAlignment,
    value: () => ["angle of each matrix to the product of the others", "angle to the product of the others", "to the product of the others"],
    describe(scene) {
        const { history } = scene.frame.arrays;
        if (scene.frame.readouts.alignment.length === 0) {
            return "This network has no loop whose matrices could be aligned.";
        }
        const text = (degrees) => (finite(degrees) ? `${fixed(degrees, 1)} degrees` : "undefined");
        const parts = scene.frame.readouts.alignment.map(({ label: name, degrees }) => `${name} ${text(degrees)}`);
        const run = history.shape[0] > 0 ? ` Below, the same angles over ${history.shape[0]} epochs of the run, epoch ${scene.frame.readouts.parameters.epoch} marked.` : "";
        return `Dials with the angle of each matrix of the loop to the product of the others: ${parts.join(", ")}.${run}`;
    },
};
