/* The trajectory in a plane with equilibria and nullclines, and the spectrum at the equilibria. */

/** [low, high] of the numbers data[start], data[start + step], ... with a margin; never empty. */
function boundsOf(data, start, step, margin = 0.08) {
    let low = Infinity;
    let high = -Infinity;
    for (let i = start; i < data.length; i += step) {
        if (Number.isFinite(data[i])) {
            low = Math.min(low, data[i]);
            high = Math.max(high, data[i]);
        }
    }
    if (low > high) {
        return [0, 1];
    }
    const pad = Math.max((high - low) * margin, 1e-3, Math.abs(high) * 1e-6);
    return [low - pad, high + pad];
}

/** Both axes of the plane: the grid's where there is one, otherwise around trajectory and equilibria. */
function planeRange(arrays) {
    if (arrays.grid_x) {
        const x = arrays.grid_x.data;
        const y = arrays.grid_y.data;
        return [[x[0], x.at(-1)], [y[0], y.at(-1)]];
    }
    const both = Float32Array.of(...arrays.path.data, ...arrays.equilibria.data);
    return [boundsOf(both, 0, 2), boundsOf(both, 1, 2)];
}

/** Short strokes along the flow, at every few points of the grid; longer where it is faster. */
function flowStrokes(g, box, arrays, flow) {
    const x = arrays.grid_x.data;
    const y = arrays.grid_y.data;
    const n = x.length;
    const every = Math.max(1, Math.round(n / 11));
    const start = Math.floor(((n - 1) % every) / 2);
    let fastest = 0;
    for (let i = 0; i < n * n; i += 1) {
        const speed = Math.hypot(flow[i], flow[n * n + i]);
        fastest = speed > fastest ? speed : fastest;
    }
    const cell = (every * Math.min(box.right - box.left, box.bottom - box.top)) / n;
    g.c.strokeStyle = g.theme.hair;
    g.c.lineWidth = 1;
    g.c.beginPath();
    for (let i = start; i < n; i += every) {
        for (let j = start; j < n; j += every) {
            const dx = flow[i * n + j] * (box.X(1) - box.X(0));
            const dy = flow[n * n + i * n + j] * (box.Y(1) - box.Y(0));
            const size = Math.hypot(dx, dy);
            const reach = cell * 0.8 * Math.sqrt(Math.hypot(flow[i * n + j], flow[n * n + i * n + j]) / fastest);
            if (size > 0 && reach > 1) {
                stroke(g, box.X(x[j]), box.Y(y[i]), (dx / size) * reach, (dy / size) * reach);
            }
        }
    }
    g.c.stroke();
}

/** Adds an arrow from (x, y) by (dx, dy) to the open path. */
function stroke(g, x, y, dx, dy) {
    const turn = Math.atan2(dy, dx);
    const head = Math.min(3.5, Math.hypot(dx, dy) * 0.5);
    g.c.moveTo(x - dx / 2, y - dy / 2);
    g.c.lineTo(x + dx / 2, y + dy / 2);
    for (const side of [2.6, -2.6]) {
        g.c.moveTo(x + dx / 2, y + dy / 2);
        g.c.lineTo(x + dx / 2 + head * Math.cos(turn + side), y + dy / 2 + head * Math.sin(turn + side));
    }
}

/** Nullclines of both units and the flow, of the phase at the cursor. */
function drawFlow(g, box, arrays, flow) {
    const n = arrays.grid_x.data.length;
    flowStrokes(g, box, arrays, flow.data);
    const x = (j) => box.X(arrays.grid_x.data[j]);
    const y = (i) => box.Y(arrays.grid_y.data[i]);
    [[0, g.theme.lines[2], []], [1, g.theme.lines[8], [5, 3]]].forEach(([unit, colour, dash]) => {
        g.c.strokeStyle = colour;
        g.c.lineWidth = 1.5;
        g.c.setLineDash(dash);
        g.c.stroke(zeroLine(flow.data.subarray(unit * n * n, (unit + 1) * n * n), n, n, x, y));
    });
    g.c.setLineDash([]);
}

