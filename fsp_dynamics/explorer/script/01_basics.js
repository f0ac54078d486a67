/* Numbers, text and elements: used by all other parts. */

const SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹";
const SPACE = "http://www.w3.org/2000/svg";

/** `value` kept between `low` and `high`. */
function clamp(value, low, high) {
    return Math.min(Math.max(value, low), high);
}

/** Whether `value` is a number that can be drawn: neither null nor NaN nor infinite. */
function finite(value) {
    return typeof value === "number" && Number.isFinite(value);
}

/** 10 to the whole power `n`, as text. */
function powerOfTen(n) {
    const digits = [...String(Math.abs(n))].map((digit) => SUPERSCRIPTS[digit]).join("");
    return `10${n < 0 ? "⁻" : ""}${digits}`;
}

/** Text with a true minus sign. */
function minus(text) {
    return text.replace("-", "−");
}

/** `value` with so many significant digits; very small and very large ones with a power of ten; "none" where it is not finite. */
function format(value, digits = 3) {
    if (!finite(value)) {
        return "none";
    }
    const size = Math.abs(value);
    if (size !== 0 && (size < 1e-3 || size >= 1e5)) {
        const [mantissa, exponent] = value.toExponential(digits - 1).split("e");
        const short = String(Number(mantissa));
        return minus(short === "1" ? powerOfTen(Number(exponent)) : `${short}×${powerOfTen(Number(exponent))}`);
    }
    return minus(String(Number(value.toPrecision(digits))));
}

/** `value` with a fixed number of decimals, so that digits stay in their column; "none" where it is not finite. */
function fixed(value, decimals) {
    return finite(value) ? minus(value.toFixed(decimals)) : "none";
}

/** At most about `most` round numbers in [low, high], each with its text. */
function ticks(low, high, most) {
    if (!(high > low)) {
        return [{ value: low, text: format(low) }];
    }
    const raw = (high - low) / Math.max(most, 1);
    const power = 10 ** Math.floor(Math.log10(raw));
    const step = power * [1, 2, 5, 10].find((factor) => factor * power >= raw * 0.999);
    const decimals = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
    const small = step < 1e-4 || high >= 1e6;
    const marks = [];
    for (let n = Math.ceil(low / step - 1e-9); n * step <= high + step * 1e-9; n += 1) {
        marks.push({ value: n * step, text: small ? format(n * step, 3) : minus((n * step).toFixed(decimals)) });
    }
    return marks;
}

/** Whole powers of ten in [low, high] (both exponents), at most about `most` of them, each with its text. */
function decades(low, high, most) {
    const step = Math.max(1, Math.ceil((high - low) / Math.max(most, 1)));
    const marks = [];
    for (let n = Math.ceil(low / step) * step; n <= high; n += step) {
        marks.push({ value: n, text: n === 0 ? "1" : n === 1 ? "10" : powerOfTen(n) });
    }
    return marks;
}

/** The short name of a layer: h1, h2, ..., out. */
function shortLayer(name) {
    return name.replace("hidden ", "h").replace("output", "out");
}

/** Position of the largest number, or -1 where none is finite. */
function argmax(numbers) {
    let best = -1;
    for (let i = 0; i < numbers.length; i += 1) {
        if (Number.isFinite(numbers[i]) && (best < 0 || numbers[i] > numbers[best])) {
            best = i;
        }
    }
    return best;
}

/** Position in the growing `times` whose value is nearest to `time`. */
function nearest(times, time) {
    let low = 0;
    let high = times.length - 1;
    while (high - low > 1) {
        const middle = (low + high) >> 1;
        if (times[middle] <= time) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return time - times[low] <= times[high] - time ? low : high;
}

/** Whether two parameter values are the same; lists (drawings) are compared number by number. */
function same(a, b) {
    if (a !== b && Array.isArray(a) && Array.isArray(b)) {
        return a.length === b.length && a.every((value, i) => value === b[i]);
    }
    return a === b;
}

// JupyterLab takes arrow keys and letters as commands of the notebook unless the focused element opts out.
const FOCUSABLE = ["input", "select", "button", "canvas", "summary"];

/** An element with attributes (`text` is its text; null and false leave an attribute out) and children. */
function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
        if (name === "text") {
            element.textContent = value;
        } else if (value !== null && value !== undefined && value !== false) {
            element.setAttribute(name, value === true ? "" : String(value));
        }
    }
    if (FOCUSABLE.includes(tag)) {
        element.setAttribute("data-lm-suppress-shortcuts", "true");
    }
    element.append(...children.filter((child) => child !== null));
    return element;
}

/** A small picture of one path (16 x 16), hidden from screen readers. */
function icon(path) {
    const picture = document.createElementNS(SPACE, "svg");
    picture.setAttribute("viewBox", "0 0 16 16");
    picture.setAttribute("aria-hidden", "true");
    const shape = document.createElementNS(SPACE, "path");
    shape.setAttribute("d", path);
    picture.append(shape);
    return picture;
}

/** Writes `text` into `element` where it differs; unchanged text costs nothing and is not announced again. */
function write(element, text) {
    if (element.textContent !== text) {
        element.textContent = text;
    }
}

/** Sets an attribute where it differs. */
function mark(element, name, value) {
    if (element.getAttribute(name) !== value) {
        element.setAttribute(name, value);
    }
}
