// What pages do beyond plain HTML: times that count on, forms in a dialog,
// parts that follow changes without disturbing whoever reads them, charts.
"use strict";

// Times: the server writes moments in UTC; here they become "12 s ago" and
// the reader's own clock. ---------------------------------------------------

const units = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];

function ago(seconds) {
  if (seconds < 1 && seconds > -30) return "just now";
  const text = (s) => {
    const [size, unit] = units.find(([n]) => s >= n) || [1, "s"];
    return `${Math.floor(s / size)} ${unit}`;
  };
  return seconds < 0 ? `in ${text(-seconds)}` : `${text(seconds)} ago`;
}

const sameDay = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const otherDay = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", hourCycle: "h23" });

const otherYear = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", year: "numeric" });
const minute = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const day = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });

function tellTimes(root) {
  const now = Date.now();
  for (const t of root.querySelectorAll("time[data-time]")) {
    const at = new Date(t.dateTime);
    const today = now - at < 20 * 3600e3 && at - now < 20 * 3600e3;
    const text = t.dataset.time === "ago" && now - at < 7 * 86400e3 ? ago((now - at) / 1000) : (today ? sameDay : at.getFullYear() === new Date().getFullYear() ? otherDay : otherYear).format(at);
    if (t.textContent !== text) t.textContent = text;
  }
}

// Links that the MLflow client prints when a run ends: its addresses lie behind
// a #, which never reaches the server. Whoever has to sign in first goes there after. ---

function followClientLink() {
  const found = location.hash.match(/^#\/experiments\/(\d+)(?:\/runs\/(\w[\w-]*))?/);
  if (!found) return;
  const to = found[2] ? `/runs/${found[2]}` : `/experiments/${found[1]}`;
  const next = document.querySelector('input[name="next"]');
  if (next) next.value = to;
  else location.replace(to);
}

followClientLink();

// Parts that follow changes: a part whose HTML is the same as before is left
// alone, so that focus, selection and scrolling stay where they are. Open
// <details> stay open. ------------------------------------------------------

const last = new Map();

function keepSame(event) {
  const { fragment, target } = event.detail;
  const fresh = fragment.firstElementChild || fragment;
  if (!target || !target.id) return;
  const html = fresh.outerHTML || "";
  if (last.get(target.id) === html) {
    event.detail.shouldSwap = false;
    return;
  }
  last.set(target.id, html);
  for (const d of target.querySelectorAll("details[id]")) {
    const next = fragment.querySelector(`#${CSS.escape(d.id)}`);
    if (next) next.open = d.open;
  }
}

function setLink(state, text) {
  const link = document.getElementById("link");
  if (!link) return;
  link.dataset.state = state;
  link.firstElementChild.textContent = text;
}

// Dialog --------------------------------------------------------------------

function openDialog(event) {
  if (event.detail.target.id !== "dialog-body") return;
  const dialog = document.getElementById("dialog");
  if (!dialog.open) dialog.showModal();
  dialog.querySelector("textarea, input:not([type=hidden])")?.focus();
}

function onClick(event) {
  const close = event.target.closest("[data-close]");
  const dialog = document.getElementById("dialog");
  if (close && dialog?.contains(close)) {
    event.preventDefault();
    dialog.close();
  }
}

// Charts: one column per cohort; accuracy, largest PSI and rows below each
// other, with one time axis and one cursor. -----------------------------------

const charts = [];
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// A token is light-dark(…), which only a property of an element resolves.
function colour(name) {
  const probe = document.createElement("i");
  probe.className = "probe";
  document.body.append(probe);
  probe.style.color = `var(${name})`;
  const value = getComputedStyle(probe).color;
  probe.remove();
  return value;
}

function faded(rgb, share) {
  return rgb.replace(/^rgb\(([^)]+)\)$/, (_, c) => `rgba(${c}, ${share})`);
}

