/* The sweep: output rates, settle time and slowest mode against the slider last moved, requested piece by piece while nothing else is pending. */

/** The points of a sweep, gathered piece by piece. */
class Sweep {
    constructor() {
        this.opened = false;
        this.choose(null);
    }

    /** Another slider; what was gathered is thrown away. */
    choose(spec) {
        this.spec = spec;
        this.restart();
    }

    /** Begins again with the first piece. */
    restart() {
        this.piece = 0;
        this.pieces = Infinity;
        this.refused = null;
        this.asked = false; // a reply to a request from before a restart is dropped
        this.parts = [];
        this.joined = null;
        this.phase = "free";
    }

    /** The next piece to ask for, or null: closed, complete, refused, or no slider to sweep. */
    next() {
        if (!this.opened || this.spec === null || this.refused !== null || this.piece >= this.pieces) {
            return null;
        }
        this.asked = true;
        return { name: this.spec.name, piece: this.piece };
    }

    /** Adds an answered piece. */
    add(content, arrays) {
        if (!this.asked) {
            return;
        }
        this.asked = false;
        this.parts.push(arrays);
        this.joined = null;
        this.pieces = content.pieces;
        this.phase = content.phase ?? "free"; // phase of the points
        this.piece += 1;
    }

    /** All points so far: values, settle and abscissa (K,), rates (K x classes, row by row). */
    points() {
        const join = (name) => Float32Array.from(this.parts.flatMap((arrays) => Array.from(arrays[name].data)));
        if (this.joined === null) {
            const [values, settle, abscissa, rates] = ["values", "settle", "abscissa", "rates"].map(join);
            this.joined = { values, settle, abscissa, rates, classes: this.parts[0]?.rates.shape[1] ?? 0, phase: this.phase };
        }
        return this.joined;
    }

    /** Python refused a piece: nothing more is asked for until something changes. */
    refuse(text) {
        this.refused = this.asked ? text : null;
        this.asked = false;
    }

    /** Text of the progress. */
    progress() {
        if (this.refused !== null) {
            return this.refused;
        }
        return this.piece < this.pieces ? `${this.parts.length} of ${Number.isFinite(this.pieces) ? this.pieces : "…"} pieces` : "complete";
    }
}

/** Axes against the swept slider, logarithmic where it is, with its present value marked; x(i) maps point i to pixels. */
function sweepAxes(g, scene, range, options, margins = {}) {
    const { spec, points, value } = scene.sweep;
    const across = (v) => (isLog(spec) ? Math.log10(v) : v);
    const ends = [across(spec.low), across(spec.high)];
    const box = boxOf(g, ends, range, margins);
    const room = (box.right - box.left) / 55;
    const logarithmic = () => (ends[1] - ends[0] > 2.5 ? decades(ends[0], ends[1], room) : roundLogs(ends));
    const xMarks = isLog(spec) ? logarithmic() : ticks(ends[0], ends[1], room);
    axes(g, box, { xName: `${spec.label}${spec.unit ? ` (${spec.unit})` : ""}`, xMarks, ...options });
    const x = crisp(g, clamp(box.X(across(value)), box.left, box.right));
    segment(g, x, box.top - 3, x, box.bottom, { colour: g.theme.ink });
    marker(g, "down", x, box.top - 4, 4, g.theme.ink);
    return { box, x: (i) => box.X(across(points.values[i])) };
}

/** Marks 1, 2 and 5 times the powers of ten within a short logarithmic range. */
function roundLogs([low, high]) {
    const marks = [];
    for (let n = Math.floor(low); n <= high; n += 1) {
        for (const digit of [1, 2, 5]) {
            const value = Math.log10(digit) + n;
            if (value >= low - 1e-9 && value <= high + 1e-9) {
                marks.push({ value, text: format(digit * 10 ** n, 2) });
            }
        }
    }
    return marks;
}

