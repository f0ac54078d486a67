// Curves of runs. The runs are asked for every few seconds; all that is drawn is drawn from the last answer.
"use strict";

const COLOURS = ["#4477aa", "#cc3311", "#228833", "#aa3377", "#009988", "#ee7733", "#66a6d9", "#997700", "#888888", "#b35fc0"];
const DASHES = ["", "7 4", "2 3", "9 3 2 3", "4 2", "1 4"];
const WIDTH = 460, HEIGHT = 220, LEFT = 52, RIGHT = 8, TOP = 8, BOTTOM = 24;
const COLUMNS = ["run", "status", "epoch", "train error", "valid error", "test error", "angle of the loop", "residual", "images\u00a0/\u00a0s", "written"];
const hidden = new Set();
let answer = null;

const element = (name, attributes = {}, ...children) => {
  const svg = ["svg", "path", "line", "text", "circle", "g"].includes(name);
  const made = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
};
const colour = (place) => COLOURS[place % COLOURS.length];
const short = (value) => {
  if (value === null || value === undefined) return "-";
  const size = Math.abs(value);
  return size !== 0 && (size < 1e-3 || size >= 1e5) ? value.toExponential(1) : String(Number(value.toPrecision(4)));
};
const fixed = (value, digits) => (value === null || value === undefined ? "-" : value.toFixed(digits));
const ago = (seconds) => {
  if (seconds === null) return "-";
  for (const [unit, size] of [["d", 86400], ["h", 3600], ["min", 60]]) if (seconds >= 2 * size) return `${Math.round(seconds / size)} ${unit} ago`;
  return `${Math.round(seconds)} s ago`;
};

// Table

function drawTable(runs) {
  const table = document.getElementById("runs");
  table.tHead.replaceChildren(element("tr", {}, ...COLUMNS.map((name) => element("th", { scope: "col" }, name))));
  table.tBodies[0].replaceChildren(...runs.map(row));
}

function row(run, place) {
  const box = element("input", { type: "checkbox", "aria-label": `show ${run.name}` });
  box.checked = !hidden.has(run.run);
  box.addEventListener("change", () => {
    if (box.checked) hidden.delete(run.run);
    else hidden.add(run.run);
    draw();
  });
  const label = element("label", {}, box, element("span", { class: "swatch", style: `background: ${colour(place)}` }), run.name);
  label.title = run.run;
  if (run.problem) return element("tr", {}, element("td", {}, label), element("td", { class: "problem", colspan: COLUMNS.length - 1 }, run.problem));
  const last = run.last || {};
  const loop = (last.alignment_degrees || {}).loop;
  const speed = last.images_per_second;
  const cells = [
    run.status, `${run.epochs} of ${run.epochs_asked}`, fixed(last.train_error, 2), fixed(last.valid_error, 2), fixed(last.test_error, 2),
    fixed(loop, 1), short(last.residual), fixed(speed, 0), ago(run.age),
  ];
  return element("tr", {}, element("td", {}, label), ...cells.map((text) => element("td", {}, text)));
}

// Charts

function ticks(low, high, logarithmic) {
  if (logarithmic) {
    const found = [];
    for (let k = Math.ceil(Math.log10(low) - 1e-9); k <= Math.log10(high) + 1e-9; k++) found.push(10 ** k);
    return found.length >= 2 ? found : [low, high];
  }
  const rough = (high - low || 1) / 5, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((each) => each * power >= rough) * power;
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k++) found.push(Number((k * step).toPrecision(10)));
  return found;
}

