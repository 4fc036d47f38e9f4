"use strict";
const COLOURS = ["#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#882255", "#44aa99", "#999933", "#332288"];
const at = id => document.getElementById(id);
const colour = (label, classes) => COLOURS[classes.indexOf(label) % COLOURS.length];
const SPAN = 60;

function element(tag, text, parent) {
  const one = document.createElement(tag);
  if (text !== undefined) one.textContent = text;
  if (parent) parent.append(one);
  return one;
}

function drawLegend(classes) {
  if (at("legend").childElementCount === classes.length) return;
  at("legend").replaceChildren();
  for (const label of classes) {
    const item = element("li", undefined, at("legend"));
    element("i", undefined, item).style.background = colour(label, classes);
    item.append(label);
  }
}

function drawTimeline(data) {
  const canvas = at("timeline"), scale = window.devicePixelRatio || 1;
  const width = canvas.clientWidth, height = 150;
  canvas.width = width * scale; canvas.height = height * scale;
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  if (!data.timeline.length) return;
  const last = data.timeline[data.timeline.length - 1].time_s;
  const x = time => width * (1 - (last - time) / SPAN), y = score => height - 6 - (height - 16) * score;
  pen.lineWidth = 1.6;
  for (const label of data.classes) {
    pen.strokeStyle = colour(label, data.classes);
    pen.beginPath();
    let before = null;
    for (const one of data.timeline) {
      if (one.time_s < last - SPAN || one.time_s > last) continue;
      const score = one.scores[label] || 0;
      if (before === null || one.time_s < before) pen.moveTo(x(one.time_s), y(score)); else pen.lineTo(x(one.time_s), y(score));
      before = one.time_s;
    }
    pen.stroke();
  }
}

function drawSeconds(data) {
  const table = at("seconds"), rows = Object.entries(data.seconds_by_class).sort((a, b) => b[1] - a[1]);
  const most = Math.max(1e-9, ...rows.map(row => row[1]));
  table.replaceChildren();
  for (const [label, seconds] of rows) {
    const row = element("tr", undefined, table);
    element("td", label, row);
    const cell = element("td", undefined, row);
    cell.className = "bar";
    const picture = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    picture.setAttribute("viewBox", "0 0 100 10"); picture.setAttribute("preserveAspectRatio", "none");
    const bar = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    bar.setAttribute("width", 100 * seconds / most); bar.setAttribute("height", 10);
    bar.setAttribute("fill", label === "nothing" ? "#bbbbbb" : colour(label, data.classes));
    picture.append(bar); cell.append(picture);
    element("td", seconds.toFixed(1) + " s", row);
  }
}

function show(data) {
  const lost = data.state === "lost";
  at("state").textContent = lost ? "source lost, trying again" : data.state;
  at("state").title = data.problem || "";
  at("state").className = lost ? "lost" : "";
  const action = data.action;
  at("action").textContent = action ? action.label || "nothing" : "–";
  at("action").style.color = action && action.label ? colour(action.label, data.classes) : "";
  at("score").textContent = action && action.label ? "score " + action.score.toFixed(2) : "";
  drawLegend(data.classes); drawTimeline(data); drawSeconds(data);
  const latency = data.latency_ms;
  at("numbers").textContent = `${data.frames_per_s.toFixed(1)} frames/s · ${data.dropped_frames} dropped`
    + (data.real_time_factor === null ? "" : ` · real-time factor ${data.real_time_factor.toFixed(2)}`
      + ` (drawing ${data.drawing_factor.toFixed(2)})`)
    + (latency ? ` · latency ${latency.p50.toFixed(0)} ms (p95 ${latency.p95.toFixed(0)})` : "")
    + ` · ${data.viewers} viewer${data.viewers === 1 ? "" : "s"} · up ${Math.round(data.uptime_s)} s`;
}

async function turn() {
  try {
    const answer = await fetch("/analytics");
    if (answer.ok) show(await answer.json());
    else {
      at("state").textContent = answer.status === 401 ? "open the address with the token again" : "not answered";
      at("state").className = "lost";
    }
  } catch {
    at("state").textContent = "server not reached"; at("state").className = "lost";
  }
  setTimeout(turn, 500);
}
turn();
