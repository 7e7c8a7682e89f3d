// The sweep: trials as lines, points and curves.
const page = JSON.parse(document.getElementById("data").textContent);
const margin = { left: 54, right: 14, top: 14, bottom: 24 };
const valued = page.trials.filter((trial) => Number.isFinite(trial.value));

// A scale from the texts of one column: numbers, their logarithms when they span much, else words.
function scale(texts) {
  const words = [...new Set(texts)];
  const numbers = words.map(Number);
  if (words.some((word) => word.trim() === "") || numbers.some((number) => !Number.isFinite(number))) {
    words.sort();
    const place = (text) => words.length < 2 ? 0.5 : words.indexOf(text) / (words.length - 1);
    return { place, ticks: words.map((word) => [place(word), word]) };
  }
  let low = Math.min(...numbers), high = Math.max(...numbers);
  const log = low > 0 && high / low >= 20;
  const to = log ? Math.log : (number) => number;
  const place = (text) => high > low ? (to(Number(text)) - to(low)) / (to(high) - to(low)) : 0.5;
  numbers.sort((one, other) => one - other);
  const count = Math.min(5, numbers.length);
  const picked = count < 2 ? numbers
    : Array.from({ length: count }, (_, at) => numbers[Math.round(at * (numbers.length - 1) / (count - 1))]);
  const ticks = [];
  for (const number of new Set(picked)) {
    // Numbers that are close together would be written over each other.
    if (ticks.every(([share]) => Math.abs(share - place(number)) > 0.07)) ticks.push([place(number), format(number)]);
  }
  return { place, ticks };
}

const metricScale = scale(valued.map((trial) => String(trial.value)));
// 0 is worst, 1 is best.
const goodness = (trial) => {
  const at = metricScale.place(String(trial.value));
  return page.small_is_best ? 1 - at : at;
};
const color = (trial) => Number.isFinite(trial.value)
  ? `hsl(${Math.round(10 + 140 * goodness(trial))} 62% 46%)` : "var(--faint)";

function title(trial) {
  const values = page.keys.map((key, at) => `${key} = ${trial.values[at]}`);
  return [`trial ${trial.number} (${trial.state})`, ...values, `${page.metric} = ${format(trial.value)}`].join("\n");
}

function link(node, trial) {
  element(node, "title", {}, title(trial));
  node.dataset.trial = trial.number;
  node.addEventListener("mouseenter", () => light(trial.number, true));
  node.addEventListener("mouseleave", () => light(trial.number, false));
}

function light(number, on) {
  for (const node of document.querySelectorAll(`[data-trial="${number}"]`)) node.classList.toggle("on", on);
}

function canvas(figure) {
  const width = figure.clientWidth - 28, height = figure.classList.contains("wide") ? 300 : 190;
  for (const old of figure.querySelectorAll("svg")) old.remove();
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  figure.appendChild(svg);
  return { svg, width, height };
}

function parallel(figure) {
  const { svg, width, height } = canvas(figure);
  const names = [...page.keys, page.metric];
  const columns = page.keys.map((_, at) => valued.map((trial) => trial.values[at]));
  const scales = [...columns.map(scale), metricScale];
  const x = (at) => 70 + at * (width - 140) / Math.max(1, names.length - 1);
  const y = (share) => height - 20 - share * (height - 60);
  names.forEach((name, at) => {
    element(svg, "line", { class: "axis", x1: x(at), x2: x(at), y1: y(0), y2: y(1) });
    element(svg, "text", { x: x(at), y: 16, "text-anchor": "middle" }, name);
  });
  for (const trial of [...valued].reverse()) {
    const texts = [...trial.values, String(trial.value)];
    const points = texts.map((text, at) => `${x(at)},${y(scales[at].place(text))}`).join(" ");
    link(element(svg, "polyline", { class: "trial", points, stroke: color(trial) }), trial);
  }
  // Over the lines; the last axis has room on its right only.
  names.forEach((_, at) => {
    const last = at === names.length - 1;
    for (const [share, text] of scales[at].ticks) {
      const place = { x: x(at) + (last ? 8 : -8), y: y(share) + 4, "text-anchor": last ? "start" : "end" };
      element(svg, "text", { class: "tick", ...place }, text);
    }
  });
}

function frame(svg, width, height, across, up) {
  const x = (share) => margin.left + share * (width - margin.left - margin.right);
  const y = (share) => height - margin.bottom - share * (height - margin.top - margin.bottom);
  for (const [share, text] of up) {
    element(svg, "line", { class: "grid", x1: x(0), x2: x(1), y1: y(share), y2: y(share) });
    element(svg, "text", { x: x(0) - 8, y: y(share) + 4, "text-anchor": "end" }, text);
  }
  for (const [share, text] of across) {
    element(svg, "text", { x: x(share), y: height - 6, "text-anchor": "middle" }, text);
  }
  return { x, y };
}

function scatter(figure) {
  const { svg, width, height } = canvas(figure);
  const at = Number(figure.dataset.key);
  const across = scale(valued.map((trial) => trial.values[at]));
  const { x, y } = frame(svg, width, height, across.ticks, metricScale.ticks);
  for (const trial of valued) {
    const place = { cx: x(across.place(trial.values[at])), cy: y(metricScale.place(String(trial.value))) };
    link(element(svg, "circle", { class: "point", r: 5, fill: color(trial), ...place }), trial);
  }
}

function curves(figure, steps, losses) {
  const { svg, width, height } = canvas(figure);
  const shown = page.trials.filter((trial) => trial[losses].length > 0);
  const all = shown.flatMap((trial) => trial[losses]).filter(Number.isFinite);
  if (all.length === 0) return element(svg, "text", { x: 54, y: 40 }, "nothing was logged");
  const low = Math.min(...all), high = Math.max(...all);
  const last = Math.max(...shown.map((trial) => trial[steps][trial[steps].length - 1]));
  const share = (value) => high > low ? (value - low) / (high - low) : 0.5;
  const up = [0, 0.25, 0.5, 0.75, 1].map((at) => [at, format(low + at * (high - low))]);
  const across = [0, 0.5, 1].map((at) => [at, String(Math.round(at * last))]);
  const { x, y } = frame(svg, width, height, across, up);
  for (const trial of [...shown].reverse()) {
    const points = trial[losses].map((loss, at) => [trial[steps][at] / last, loss])
      .filter(([, loss]) => Number.isFinite(loss)).map(([step, loss]) => `${x(step)},${y(share(loss))}`);
    link(element(svg, "polyline", { class: "trial", points: points.join(" "), stroke: color(trial) }), trial);
  }
}

function draw() {
  for (const figure of document.querySelectorAll("figure[data-chart]")) {
    const kind = figure.dataset.chart;
    if (kind === "parallel") parallel(figure);
    else if (kind === "scatter") scatter(figure);
    else curves(figure, kind === "losses" ? "steps" : "validation_steps", kind);
  }
}
draw();
let waiting;
addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(draw, 120); });
for (const row of document.querySelectorAll("tr[data-trial]")) {
  row.addEventListener("mouseenter", () => light(row.dataset.trial, true));
  row.addEventListener("mouseleave", () => light(row.dataset.trial, false));
}