/** Equilibrium output rates against the slider. */
function drawSweepRates(g, scene) {
    const { points } = scene.sweep;
    const n = points.classes;
    const { target, prediction_free: read } = scene.frame?.readouts ?? {};
    const { box, x } = sweepAxes(g, scene, [0, 1], { yName: `${points.phase} equilibrium rate`, yMarks: ticks(0, 1, 4) }, { right: 26 });
    const ends = [];
    for (let k = 0; k < n; k += 1) {
        const y = (i) => box.Y(clamp(points.rates[i * n + k], 0, 1));
        const width = k === target || k === read ? 2.25 : 1.25;
        curve(g, 0, points.values.length - 1, x, y, { colour: g.theme.lines[k % 10], width, dash: DASHES[k % 10] });
        const last = y(points.values.length - 1);
        if (finite(last) && last < box.bottom - 6) {
            ends.push({ at: last, k });
        }
    }
    ends.sort((a, b) => a.at - b.at);
    const places = spread(ends.map(({ at }) => at), 11, box.top, box.bottom);
    ends.forEach(({ k }, i) => label(g, String(k), box.right + 6, places[i], { base: "middle", size: 10, colour: g.theme.ink }));
}

/** Spans of points that are not defined, as light hatching with a label. */
function undefinedSpans(g, box, x, values, text) {
    const n = values.length;
    const edge = (i) => (i < 0 ? box.left : i >= n - 1 ? clamp(x(n - 1), box.left, box.right) : (x(i) + x(i + 1)) / 2);
    for (let i = 0; i < n; i += 1) {
        if (Number.isFinite(values[i])) {
            continue;
        }
        const start = i;
        while (i + 1 < n && !Number.isFinite(values[i + 1])) {
            i += 1;
        }
        const left = edge(start - 1);
        const right = edge(i);
        g.c.save();
        g.c.beginPath();
        g.c.rect(left, box.top, right - left, box.bottom - box.top);
        g.c.clip();
        for (let at = left - (box.bottom - box.top); at < right; at += 8) {
            segment(g, at, box.bottom, at + box.bottom - box.top, box.top, { colour: g.theme.faint });
        }
        g.c.restore();
        label(g, text, (left + right) / 2, box.top + 4, { align: "center", base: "top", size: 10, whole: true, most: right - left - 4 });
    }
}

/** One curve against the slider; where it is undefined, hatched and labelled. */
function drawSweepLine(g, scene, values, name, text, zero) {
    const around = boundsOf(values, 0, 1, 0.08);
    const range = zero ? [Math.min(around[0], 0), Math.max(around[1], 0)] : [0, Math.max(around[1], 1e-3)];
    const { box, x } = sweepAxes(g, scene, range, { yName: name, yMarks: ticks(range[0], range[1], 4) });
    if (zero) {
        segment(g, box.left, crisp(g, box.Y(0)), box.right, crisp(g, box.Y(0)), { colour: g.theme.muted, dash: [3, 3] });
    }
    undefinedSpans(g, box, x, values, text);
    curve(g, 0, values.length - 1, x, (i) => box.Y(values[i]), { colour: g.theme.free, width: 2 });
}

/** What the hatching means, where there is any. */
function hatched(values, meaning) {
    return values.some((value) => !Number.isFinite(value)) ? `hatched: ${meaning}` : "";
}

/** The part common to the descriptions of all three charts. */
function sweepText(scene) {
    const { spec, points, value } = scene.sweep;
    return `of the ${points.phase} phase against ${spec.label}: ${points.values.length} points, the present value ${format(value)} marked.`;
}

const sweepViews = [
    { name: "sweep-rates", title: "Output rates", fixed: true, draw: drawSweepRates, describe: (scene) => `Equilibrium output rates ${sweepText(scene)}` },
    {
        name: "sweep-settle",
        title: "Settle time",
        fixed: true,
        value: ({ sweep: { points } }) => hatched(points.settle, "does not settle within the phase"),
        draw: (g, scene) => drawSweepLine(g, scene, scene.sweep.points.settle, "time", "does not", false),
        describe: (scene) => `Settle time ${sweepText(scene)}`,
    },
    {
        name: "sweep-abscissa",
        title: "Slowest mode",
        fixed: true,
        value: ({ sweep: { points } }) => hatched(points.abscissa, "no equilibrium"),
        draw: (g, scene) => drawSweepLine(g, scene, scene.sweep.points.abscissa, "1/time", "none", true),
        describe: (scene) => `Slowest mode, the largest real part of the spectrum at the equilibrium, ${sweepText(scene)}`,
    },
];
