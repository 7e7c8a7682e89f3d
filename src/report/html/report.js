// The report: charts, samples, the recipe.
const curves = JSON.parse(document.getElementById("curves").textContent);
const margin = { left: 54, right: 12, top: 10, bottom: 24 };

// The weight that makes the average lag by this share of a curve of so many points. A short curve is
// shown as it is, until somebody asks for more.
const SHORT = 50;
const smoothing = document.getElementById("smooth");
let asked = false;
function weightFor(points) {
  if (points < SHORT && !asked) return 0;
  const lag = points * Number(smoothing.value) / 100;
  return lag / (1 + lag);
}

// Exponential moving average with its start corrected, so that early values are not pulled to 0.
function smoothed(values, weight) {
  let sum = 0, total = 0;
  return values.map((value) => {
    if (!Number.isFinite(value)) return value;
    sum = weight * sum + (1 - weight) * value;
    total = weight * total + (1 - weight);
    return sum / total;
  });
}

function seriesOf(kind, data) {
  const smooth = weightFor(data.steps.length);
  const train = (name, values, color, weight) => ({ name, x: data.steps, raw: values, y: smoothed(values, weight), color, smooth: weight > 0 });
  if (kind === "loss") {
    return [
      train("train", data.train_loss, "var(--blue)", smooth),
      { name: "validation", x: data.validation_steps, y: data.validation_loss, color: "var(--orange)", points: true },
    ].filter((series) => series.x.length > 0);
  }
  const metric = data.metrics.find(([name]) => name === kind);
  if (metric) return [{ name: kind, x: data.validation_steps, y: metric[1], color: "var(--orange)", points: true }];
  const colors = { learning_rate: "var(--green)", grad_norm: "var(--violet)", tokens_per_second: "var(--blue)" };
  return [train(kind.replaceAll("_", " "), data[kind], colors[kind], kind === "learning_rate" ? 0 : smooth)];
}

function path(series, values, x, y) {
  let text = "", pen = "M";
  series.x.forEach((step, index) => {
    const value = values[index];
    if (!Number.isFinite(value)) { pen = "M"; return; }
    text += pen + x(step).toFixed(1) + " " + y(value).toFixed(1);
    pen = "L";
  });
  return text;
}

function limits(all, kind, isLog) {
  let low = Infinity, high = -Infinity;
  for (const series of all) for (const value of [...series.y, ...(series.raw || [])]) {
    if (!Number.isFinite(value) || (isLog && value <= 0)) continue;
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  if (low > high) return [0, 1];
  if (isLog) return [low * 0.97, high * 1.03];
  if (kind !== "loss" || low < high * 0.3) low = Math.min(low, 0);
  const pad = (high - low || Math.abs(high) || 1) * 0.06;
  return [low === 0 ? 0 : low - pad, high + pad];
}

function draw(figure) {
  const kind = figure.dataset.chart;
  const data = curves[Number(figure.dataset.group)];
  const isLog = kind === "loss" && document.getElementById("log").checked;
  const all = seriesOf(kind, data);
  figure.querySelectorAll("svg, .tip, .legend").forEach((old) => old.remove());
  const svg = element(figure, "svg", { role: "img", "aria-label": figure.querySelector("figcaption").textContent });
  const { width, height } = svg.getBoundingClientRect();
  const steps = all.flatMap((series) => series.x);
  const [first, last] = [Math.min(...steps.slice(0, 1), 0), steps.reduce((a, b) => Math.max(a, b), 1)];
  const [low, high] = limits(all, kind, isLog);
  const level = isLog ? Math.log : (value) => value;
  const x = (step) => margin.left + (step - first) / (last - first || 1) * (width - margin.left - margin.right);
  const y = (value) => height - margin.bottom - (level(value) - level(low)) / (level(high) - level(low)) * (height - margin.top - margin.bottom);
  for (const tick of isLog ? logTicks(low, high) : niceTicks(low, high, height > 250 ? 6 : 4)) {
    element(svg, "line", { class: "grid", x1: margin.left, x2: width - margin.right, y1: y(tick), y2: y(tick) });
    element(svg, "text", { x: margin.left - 8, y: y(tick) + 4, "text-anchor": "end" }, format(tick));
  }
  for (const tick of niceTicks(first, last, width > 600 ? 8 : 4)) {
    element(svg, "text", { x: x(tick), y: height - 6, "text-anchor": "middle" }, tick.toLocaleString("en-US"));
  }
  element(svg, "line", { class: "axis", x1: margin.left, x2: width - margin.right, y1: height - margin.bottom, y2: height - margin.bottom });
  for (const series of all) {
    if (series.smooth) element(svg, "path", { class: "raw", stroke: series.color, d: path(series, series.raw, x, y) });
    element(svg, "path", { class: "curve", stroke: series.color, d: path(series, series.y, x, y) });
    const isNumber = (index) => Number.isFinite(series.y[index]);
    series.x.forEach((step, index) => {
      // A line needs two neighbours: a lone point would not be seen.
      const lone = !isNumber(index - 1) && !isNumber(index + 1);
      if (!isNumber(index) || !(lone || series.points && series.x.length <= 60)) return;
      element(svg, "circle", { class: "dot", r: 3.5, fill: series.color, cx: x(step), cy: y(series.y[index]) });
    });
  }
  if (all.length > 1) addLegend(figure, all);
  addHover(figure, svg, all, { x, y, first, last, width, height });
}

function addLegend(figure, all) {
  const legend = document.createElement("span");
  legend.className = "legend";
  for (const series of all) {
    const item = document.createElement("span");
    const mark = document.createElement("i");
    mark.style.background = series.color;
    item.append(mark, series.name);
    legend.append(item);
  }
  figure.querySelector("figcaption").append(legend);
}

function nearest(steps, wanted) {
  let low = 0, high = steps.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (steps[middle] < wanted) low = middle; else high = middle;
  }
  return Math.abs(steps[low] - wanted) <= Math.abs(steps[high] - wanted) ? low : high;
}

