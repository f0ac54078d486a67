/* Curves over time: the output's rates by class, and the residual of each layer. */

/** Positions for labels that want to be at `wanted` (growing), at least `apart` from each other, within [low, high]. */
function spread(wanted, apart, low, high) {
    const placed = [...wanted];
    for (let i = 0; i < placed.length; i += 1) {
        placed[i] = Math.max(placed[i], i === 0 ? low : placed[i - 1] + apart);
    }
    for (let i = placed.length - 1; i >= 0; i -= 1) {
        placed[i] = Math.min(placed[i], i === placed.length - 1 ? high : placed[i + 1] - apart);
    }
    return placed;
}

/** Names of the classes at the right end of their curves; those that end near 0 share one label, and in a low card all below the highest. */
function classLabels(g, scene, box) {
    const { frame, about } = scene;
    const n = frame.outputs;
    const last = frame.arrays.output.data.subarray((frame.T - 1) * n, frame.T * n);
    const { target, prediction_nudged: read } = frame.readouts;
    const [high, low] = [box.top + 2, box.bottom - 4];
    const room = Math.max(Math.floor((low - high) / 12), 1); // and one label for the others
    const wanted = (k) => Number(k === target || k === read);
    const ends = Array.from(last, (_, k) => k).filter((k) => Number.isFinite(last[k]));
    const shown = ends.filter((k) => wanted(k) || last[k] > 0.04).sort((i, j) => wanted(j) - wanted(i) || last[j] - last[i]).slice(0, room);
    const at = (rate) => box.Y(clamp(rate, box.y[0], box.y[1]));
    const named = shown.map((k) => ({ k, at: at(last[k]), text: about.classes[k] ?? String(k) }));
    const others = ends.filter((k) => !shown.includes(k));
    if (others.length > 0) {
        const most = Math.max(...others.map((k) => last[k]));
        named.push({ k: -1, at: at(most > 0.04 ? most : 0), text: shown.length > 0 ? `${others.length} more` : "all" });
    }
    named.sort((a, b) => Number(a.k < 0) - Number(b.k < 0) || a.at - b.at || a.k - b.k);
    const places = spread(named.map(({ at: end }) => end), 12, high, low);
    named.forEach(({ k, at: end, text }, i) => {
        segment(g, box.right + 2, end, box.right + 10, places[i], { colour: k < 0 ? g.theme.hair : g.theme.lines[k % 10], width: 1 });
        const colour = k < 0 ? g.theme.muted : g.theme.ink;
        label(g, text, box.right + 13, places[i], { base: "middle", weight: k === target ? 600 : 400, colour, most: g.w - box.right - 15 });
    });
}

/** Rates of the classes over time; the target's value as a dotted line in the nudged phase. */
function drawOutput(g, scene) {
    const { frame, about } = scene;
    const n = frame.outputs;
    const data = frame.arrays.output.data;
    font(g);
    const longest = Math.max(50, ...about.classes.map((name) => g.c.measureText(name).width + 16));
    const box = boxOf(g, timeRange(frame), [0, 1], { right: Math.min(longest + 4, g.w * 0.25) });
    timeAxes(g, frame, box, { yName: "rate", yMarks: ticks(0, 1, 4) });
    const { target, prediction_free: read } = frame.readouts;
    const goal = frame.arrays.target.data;
    const best = argmax(goal);
    const border = box.X(frame.readouts.border);
    if (best >= 0 && goal[best] > 0 && box.right > border) {
        const y = box.Y(clamp(goal[best], 0, 1));
        segment(g, border, y, box.right, y, { colour: g.theme.ink, dash: [1, 3] });
    }
    outputPhases(g, box, border, best < 0 ? null : about.classes[best]);
    // The classes that matter are drawn last, over the others.
    const order = Array.from({ length: n }, (_, k) => k).sort((a, b) => Number(a === target || a === read) - Number(b === target || b === read));
    for (const k of order) {
        const x = (i) => box.X(frame.times[i]);
        const y = (i) => box.Y(clamp(data[i * n + k], 0, 1));
        curve(g, 0, frame.T - 1, x, y, { colour: g.theme.lines[k % 10], width: k === target || k === read ? 2.25 : 1.25, dash: DASHES[k % 10] });
    }
    classLabels(g, scene, box);
    return box;
}

