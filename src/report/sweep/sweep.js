// The sweep: trials as lines, points and curves.
const page = JSON.parse(document.getElementById("data").textContent);
const margin = { left: 54, right: 14, top: 14, bottom: 24 };
const valued = page.trials.filter((trial) => Number.isFinite(trial.value));

// Number axes with at most so many values have their ticks at the values.
const FEW = 5;

// A scale from the texts of one column: numbers, their logarithms where the sweep draws so or they
// span much, else words.
function scale(texts, wantsLog, ticksAtValues) {
  const words = [...new Set(texts)];
  const numbers = words.map(Number).sort((one, other) => one - other);
  if (words.some((word) => word.trim() === "") || numbers.some((number) => !Number.isFinite(number))) {
    words.sort();
    const place = (text) => words.length < 2 ? 0.5 : words.indexOf(text) / (words.length - 1);
    return { place, ticks: words.map((word) => [place(word), word]) };
  }
  const [first, last] = [numbers[0], numbers[numbers.length - 1]];
  const log = first > 0 && (wantsLog || last / first >= 20);
  const few = ticksAtValues && numbers.length <= FEW;
  const [low, high, picked] = few ? [first, last, numbers] : rounded(first, last, log);
  const to = log ? Math.log : (number) => number;
  const at = (number) => high > low ? (to(number) - to(low)) / (to(high) - to(low)) : 0.5;
  const ticks = [];
  for (const number of picked) {
    // Numbers that are close together would be written over each other.
    if (ticks.every(([share]) => Math.abs(share - at(number)) > 0.07)) ticks.push([at(number), format(number)]);
  }
  return { place: (text) => at(Number(text)), ticks };
}

// Round numbers around the range, and the round ones between them.
function rounded(first, last, log) {
  if (first === last) return [first, last, [first]];
  if (log) {
    const ladder = [];
    for (let power = Math.floor(Math.log10(first)); power <= Math.ceil(Math.log10(last)); power++) {
      for (const factor of [1, 2, 5]) ladder.push(factor * Math.pow(10, power));
    }
    const low = ladder.findLast((rung) => rung <= first * 1.0001), high = ladder.find((rung) => rung >= last * 0.9999);
    return [low, high, ladder.filter((rung) => rung >= low && rung <= high)];
  }
  const step = tickStep(first, last, 4);
  const low = Math.floor(first / step + 1e-9) * step, high = Math.ceil(last / step - 1e-9) * step;
  return [low, high, niceTicks(low, high, Math.round((high - low) / step))];
}

const metricScale = scale(valued.map((trial) => String(trial.value)), false, false);
const keyScale = (at) => scale(valued.map((trial) => trial.values[at]), page.log[at], true);
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

// Width of a letter in a chart, about.
const LETTER = 6.8;
// A key is known by its end, a value by its start.
const endOf = (text, room) => text.length * LETTER <= room ? text : "…" + text.slice(-Math.max(2, Math.floor(room / LETTER) - 1));
const startOf = (text, room) => text.length * LETTER <= room ? text : text.slice(0, Math.max(2, Math.floor(room / LETTER) - 1)) + "…";

function parallel(figure) {
  const { svg, width, height } = canvas(figure);
  const names = [...page.keys, page.metric];
  const scales = [...page.keys.map((_, at) => keyScale(at)), metricScale];
  // The texts of the first axis stand on its left.
  const widest = Math.max(...scales[0].ticks.map(([, text]) => text.length));
  const left = Math.min(Math.max(70, widest * LETTER + 20), width / 4);
  const gap = (width - left - 70) / Math.max(1, names.length - 1);
  const x = (at) => left + at * gap;
  const y = (share) => height - 20 - share * (height - 60);
  names.forEach((name, at) => {
    element(svg, "line", { class: "axis", x1: x(at), x2: x(at), y1: y(0), y2: y(1) });
    const isFirst = at === 0, isLast = at === names.length - 1;
    const place = isFirst ? { x: 0, "text-anchor": "start" } : isLast ? { x: width, "text-anchor": "end" } : { x: x(at), "text-anchor": "middle" };
    const room = isFirst ? left + gap / 2 - 8 : isLast ? 70 + gap / 2 - 8 : gap - 8;
    const label = element(svg, "text", { y: 16, ...place }, endOf(name, room));
    element(label, "title", {}, name);
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
      const label = element(svg, "text", { class: "tick", ...place }, startOf(text, (at === 0 ? left : last ? 70 : gap) - 16));
      element(label, "title", {}, text);
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
  const across = keyScale(at);
  const room = across.ticks.length > 1 ? (width - margin.left - margin.right) / (across.ticks.length - 1) - 8 : width;
  const shown = across.ticks.map(([share, text]) => [share, startOf(text, room)]);
  const { x, y } = frame(svg, width, height, shown, metricScale.ticks);
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
  const [low, high, ticks] = rounded(all.reduce((a, b) => Math.min(a, b)), all.reduce((a, b) => Math.max(a, b)), false);
  const last = Math.max(...shown.map((trial) => trial[steps][trial[steps].length - 1]));
  const share = (value) => high > low ? (value - low) / (high - low) : 0.5;
  const up = ticks.map((tick) => [share(tick), format(tick)]);
  const across = niceTicks(0, last, 4).filter(Number.isInteger).map((tick) => [tick / last, tick.toLocaleString("en-US")]);
  const { x, y } = frame(svg, width, height, across, up);
  for (const trial of [...shown].reverse()) {
    const points = trial[losses].map((loss, at) => [trial[steps][at] / last, loss])
      .filter(([, loss]) => Number.isFinite(loss)).map(([step, loss]) => `${x(step)},${y(share(loss))}`);
    // A line needs two points.
    if (points.length === 1) {
      const [cx, cy] = points[0].split(",");
      link(element(svg, "circle", { class: "point", r: 4, fill: color(trial), cx, cy }), trial);
    } else {
      link(element(svg, "polyline", { class: "trial", points: points.join(" "), stroke: color(trial) }), trial);
    }
  }
  legend(figure, shown);
}

// Trials with their colors, best first; of many only the ends.
function legend(figure, shown) {
  for (const old of figure.querySelectorAll(".legend")) old.remove();
  const named = document.createElement("span");
  named.className = "legend";
  const add = (text, trial) => {
    const item = document.createElement("span"), mark = document.createElement("i");
    mark.style.background = color(trial);
    item.append(mark, text);
    item.title = title(trial);
    item.dataset.trial = trial.number;
    item.addEventListener("mouseenter", () => light(trial.number, true));
    item.addEventListener("mouseleave", () => light(trial.number, false));
    named.append(item);
  };
  const ends = shown.filter((trial) => Number.isFinite(trial.value));
  if (shown.length <= 8) for (const trial of shown) add(`trial ${trial.number}`, trial);
  else if (ends.length > 1) {
    const by = [...ends].sort((one, other) => goodness(other) - goodness(one));
    add(`best ${page.metric} (trial ${by[0].number})`, by[0]);
    add(`worst (trial ${by[by.length - 1].number})`, by[by.length - 1]);
  }
  figure.querySelector("figcaption").append(named);
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