function addHover(figure, svg, all, scale) {
  const layer = element(svg, "g", { visibility: "hidden" });
  const cross = element(layer, "line", { class: "cross", y1: margin.top, y2: scale.height - margin.bottom });
  const dots = all.map((series) => element(layer, "circle", { class: "dot", r: 4, fill: series.color }));
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  figure.append(tip);
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const inside = (event.clientX - box.left - margin.left) / (scale.width - margin.left - margin.right);
    const wanted = scale.first + Math.min(1, Math.max(0, inside)) * (scale.last - scale.first);
    const step = all[0].x[nearest(all[0].x, wanted)];
    const lines = all.map((series, index) => {
      const at = nearest(series.x, step);
      const value = series.y[at];
      dots[index].setAttribute("cx", scale.x(series.x[at]));
      dots[index].setAttribute("cy", Number.isFinite(value) ? scale.y(value) : -99);
      const line = document.createElement("div");
      const mark = document.createElement("i");
      mark.style.background = series.color;
      const exact = series.smooth && Number.isFinite(series.raw[at]) ? " (this step " + format(series.raw[at]) + ")" : "";
      const where = series.x[at] === step ? "" : " at " + series.x[at].toLocaleString("en-US");
      line.append(mark, series.name + " " + (Number.isFinite(value) ? format(value) : "not a number") + exact + where);
      return line;
    });
    const title = document.createElement("b");
    title.textContent = "step " + step.toLocaleString("en-US");
    tip.replaceChildren(title, ...lines);
    cross.setAttribute("x1", scale.x(step));
    cross.setAttribute("x2", scale.x(step));
    layer.setAttribute("visibility", "visible");
    tip.hidden = false;
    const left = svg.offsetLeft || (box.left - figure.getBoundingClientRect().left);
    const at = left + scale.x(step);
    const fits = at + 14 + tip.offsetWidth < figure.clientWidth;
    tip.style.left = (fits ? at + 14 : Math.max(4, at - 14 - tip.offsetWidth)) + "px";
    tip.style.top = "44px";
  });
  svg.addEventListener("pointerleave", () => {
    layer.setAttribute("visibility", "hidden");
    tip.hidden = true;
  });
}

const figures = [...document.querySelectorAll("[data-chart]")];
const drawAll = () => figures.forEach(draw);
if (figures.length) {
  drawAll();
  addEventListener("resize", drawAll);
  smoothing.addEventListener("input", () => { asked = true; drawAll(); });
  document.getElementById("log").addEventListener("change", drawAll);
}

// Tables of samples and metrics are sorted by a click on a column's head, the other way by the next.
document.querySelectorAll("table.samples th, table.metrics th[scope=col]").forEach((head) => {
  head.style.cursor = "pointer";
  head.title = "sort";
  head.addEventListener("click", () => {
    const body = head.closest("table").tBodies[0];
    const column = [...head.parentNode.children].indexOf(head);
    const down = head.dataset.sorted === "up";
    head.parentNode.querySelectorAll("th").forEach((other) => { delete other.dataset.sorted; });
    head.dataset.sorted = down ? "down" : "up";
    const text = (row) => row.children[column].textContent.trim();
    const number = (row) => parseFloat(row.children[column].dataset.value ?? text(row).replaceAll(",", ""));
    const rows = [...body.rows];
    const byNumber = rows.every((row) => Number.isFinite(number(row)));
    rows.sort((a, b) => (byNumber ? number(a) - number(b) : text(a).localeCompare(text(b))) * (down ? -1 : 1));
    body.append(...rows);
  });
});

// Samples: rows by hit or miss of one stage, and by text.
const filter = document.getElementById("filter");
if (filter) {
  const search = document.getElementById("search");
  const rows = [...document.querySelectorAll(".samples tbody tr")];
  const apply = () => {
    const [wanted, stage] = filter.value.split("-");
    const text = search.value.toLowerCase();
    let shown = 0;
    for (const row of rows) {
      const isHit = row.dataset.hits[Number(stage)] === "1";
      const fits = wanted === "all" || (wanted === "hit") === isHit;
      row.hidden = !(fits && row.textContent.toLowerCase().includes(text));
      if (!row.hidden) shown += 1;
    }
    document.getElementById("shown").textContent = shown;
  };
  filter.addEventListener("change", apply);
  search.addEventListener("input", apply);
}

// The recipe: colors by simple rules over lines, text kept as it is.
const yaml = document.getElementById("yaml");
if (yaml) {
  const span = (name, text) => {
    const made = document.createElement("span");
    made.className = name;
    made.textContent = text;
    return made;
  };
  const kindOf = (text) => (/^\s*(-?[\d.]+(e[+-]?\d+)?|true|false|null|~)\s*$/i.test(text) ? "value" : "string");
  const lines = yaml.textContent.split("\n");
  yaml.replaceChildren();
  for (const line of lines) {
    const parts = /^(\s*(?:- )*)([\w.$-]+)(:)(.*)$/.exec(line);
    if (/^\s*#/.test(line)) yaml.append(span("comment", line));
    else if (parts) yaml.append(parts[1], span("key", parts[2]), parts[3], span(kindOf(parts[4]), parts[4]));
    else yaml.append(span(kindOf(line.replace(/^\s*-/, "")), line));
    yaml.append("\n");
  }
}
document.querySelectorAll("[data-copy]").forEach((button) => {
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
    button.textContent = "copied";
    setTimeout(() => { button.textContent = "copy"; }, 1500);
  });
});