/** The plane: flow and nullclines where given, the path (free full, nudged dashed), both equilibria. */
function drawPlane(g, scene) {
    const { frame } = scene;
    const { arrays, readouts } = frame;
    const [xs, ys] = planeRange(arrays);
    const nudgedNow = arrays.phase.data[scene.at] >= 0.5;
    const flow = nudgedNow ? arrays.flow_nudged : arrays.flow_free;
    const rows = planeLegend(g, frame, flow, nudgedNow);
    const box = boxOf(g, xs, ys, { left: 48, top: 12 + 14 * rows });
    const xMarks = ticks(xs[0], xs[1], (box.right - box.left) / 60);
    axes(g, box, { xName: readouts.plane.x, yName: readouts.plane.y, xMarks, yMarks: ticks(ys[0], ys[1], (box.bottom - box.top) / 36) });
    g.c.save();
    g.c.beginPath();
    g.c.rect(box.left - 5, box.top - 5, box.right - box.left + 10, box.bottom - box.top + 10);
    g.c.clip();
    if (flow) {
        drawFlow(g, box, arrays, flow);
    }
    const path = arrays.path.data;
    const x = (i) => box.X(path[2 * i]);
    const y = (i) => box.Y(path[2 * i + 1]);
    curve(g, 0, frame.free, x, y, { colour: g.theme.free, width: 2 });
    curve(g, frame.free, frame.T - 1, x, y, { colour: g.theme.nudged, width: 2, dash: [6, 3] });
    const equilibria = arrays.equilibria.data;
    marker(g, "circle", x(0), y(0), 3, g.theme.muted);
    marker(g, "disc", box.X(equilibria[0]), box.Y(equilibria[1]), 5, g.theme.free);
    marker(g, "square", box.X(equilibria[2]), box.Y(equilibria[3]), 4, g.theme.nudged);
    g.c.restore();
    return box;
}

/** Names of trajectories and equilibria, and of the nullclines where there are any, in as few rows below the name of y as they need: how many in all. */
function planeLegend(g, frame, flow, nudgedNow) {
    const groups = [[{ text: "free equilibrium", colour: g.theme.free, shape: "disc" }]];
    if (frame.second) {
        groups[0].push({ text: "nudged equilibrium", colour: g.theme.nudged, dash: [6, 3], shape: "square" });
    }
    if (flow) {
        const lines = [{ text: `dx/dt = 0, ${nudgedNow ? "nudged" : "free"}`, colour: g.theme.lines[2] }];
        groups.push([...lines, { text: "dy/dt = 0", colour: g.theme.lines[8], dash: [5, 3] }]);
    }
    font(g);
    let row = 0;
    let left = 20 + g.c.measureText(frame.readouts.plane.y).width;
    let right = g.w - 8;
    for (const items of groups) {
        const width = legendWidth(g, items);
        if (right - width < left) {
            [row, left, right] = [row + 1, 4, g.w - 8];
        }
        legend(g, items, right, 3 + 14 * row);
        right -= width + 12;
    }
    return row + 1;
}

/** The point of the path at the cursor. */
function planeCursor(g, scene, box) {
    const path = scene.frame.arrays.path.data;
    const x = box.X(path[2 * scene.at]);
    const y = box.Y(path[2 * scene.at + 1]);
    if (finite(x) && finite(y)) {
        marker(g, "disc", x, y, 5.5, g.theme.page);
        marker(g, "disc", x, y, 3.5, g.theme.ink);
        marker(g, "circle", x, y, 7, g.theme.ink, 1);
    }
}

const planeView = {
    name: "plane",
    title: "Path in a plane",
    phased: true, // drawn anew when the cursor passes from one phase to the other
    draw: drawPlane,
    cursor: planeCursor,
    value({ frame, at }) {
        const path = frame.arrays.path.data;
        return `(${fixed(path[2 * at], 3)}, ${fixed(path[2 * at + 1], 3)})`;
    },
    describe({ frame: { arrays, readouts } }) {
        const equilibria = Array.from(arrays.equilibria.data, (value) => fixed(value, 3));
        const { x, y } = readouts.plane;
        return `Path of the state, ${y} against ${x}. Free equilibrium at (${equilibria[0]}, ${equilibria[1]}), nudged equilibrium at (${equilibria[2]}, ${equilibria[3]}).`
            + `${arrays.grid_x ? " With the nullclines of both units." : ""}`;
    },
};

