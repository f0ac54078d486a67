/* The raster: firing rates of all shown units over time. */

/** The layers one below the other in the height of the box: heights by their units, but none lower than a fair share allows. */
function rasterBands(about, box) {
    const gap = 4;
    const layers = about.layers;
    const whole = box.bottom - box.top - gap * (layers.length - 1);
    const least = Math.min(36, whole / layers.length);
    const units = layers.reduce((sum, layer) => sum + layer.shown, 0);
    const small = layers.filter((layer) => (whole * layer.shown) / units < least);
    const free = whole - least * small.length;
    const freeUnits = units - small.reduce((sum, layer) => sum + layer.shown, 0);
    let top = box.top;
    let first = 0;
    return layers.map((layer) => {
        const height = small.includes(layer) ? least : (free * layer.shown) / freeUnits;
        const band = { layer, top, height, first };
        top += height + gap;
        first += layer.shown;
        return band;
    });
}

/** For each row of pixels of a band the mean rate of the units it covers, as colours 0..254 (255: undefined), time by time: (T, rows). */
function bandColours(rates, T, M, band, rows) {
    const colours = new Uint8Array(T * rows);
    const shown = band.layer.shown;
    for (let row = 0; row < rows; row += 1) {
        const from = band.first + Math.min(Math.floor((row * shown) / rows), shown - 1);
        const to = Math.max(band.first + Math.ceil(((row + 1) * shown) / rows - 1e-9), from + 1);
        const until = shown <= rows ? from + 1 : to;
        const scale = 254 / (until - from);
        for (let t = 0; t < T; t += 1) {
            let sum = 0;
            for (let u = from; u < until; u += 1) {
                sum += rates[t * M + u];
            }
            const colour = sum * scale;
            colours[t * rows + row] = colour >= 0 ? Math.min(colour + 0.5, 254) : colour < 0 ? 0 : 255;
        }
    }
    return colours;
}

/** The raster as a bitmap of the screen's own pixels; times need not be evenly spaced: a column shows the last time not after it. */
function rasterBitmap(g, memory, frame, box, bands) {
    const width = Math.max(Math.round((box.right - box.left) * g.ratio), 1);
    const height = Math.max(Math.round((box.bottom - box.top) * g.ratio), 1);
    const timeOf = new Uint16Array(width);
    for (let x = 0, t = 0; x < width; x += 1) {
        const time = box.atX(box.left + (x + 0.5) / g.ratio);
        while (t + 1 < frame.T && frame.times[t + 1] <= time) {
            t += 1;
        }
        timeOf[x] = t;
    }
    const lookUp = new Uint32Array(256);
    lookUp.set(g.theme.rates);
    lookUp[255] = 0;
    return bitmap(memory, "raster", width, height, (pixels) => {
        pixels.fill(0);
        for (const band of bands) {
            const top = Math.round((band.top - box.top) * g.ratio);
            const rows = Math.min(Math.round(band.height * g.ratio), height - top);
            const colours = bandColours(frame.arrays.rates.data, frame.T, frame.M, band, rows);
            for (let row = 0; row < rows; row += 1) {
                const line = (top + row) * width;
                for (let x = 0; x < width; x += 1) {
                    pixels[line + x] = lookUp[colours[timeOf[x] * rows + row]];
                }
            }
        }
    });
}

/** Axes, layers and their names, the heat map. */
function drawRaster(g, scene, memory) {
    const { frame, about } = scene;
    const counts = about.layers.map(({ shown, units }) => (shown < units ? `${shown} of ${units}` : String(units)));
    font(g);
    const widest = Math.max(...[...about.layers.map(({ name }) => name), ...counts].map((text) => g.c.measureText(text).width));
    const box = boxOf(g, timeRange(frame), [0, 1], { left: Math.min(widest + 14, g.w * 0.3), right: 12, top: 26 });
    const bands = rasterBands(about, box);
    timeAxes(g, frame, box, { yMarks: [], yName: "unit" });
    g.c.imageSmoothingEnabled = false;
    g.c.drawImage(rasterBitmap(g, memory, frame, box, bands), box.left, box.top, box.right - box.left, box.bottom - box.top);
    bands.forEach(({ layer, top, height }, k) => {
        const place = { align: "right", base: "middle", most: box.left - 8 };
        const both = height > 25;
        label(g, layer.name, box.left - 7, top + height / 2 - (both ? 6 : 0), { ...place, colour: g.theme.ink });
        if (both) {
            label(g, counts[k], box.left - 7, top + height / 2 + 7, { ...place, size: 10 });
        }
    });
    const border = crisp(g, box.X(frame.readouts.border));
    if (frame.second) {
        segment(g, border, box.top - 6, border, box.bottom, { colour: "#fff", width: 2 });
        segment(g, border, box.top - 6, border, box.bottom, { colour: "#000", width: 1, dash: [3, 3] });
    }
    colourKey(g, memory, g.theme.rates, "rate 0", "1", box.right, 3);
    label(g, "free", box.left, 3, { base: "top", whole: true, most: border - box.left - 6 });
    label(g, "nudged", border + 6, 3, { base: "top", whole: true, most: box.right - 118 - border });
    return { box, bands };
}

/** Which unit and time are under the pointer. */
function rasterProbe(scene, { box, bands }, x, y) {
    const band = bands.find(({ top, height }) => y >= top && y < top + height);
    if (!band || x < box.left || x > box.right) {
        return null;
    }
    const unit = Math.min(Math.floor(((y - band.top) / band.height) * band.layer.shown), band.layer.shown - 1);
    const t = nearest(scene.frame.times, box.atX(x));
    const rate = scene.frame.arrays.rates.data[t * scene.frame.M + band.first + unit];
    return `${band.layer.name}, unit ${unit}, t = ${fixed(scene.frame.times[t], 2)}: rate ${fixed(rate, 3)}`;
}

const rasterView = {
    name: "raster",
    title: "Firing rates",
    timed: true,
    wide: true,
    draw: drawRaster,
    cursor(g, scene, { box }) {
        const x = crisp(g, clamp(box.X(scene.frame.times[scene.at]), box.left, box.right));
        segment(g, x, box.top, x, box.bottom, { colour: g.theme.page, width: 3 }); // or the cursor would drown in dark cells
        timeCursor(g, scene, box);
    },
    probe: rasterProbe,
    value: (scene) => `${scene.frame.M} units`,
    describe(scene) {
        const { frame, about } = scene;
        const names = about.layers.map((layer) => `${layer.name} (${layer.shown} of ${layer.units} units)`).join(", ");
        const { border, end } = frame.readouts;
        const nudge = frame.second ? `; the nudge begins at ${format(border)}` : "";
        return `Heat map of firing rates between 0 and 1 over time, from 0 to ${format(end)}${nudge}. Layers: ${names}.`;
    },
};