/** The names of the phases above their spans, with the target to which the dotted line belongs. */
function outputPhases(g, box, border, target) {
    label(g, "free", border - 6, 3, { base: "top", align: "right", whole: true, most: border - box.left - 6 });
    const room = { base: "top", align: "right", whole: true, most: box.right - border - 6 };
    const long = target === null ? "nudged" : `nudged to ${target}`;
    font(g);
    label(g, g.c.measureText(long).width > room.most ? "nudged" : long, box.right, 3, room);
}

/** The cursor, with a point on each curve. */
function outputCursor(g, scene, box) {
    timeCursor(g, scene, box);
    const n = scene.frame.outputs;
    const x = box.X(scene.frame.times[scene.at]);
    for (let k = 0; k < n; k += 1) {
        const rate = scene.frame.arrays.output.data[scene.at * n + k];
        if (Number.isFinite(rate)) {
            marker(g, "disc", x, box.Y(clamp(rate, 0, 1)), 2.5, g.theme.lines[k % 10]);
        }
    }
}

/** Texts of the predictions and margins at the end of both phases, the longest first. */
function verdicts({ about, frame: { readouts, second } }) {
    const name = (prediction) => about.classes[prediction] ?? "none";
    const [free, nudged] = ["free", "nudged"].map((phase) => [name(readouts[`prediction_${phase}`]), fixed(readouts[`margin_${phase}`], 2)]);
    const long = `free ${free[0]}, margin ${free[1]}`;
    return second ? [`${long} · nudged ${nudged[0]}, ${nudged[1]}`, `${free.join(" (")}) → ${nudged.join(" (")})`] : [long];
}

const outputView = {
    name: "output",
    title: "Output",
    timed: true,
    draw: drawOutput,
    cursor: outputCursor,
    value: verdicts,
    describe(scene) {
        const { readouts } = scene.frame;
        const target = readouts.target === null ? "There is no target" : `The target is ${scene.about.classes[readouts.target]}`;
        return `Output rates over time, one curve for each of ${scene.frame.outputs} classes. ${target}. Predictions: ${verdicts(scene)[0]}.`;
    },
};

/** Largest whole exponents below and above the norms; the tolerance is always inside; at most twelve decades. */
function decadesOf(norms, tolerance) {
    let high = tolerance;
    for (const norm of norms) {
        if (Number.isFinite(norm) && norm > high) {
            high = norm;
        }
    }
    const top = Math.ceil(Math.log10(high) + 0.05);
    const bottom = Math.floor(Math.log10(tolerance)) - 1;
    return [Math.max(bottom, top - 12), Math.max(top, bottom + 1)];
}

/** The slope exp(abscissa t) of one phase: through the norm of all layers at the last time that is well above the tolerance. */
function slope(g, frame, box, first, last, abscissa, colour) {
    const L = frame.arrays.norms.shape[1];
    const { data } = frame.arrays.norms;
    const total = (i) => Math.hypot(...data.subarray(i * L, (i + 1) * L));
    let at = last;
    while (at > first && !(total(at) > 3 * frame.readouts.tolerance)) {
        at -= 1;
    }
    const height = Math.log10(total(at));
    if (!finite(abscissa) || !finite(height)) {
        return;
    }
    const y = (i) => box.Y(height + (abscissa * (frame.times[i] - frame.times[at])) / Math.LN10);
    curve(g, first, last, (i) => box.X(frame.times[i]), y, { colour, width: 1, dash: [1, 3] });
}