function drawChart(chart, runs) {
  const shown = runs.map((run, place) => ({ run, place })).filter(({ run }) => !hidden.has(run.run));
  const lines = shown.flatMap(({ run, place }) =>
    Object.entries(run.lines[chart.name] || {}).map(([name, points]) => ({ name, points, place, run: run.name })));
  const names = [...new Set(runs.flatMap((run) => Object.keys(run.lines[chart.name] || {})))];
  const alone = runs.length === 1;
  const dash = (line) => (alone ? "" : DASHES[names.indexOf(line.name) % DASHES.length]);
  const stroke = (line) => colour(alone ? names.indexOf(line.name) : line.place);
  const caption = element("figcaption", {}, chart.unit ? `${chart.name} (${chart.unit})` : chart.name);
  if (names.length > 1)
    caption.append(...names.map((name, k) => element("span", {}, legend(alone ? colour(k) : "currentColor", alone ? "" : DASHES[k % DASHES.length]), ` ${name}`)));
  const points = lines.flatMap((line) => line.points);
  const svg = element("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${chart.name} by epoch` });
  const figure = element("figure", { "data-chart": chart.name }, caption, svg);
  if (!points.length) {
    svg.append(element("text", { x: WIDTH / 2, y: HEIGHT / 2, "text-anchor": "middle" }, "nothing yet"));
    return figure;
  }
  const scale = chart.logarithmic ? Math.log10 : (value) => value;
  const xs = points.map(([x]) => x), ys = points.map(([, y]) => y);
  const [left, right, low, high] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const across = (x) => LEFT + ((WIDTH - LEFT - RIGHT) * (x - left)) / (right - left || 1);
  const down = (y) => TOP + ((HEIGHT - TOP - BOTTOM) * (scale(high) - scale(y))) / (scale(high) - scale(low) || 1);
  for (const y of ticks(low, high, chart.logarithmic))
    svg.append(element("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: down(y), y2: down(y) }),
      element("text", { x: LEFT - 5, y: down(y) + 4, "text-anchor": "end" }, short(y)));
  for (const x of ticks(left, right, false).filter(Number.isInteger))
    svg.append(element("text", { x: across(x), y: HEIGHT - 8, "text-anchor": "middle" }, String(x)));
  for (const line of lines) {
    const at = line.points.map(([x, y]) => `${across(x).toFixed(1)},${down(y).toFixed(1)}`);
    const drawn = element("path", { d: `M${at.join("L")}`, "stroke-dasharray": dash(line) });
    drawn.style.stroke = stroke(line);
    svg.append(drawn);
    if (at.length === 1) svg.append(element("circle", { cx: across(line.points[0][0]), cy: down(line.points[0][1]), r: 3, fill: stroke(line) }));
  }
  point(figure, svg, lines, { left, right, across, alone });
  return figure;
}

function legend(stroke, dash) {
  const line = element("line", { x1: 0, x2: 22, y1: 5, y2: 5, "stroke-width": 2, "stroke-dasharray": dash });
  line.style.stroke = stroke;
  const svg = element("svg", { viewBox: "0 0 22 10" }, line);
  svg.style.cssText = "display: inline; width: 22px; height: 10px";
  return svg;
}

// The values of the epoch below the pointer.
function point(figure, svg, lines, { left, right, across, alone }) {
  const tip = element("div", { class: "tip", hidden: "" }), cursor = element("line", { class: "cursor", y1: TOP, y2: HEIGHT - BOTTOM });
  figure.append(tip);
  svg.addEventListener("mouseleave", () => { tip.hidden = true; cursor.remove(); });
  svg.addEventListener("mousemove", (event) => {
    const box = svg.getBoundingClientRect(), x = ((event.clientX - box.left) / box.width) * WIDTH;
    const epoch = Math.round(left + ((x - LEFT) / (WIDTH - LEFT - RIGHT)) * (right - left));
    const found = lines.map((line) => [line, line.points.find(([at]) => at === epoch)]).filter(([, value]) => value);
    tip.hidden = !found.length;
    if (!found.length) return cursor.remove();
    tip.textContent = [`epoch ${epoch}`, ...found.slice(0, 12).map(([line, [, y]]) => `${alone ? line.name : `${line.run} ${line.name}`}  ${short(y)}`)].join("\n");
    tip.style.left = x > WIDTH / 2 ? "4rem" : "";
    tip.style.right = x > WIDTH / 2 ? "" : "0.6rem";
    cursor.setAttribute("x1", across(epoch));
    cursor.setAttribute("x2", across(epoch));
    svg.append(cursor);
  });
}

function draw() {
  drawTable(answer.runs);
  document.getElementById("charts").replaceChildren(...answer.charts.map((chart) => drawChart(chart, answer.runs)));
}

async function look() {
  const state = document.getElementById("state");
  try {
    const reply = await fetch("runs.json");
    if (!reply.ok) throw new Error(String(reply.status));
    const text = await reply.text(), found = JSON.parse(text);
    // ages change all the time; charts are drawn again only where a run has changed, so that a pointer can rest on them
    const same = answer && JSON.stringify(found.runs.map((run) => ({ ...run, age: 0 }))) === JSON.stringify(answer.runs.map((run) => ({ ...run, age: 0 })));
    answer = found;
    if (same) drawTable(answer.runs);
    else draw();
    const going = found.runs.filter((run) => !run.ended && !run.problem).length;
    state.className = "";
    state.textContent = `${found.runs.length} runs, ${going} not ended; looked at ${new Date().toLocaleTimeString()}`;
    setTimeout(look, 1000 * found.every);
  } catch (error) {
    state.className = "ended";
    state.textContent = "fsp watch has ended, or cannot be reached; what is shown is what it saw last";
    setTimeout(look, 5000);
  }
}

look();