/** The spectrum: eigenvalues at both equilibria, the region in which one step of the integrator shrinks, the axes. */
function drawSpectrum(g, scene) {
    const { arrays } = scene.frame;
    const [x0, x1, y0, y1] = arrays.window.data;
    const box = boxOf(g, [x0, x1], [y0, y1], { left: 48 });
    const { data, shape: [rows, columns] } = arrays.region;
    const x = (j) => box.left + ((box.right - box.left) * j) / (columns - 1);
    const y = (i) => box.bottom - ((box.bottom - box.top) * i) / (rows - 1);
    g.c.fillStyle = g.theme.shade;
    g.c.fill(filledBelow(data, rows, columns, x, y, 1));
    g.c.strokeStyle = g.theme.lines[2];
    g.c.lineWidth = 1;
    g.c.stroke(zeroLine(data, rows, columns, x, y, 1));
    const xMarks = ticks(x0, x1, (box.right - box.left) / 60);
    axes(g, box, { xName: "real part (1/time)", yName: "imaginary part", xMarks, yMarks: ticks(y0, y1, (box.bottom - box.top) / 36), lines: false });
    if (x0 < 0 && x1 > 0) {
        segment(g, crisp(g, box.X(0)), box.top, crisp(g, box.X(0)), box.bottom, { colour: g.theme.muted });
    }
    if (y0 < 0 && y1 > 0) {
        segment(g, box.left, crisp(g, box.Y(0)), box.right, crisp(g, box.Y(0)));
    }
    eigenvalues(g, box, arrays.eigen_free.data, "circle", g.theme.free);
    if (scene.frame.second) {
        eigenvalues(g, box, arrays.eigen_nudged.data, "cross", g.theme.nudged);
    }
    spectrumLegend(g, scene.frame.second);
    return box;
}

/** One marker for each eigenvalue inside the axes. */
function eigenvalues(g, box, data, shape, colour) {
    g.c.save();
    g.c.beginPath();
    g.c.rect(box.left - 4, box.top - 4, box.right - box.left + 8, box.bottom - box.top + 8);
    g.c.clip();
    for (let i = 0; i + 1 < data.length; i += 2) {
        if (Number.isFinite(data[i]) && Number.isFinite(data[i + 1])) {
            marker(g, shape, box.X(data[i]), box.Y(data[i + 1]), shape === "circle" ? 3.25 : 2.75, colour, 1.25);
        }
    }
    g.c.restore();
}

/** Names of the markers and of the shaded region. */
function spectrumLegend(g, second) {
    const items = [{ text: "free", colour: g.theme.free, shape: "circle", line: false }];
    if (second) {
        items.push({ text: "nudged", colour: g.theme.nudged, shape: "cross", line: false });
    }
    items.push({ text: "stable step", short: "stable", colour: g.theme.lines[2], fill: g.theme.shade, line: false });
    font(g);
    fittingLegend(g, items, g.w - g.c.measureText("imaginary part").width - 24, 3);
}

/** Texts of the slowest mode, the largest real part of each spectrum, the longest first. */
function slowestModes({ frame: { readouts, second } }) {
    const free = `free ${fixed(readouts.abscissa_free, 3)}`;
    const both = second ? `${free} · nudged ${fixed(readouts.abscissa_nudged, 3)}` : free;
    return [`slowest mode: ${both}`, both];
}

const spectrumView = {
    name: "spectrum",
    title: "Spectrum",
    draw: drawSpectrum,
    value: slowestModes,
    describe: (scene) => "Eigenvalues of the linearised field at the free equilibrium (circles) and at the nudged one (crosses); shaded where one "
        + `step of the integrator shrinks; ${slowestModes(scene)[0]}.`,
};