const kinds = [
  { name: "Accuracy", of: "accuracy", band: true, range: (min) => [Math.min(0.9, Math.max(0, (min ?? 0.9) - 0.02)), 1], show: (v) => `${(100 * v).toFixed(1)} %` },
  { name: "Largest PSI", of: "psi", scale: { distr: 4, asinh: 0.2 }, range: (min, max) => [0, Math.max(0.3, (max ?? 0) * 1.1)], show: (v) => v.toFixed(2) },
  { name: "Brier score", of: "brier", range: (min, max) => [0, Math.max(0.1, (max ?? 0) * 1.1)], show: (v) => v.toFixed(3) },
  { name: "Predictions per step", of: "rows", range: (min, max) => [0, Math.max(1, (max ?? 1) * 1.1)], show: (v) => String(v) },
];

// columns joins the series of a cohort on one time axis.
function columns(cohort, kind) {
  const at = [...new Set(cohort.series.flatMap((s) => s.at))].sort((a, b) => a - b);
  const place = new Map(at.map((t, i) => [t, i]));
  const spread = (s, key) => {
    const out = new Array(at.length).fill(null);
    s.at.forEach((t, i) => { out[place.get(t)] = s[key][i]; });
    return out;
  };
  const data = [at];
  for (const s of cohort.series) {
    data.push(spread(s, kind.of));
    if (kind.band) data.push(spread(s, "upper"), spread(s, "lower"));
  }
  return data;
}

// drawRule draws a horizontal line at a limit.
function drawRule(value, paint) {
  return (u) => {
    if (!value) return;
    const y = Math.round(u.valToPos(value, "y", true));
    if (y < u.bbox.top || y > u.bbox.top + u.bbox.height) return;
    u.ctx.save();
    u.ctx.strokeStyle = paint;
    u.ctx.lineWidth = devicePixelRatio;
    u.ctx.setLineDash([6 * devicePixelRatio, 4 * devicePixelRatio]);
    u.ctx.beginPath();
    u.ctx.moveTo(u.bbox.left, y);
    u.ctx.lineTo(u.bbox.left + u.bbox.width, y);
    u.ctx.stroke();
    u.ctx.restore();
  };
}