/** Residuals of every layer, on a logarithmic axis; the tolerance; the slopes predicted by the spectra. */
function drawSettling(g, scene) {
    const { frame, about } = scene;
    const { readouts } = frame;
    const { data, shape } = frame.arrays.norms;
    const L = shape[1];
    const range = decadesOf(data, readouts.tolerance);
    const box = boxOf(g, timeRange(frame), range);
    timeAxes(g, frame, box, { yName: "residual", yMarks: decades(range[0], range[1], (box.bottom - box.top) / 26) });
    g.c.save();
    g.c.beginPath();
    g.c.rect(box.left, box.top - 1, box.right - box.left + 1, box.bottom - box.top + 1);
    g.c.clip();
    const level = crisp(g, box.Y(Math.log10(readouts.tolerance)));
    segment(g, box.left, level, box.right, level, { colour: g.theme.ink, dash: [6, 4] });
    const spans = [[0, frame.free], [frame.free + 1, frame.T - 1]];
    const items = [];
    for (let k = 0; k < L; k += 1) {
        const colour = g.theme.lines[layerLine(k, L)];
        const dash = DASHES[k % 5];
        // A norm of exactly 0 lies below every axis: the curve runs out of the box there, and begins anew after it.
        const fallen = (i) => (i > 0 && data[(i - 1) * L + k] > 0 ? box.Y(-30) : NaN);
        const y = (i) => (data[i * L + k] === 0 ? fallen(i) : box.Y(Math.log10(data[i * L + k])));
        for (const [first, last] of spans) {
            curve(g, first, last, (i) => box.X(frame.times[i]), y, { colour, dash });
        }
        const name = about.layers[k].name;
        items.push({ text: name, short: shortLayer(name), colour, dash });
    }
    slope(g, frame, box, 0, frame.free, readouts.abscissa_free, g.theme.ink);
    slope(g, frame, box, frame.free + 1, frame.T - 1, readouts.abscissa_nudged, g.theme.ink);
    g.c.restore();
    label(g, `tolerance ${format(readouts.tolerance, 2)}`, box.left + 4, level - 3, { base: "bottom", size: 10, halo: true });
    font(g);
    fittingLegend(g, items, g.w - g.c.measureText("residual").width - 24, 3);
    settled(g, frame, box, level);
    return box;
}

/** Triangles on the tolerance where each phase has settled. */
function settled(g, frame, box, level) {
    const { settle_free: free, settle_nudged: nudged, border } = frame.readouts;
    for (const time of [free, frame.second && finite(nudged) ? border + nudged : null]) {
        if (finite(time)) {
            marker(g, "down", clamp(box.X(time), box.left, box.right), level - 4, 4, g.theme.ink);
        }
    }
}

/** Line of the palette for layer k of L: hidden layers from the front, the output the teal one. */
function layerLine(k, L) {
    return k === L - 1 ? 6 : [0, 1, 4, 2, 8][k % 5];
}

/** Texts of the settle times of both phases, the longest first; where one does not settle, about how much longer it would need. */
function settleTexts({ frame: { readouts, second } }) {
    const phases = second ? ["free", "nudged"] : ["free"];
    const told = ([after, needs, more, never]) => phases.map((phase) => {
        const [status, time, missing] = ["status", "settle", "missing"].map((name) => readouts[`${name}_${phase}`]);
        const unsettled = finite(missing) ? `${needs}${format(missing, 2)}${more}` : never;
        return `${phase} ${finite(time) ? `${after}${fixed(time, 1)}` : status === "not finite" ? "not finite" : unsettled}`;
    }).join(" · ");
    const whole = told(["after ", "needs about ", " more", "does not"]);
    return [`settles: ${whole}`, whole, told(["", "≈ ", " more", "does not"]), told(["", "+", "", "never"])];
}

const settlingView = {
    name: "settling",
    title: "Settling",
    timed: true,
    draw: drawSettling,
    cursor: timeCursor,
    value: settleTexts,
    describe(scene) {
        const { readouts } = scene.frame;
        const slopes = [["free", readouts.abscissa_free], ["nudged", readouts.abscissa_nudged]].filter(([, value]) => finite(value));
        const predicted = slopes.map(([name, value]) => `${name} exp(${format(value)} t)`).join(", ");
        const nudged = scene.frame.second ? `, nudged phase ${readouts.status_nudged}` : "";
        return `Residual of each layer over time, logarithmic, with the tolerance ${format(readouts.tolerance)}. Free phase `
            + `${readouts.status_free}${nudged}; ${settleTexts(scene)[0]}. `
            + `Slopes of the spectra, dotted: ${predicted || "none"}.`;
    },
};
