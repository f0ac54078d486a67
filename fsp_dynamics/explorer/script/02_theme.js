/* Colours: read from the page, light or dark; lines after Paul Tol's "muted", heat maps as tables of 256 colours. */

/* Tol's muted colours. On white, sky, sand and teal are darkened until a thin line stands out; on black the dark ones are lightened. */
const LINES_LIGHT = ["#332288", "#CC6677", "#117733", "#3D9CCB", "#882255", "#A8922A", "#2F9484", "#86862B", "#AA4499"];
const LINES_DARK = ["#9D94F0", "#E58B99", "#4DB87A", "#88CCEE", "#D680AE", "#DDCC77", "#55C2B0", "#BDBD4E", "#D58ACB"];
const DASHES = [[], [6, 3], [2, 2], [8, 3, 2, 3], [4, 2], [], [6, 3], [2, 2], [8, 3, 2, 3], [4, 2]];

const RATES = ["#440154", "#482878", "#3e4989", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6ece58", "#b5de2b", "#fde725"];
const SIGNED_LIGHT = ["#1F5FA8", "#8DBBDD", "#F7F7F5", "#F3B56B", "#B35806"];
const SIGNED_DARK = ["#8CC6FF", "#3B6E9E", "#24272B", "#A5692A", "#FFC072"];

/** Red, green, blue (0..255) and alpha (0..1) of "#rrggbb", "rgb(...)" or, asking a canvas, any other colour. */
function parts(colour) {
    if (/^#[0-9a-f]{6}$/i.test(colour)) {
        return [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16)).concat(1);
    }
    if (/^rgba?\([\d., ]+\)$/.test(colour)) {
        const numbers = colour.match(/[\d.]+/g).map(Number);
        return [...numbers.slice(0, 3), numbers[3] ?? 1];
    }
    const context = document.createElement("canvas").getContext("2d");
    context.fillStyle = "#000000";
    context.fillStyle = colour;
    return parts(context.fillStyle);
}

/** `colour` with another alpha. */
function faded(colour, alpha) {
    const [red, green, blue] = parts(colour);
    return `rgba(${red}, ${green}, ${blue}, ${alpha})`;
}

/** The colour between two: 0 gives `a`, 1 gives `b` (as it looks upon `a`, where it is not opaque). */
function mixed(a, b, share) {
    const from = parts(a);
    const [red, green, blue, alpha] = parts(b);
    const to = [red, green, blue].map((value, i) => from[i] + (value - from[i]) * alpha);
    const between = [0, 1, 2].map((i) => Math.round(from[i] + (to[i] - from[i]) * share));
    return `rgb(${between.join(", ")})`;
}

/** A colour as one number in the byte order of ImageData (little endian: ABGR). */
function packed(red, green, blue) {
    return ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
}

/** Table of 256 colours through evenly spaced `stops`, each as one number. */
function table(stops) {
    const colours = stops.map(parts);
    const result = new Uint32Array(256);
    for (let i = 0; i < 256; i += 1) {
        const at = (i / 255) * (stops.length - 1);
        const k = Math.min(Math.floor(at), stops.length - 2);
        const [red, green, blue] = [0, 1, 2].map((c) => Math.round(colours[k][c] + (colours[k + 1][c] - colours[k][c]) * (at - k)));
        result[i] = packed(red, green, blue);
    }
    return result;
}

/** One entry of a table as a colour of the canvas. */
function colourOf(number) {
    return `rgb(${number & 255}, ${(number >> 8) & 255}, ${(number >> 16) & 255})`;
}

/** Brightness of a colour, 0 black to 1 white. */
function brightness(colour) {
    const [red, green, blue] = parts(colour);
    return (0.299 * red + 0.587 * green + 0.114 * blue) / 255;
}

/**
 * All colours and the font of the views, read from the style of `root` (explorer.css takes them from JupyterLab where it can).
 * The same object as `before` while nothing has changed.
 */
function readTheme(root, before) {
    const style = getComputedStyle(root);
    const ink = style.getPropertyValue("--fsp-ink").trim();
    const page = style.getPropertyValue("--fsp-page").trim();
    const font = style.fontFamily;
    const key = [ink, page, font].join("|");
    if (key === before?.key) {
        return before;
    }
    const dark = brightness(page) < 0.5;
    const lines = [...(dark ? LINES_DARK : LINES_LIGHT), mixed(page, ink, 1)];
    const rates = table(RATES);
    return {
        key,
        dark,
        font,
        page,
        ink: lines[9],
        muted: mixed(page, ink, dark ? 0.68 : 0.64),
        hair: mixed(page, ink, dark ? 0.34 : 0.28),
        faint: mixed(page, ink, dark ? 0.14 : 0.09),
        lines,
        free: lines[0],
        nudged: lines[1],
        tint: faded(lines[1], dark ? 0.12 : 0.08),
        shade: faded(lines[2], dark ? 0.2 : 0.1),
        rates,
        rateColours: Array.from(rates, colourOf),
        signed: table(dark ? SIGNED_DARK : SIGNED_LIGHT),
        grey: table([page, mixed(page, ink, 1)]),
    };
}

/** Calls `changed` whenever the page may have changed its theme, until `signal` aborts. */
function watchTheme(changed, signal) {
    const later = () => {
        changed();
        // A style sheet may arrive after the attribute that announces it.
        setTimeout(() => !signal.aborted && changed(), 300);
    };
    const watcher = new MutationObserver(later);
    const filter = ["data-jp-theme-light", "data-jp-theme-name", "data-theme", "data-vscode-theme-kind", "class", "style"];
    for (const element of [document.documentElement, document.body]) {
        watcher.observe(element, { attributes: true, attributeFilter: filter });
    }
    signal.addEventListener("abort", () => watcher.disconnect());
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", later, { signal });
}