function options(box, all, cohort, kind, range) {
  const series = [{}];
  const bands = [];
  for (const s of cohort.series) {
    const paint = colour(`--c${all.versions.indexOf(s.version) % 6}`);
    const points = { show: s.at.length < 2, size: 4 };
    series.push({ label: s.version, stroke: paint, width: 1.75, points, spanGaps: true });
    if (kind.band) {
      const edge = { stroke: "transparent", width: 0, points: { show: false }, spanGaps: true };
      series.push(edge, edge);
      bands.push({ series: [series.length - 2, series.length - 1], fill: faded(paint, 0.16) });
    }
  }
  const ink = colour("--ink-2");
  const axis = { stroke: ink, font: `11px ${css("--sans")}`, grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
  const clock = (u, ticks) => ticks.map((t) => (all.span[1] - all.span[0] > 2 * 86400 ? day : minute).format(t * 1000));
  const rule = kind.of === "accuracy" ? all.floor : kind.of === "psi" ? all.threshold : 0;
  return {
    padding: [8, 12, 0, 0],
    width: box.clientWidth - 16, height: box.clientHeight - 32, series, bands,
    legend: { show: false }, cursor: { y: false, sync: { key: "quality" }, points: { size: 6 } },
    scales: { y: { range, ...kind.scale }, x: { range: () => all.span } },
    axes: [{ ...axis, size: 24, values: clock, space: 70 }, { ...axis, size: 44, values: (u, ticks) => ticks.map((v) => (kind.of === "accuracy" ? `${Math.round(100 * v)} %` : v >= 1000 ? `${v / 1000}k` : v)) }],
    hooks: { draw: [drawRule(rule, colour("--bad"))], setCursor: [(u) => readOut(u, box, kind, cohort)] },
  };
}

// readOut writes the values under the cursor beside the title.
function readOut(u, box, kind, cohort) {
  const step = kind.band ? 3 : 1;
  const out = box.querySelector("output");
  const i = u.cursor.idx;
  out.textContent = i == null ? "" : cohort.series
    .map((s, n) => [s.version, u.data[1 + n * step][i]])
    .filter(([, v]) => v != null)
    .map(([version, v]) => `version ${version}: ${kind.show(v)}`)
    .join("   ");
}

function rangeOver(kind, all) {
  const values = all.cohorts.flatMap((c) => c.series.flatMap((s) => s[kind.of])).filter((v) => v != null);
  const range = kind.range(values.length ? Math.min(...values) : null, values.length ? Math.max(...values) : null);
  return () => range;
}

function drawCharts() {
  const place = document.getElementById("charts");
  const source = document.getElementById("chart-data");
  if (!place || !source || !window.uPlot) return;
  const all = JSON.parse(source.dataset.charts);
  const times = all.cohorts.flatMap((c) => c.series.flatMap((s) => s.at));
  all.span = [Math.min(...times), Math.max(...times)];
  all.kinds = kinds.filter((k) => all.cohorts.some((c) => c.series.some((s) => s[k.of].some((v) => v != null))));
  const shape = JSON.stringify([all.kinds.map((k) => k.of), ...all.cohorts.map((c) => [c.cohort, c.series.map((s) => s.version)])]);
  if (place.dataset.shape !== shape) buildCharts(place, all, shape);
  for (const c of charts) {
    const cohort = all.cohorts[c.column];
    c.plot.batch(() => {
      c.all.span = all.span;
      c.range = rangeOver(c.kind, all);
      c.plot.setData(columns(cohort, c.kind));
    });
  }
}

function buildCharts(place, all, shape) {
  for (const c of charts.splice(0)) c.plot.destroy();
  place.replaceChildren();
  place.dataset.shape = shape;
  place.style.setProperty("--columns", innerWidth < 800 ? 1 : Math.min(all.cohorts.length, 4));
  const perRow = innerWidth < 800 ? 1 : Math.min(all.cohorts.length, 4);
  for (let from = 0; from < all.cohorts.length; from += perRow) {
    for (const kind of all.kinds) {
      for (let i = from; i < Math.min(from + perRow, all.cohorts.length); i++) addChart(place, all, i, kind);
    }
  }
}

function addChart(place, all, column, kind) {
  const cohort = all.cohorts[column];
  const box = document.createElement("div");
  box.className = "chart";
  const title = document.createElement("p");
  const strong = document.createElement("b");
  strong.textContent = kind.name;
  title.append(strong, cohort.cohort ? ` site ${cohort.cohort}` : " no site", document.createElement("output"));
  box.append(title);
  place.append(box);
  const entry = { column, kind, all: { ...all }, range: rangeOver(kind, all) };
  entry.plot = new uPlot(options(box, entry.all, cohort, kind, () => entry.range()), columns(cohort, kind), box);
  charts.push(entry);
}

function redrawCharts() {
  const place = document.getElementById("charts");
  if (place) place.dataset.shape = "";
  drawCharts();
}

// Joining it all --------------------------------------------------------------

document.addEventListener("htmx:oobBeforeSwap", keepSame);
document.addEventListener("htmx:afterSettle", () => { tellTimes(document); drawCharts(); });
document.addEventListener("htmx:afterSwap", (e) => { tellTimes(document); openDialog(e); });
document.addEventListener("htmx:oobAfterSwap", () => tellTimes(document));
document.addEventListener("htmx:sseOpen", () => setLink("live", "Live"));
document.addEventListener("htmx:sseError", (e) => {
  setLink("lost", "Connecting…");
  // A stream that was refused may mean that the session ended: asking for the
  // page again leads to the sign-in page then.
  if (e.detail.source?.readyState === EventSource.CLOSED) htmx.trigger(document.querySelector("#live > div"), "sse:change");
});
document.addEventListener("click", onClick);
addEventListener("resize", (() => { let t; return () => { clearTimeout(t); t = setTimeout(redrawCharts, 150); }; })());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redrawCharts);
tellTimes(document);
setInterval(() => tellTimes(document), 1000);
drawCharts();
