"use strict";
// What every page of the program shares: the theme, SVG elements, numbers as people read them.

// Theme: the system's, until the button is used; remembered where the browser allows it.
const root = document.documentElement;
const stored = (() => { try { return localStorage.getItem("sft-run-theme"); } catch { return null; } })();
root.dataset.theme = stored || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
document.getElementById("theme").addEventListener("click", () => {
  root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
  try { localStorage.setItem("sft-run-theme", root.dataset.theme); } catch { /* a file:// page may not store */ }
});

const SVG = "http://www.w3.org/2000/svg";

function element(parent, name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  parent.appendChild(made);
  return made;
}

function format(value) {
  if (!Number.isFinite(value)) return String(value);
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size >= 1e4) return Math.round(value).toLocaleString("en-US");
  if (size >= 1e3) return Number(value.toPrecision(4)).toLocaleString("en-US");
  if (size < 1e-3) return value.toExponential(2).replace(/\.?0+e/, "e");
  return String(Number(value.toPrecision(4)));
}

// The distance of about `count` ticks: 1, 2, 2.5 or 5 times a power of ten.
function tickStep(low, high, count) {
  const rough = (high - low) / count;
  const power = Math.pow(10, Math.floor(Math.log10(rough)));
  return [1, 2, 2.5, 5, 10].find((factor) => factor * power >= rough) * power;
}

function niceTicks(low, high, count) {
  const step = tickStep(low, high, count);
  const ticks = [];
  for (let tick = Math.ceil(low / step - 1e-9) * step; tick <= high + step * 1e-6; tick += step) {
    ticks.push(Math.abs(tick) < step * 1e-9 ? 0 : tick);
  }
  return ticks;
}

function logTicks(low, high) {
  if (high / low < 20) return niceTicks(low, high, 6);
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
    for (const factor of [1, 2, 5]) {
      const tick = factor * Math.pow(10, power);
      if (tick >= low * 0.999 && tick <= high * 1.001) ticks.push(tick);
    }
  }
  return ticks;
}
