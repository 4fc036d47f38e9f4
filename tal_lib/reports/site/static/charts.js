/* Two charts in SVG: accuracy against cost, and learning curves. Every text is set as text, never as HTML. */
"use strict";
window.TAL_CHARTS = (() => {
  const SVG = "http://www.w3.org/2000/svg";
  const HEIGHT = 360;

  const element = (name, attributes = {}, ...children) => {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  };

  /* A colour that dark and light pages both show; the model of the palette's black takes the text's colour. */
  const paint = (colour) => (colour === "#000000" ? "var(--md-default-fg-color)" : colour);

  const linear = (low, high, from, to) => (value) => from + ((value - low) / (high - low || 1)) * (to - from);

  const ticks = (low, high, wanted) => {
    const raw = (high - low || 1) / wanted;
    const power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= raw);
    const made = [];
    for (let at = Math.ceil(low / step) * step; at <= high + step / 1e6; at += step) made.push(Number(at.toPrecision(8)));
    return made;
  };

  const logTicks = (low, high) => {
    const made = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1) {
      for (const factor of [1, 2, 5]) {
        const at = factor * 10 ** power;
        if (at >= low && at <= high) made.push(Number(at.toPrecision(6)));
      }
    }
    return made;
  };

  const bounds = (values, share) => {
    const low = Math.min(...values);
    const high = Math.max(...values);
    const pad = (high - low || 1) * share;
    return [low - pad, high + pad];
  };

  /* Moves labels apart, from the top; each keeps at least `gap` to the one above. */
  const apart = (labels, gap, top, bottom) => {
    labels.sort((a, b) => a.y - b.y);
    labels.forEach((label, number) => {
      label.y = Math.max(label.y, number ? labels[number - 1].y + gap : top);
    });
    for (let number = labels.length - 1; number >= 0; number -= 1) {
      const limit = number === labels.length - 1 ? bottom : labels[number + 1].y - gap;
      labels[number].y = Math.min(labels[number].y, limit);
    }
    return labels;
  };

  const around = (x, y, radius) => ({ x0: x - radius, x1: x + radius, y0: y - radius, y1: y + radius });
  const meet = (a, b) => a.x0 < b.x1 && a.x1 > b.x0 && a.y0 < b.y1 && a.y1 > b.y0;
  const STEPS = [-9, 18, -24, 33, -39, 48, -54, 63, 78, 93]; // pixels below a point, the nearest first

  /* A place for each name beside its point: the nearest that covers no point and no other name. */
  const beside = (labels, dots, area) => {
    const taken = [...dots];
    return labels.map(({ text, at }) => {
      const width = 6.7 * text.length;
      const places = STEPS.flatMap((step) => [1, -1].map((side) => {
        const x = at[0] + 8 * side;
        const box = { x0: side > 0 ? x : x - width, x1: side > 0 ? x + width : x, y0: at[1] + step - 11, y1: at[1] + step + 3 };
        return { text, at, x, y: at[1] + step, anchor: side > 0 ? "start" : "end", far: Math.abs(step) > 18, box };
      }));
      const inside = places.filter(({ box }) => box.x0 >= area.left && box.x1 <= area.width && box.y0 >= 0 && box.y1 <= area.bottom);
      const covered = ({ box }) => taken.filter((other) => meet(box, other)).length;
      const best = (inside.length ? inside : places).reduce((first, second) => (covered(second) < covered(first) ? second : first));
      taken.push(best.box);
      return best;
    });
  };

  const frame = (holder, words, margin) => {
    const width = Math.max(280, holder.clientWidth);
    const area = { left: margin.left, right: width - margin.right, top: 14, bottom: HEIGHT - 44, width };
    const svg = element("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, width, height: HEIGHT, role: "group", "aria-label": words.title });
    svg.append(element("text", { x: (area.left + area.right) / 2, y: HEIGHT - 6, class: "tal-axis", "text-anchor": "middle" }, words.x));
    svg.append(element("text", { x: -(area.top + area.bottom) / 2, y: 12, class: "tal-axis", "text-anchor": "middle", transform: "rotate(-90)" }, words.y));
    return [svg, area];
  };

  const grid = (svg, area, x, y, xTicks, yTicks, xWords) => {
    for (const at of yTicks) {
      svg.append(element("line", { x1: area.left, x2: area.right, y1: y(at), y2: y(at), class: "tal-grid" }));
      svg.append(element("text", { x: area.left - 6, y: y(at) + 4, class: "tal-tick", "text-anchor": "end" }, String(at)));
    }
    let last = -Infinity;
    for (const at of xTicks) {
      svg.append(element("line", { x1: x(at), x2: x(at), y1: area.top, y2: area.bottom, class: "tal-grid" }));
      if (x(at) - last < 34) continue;
      last = x(at);
      svg.append(element("text", { x: x(at), y: area.bottom + 16, class: "tal-tick", "text-anchor": "middle" }, xWords(at)));
    }
  };

  const touchable = (mark, point, tip) => {
    mark.setAttribute("tabindex", "0");
    mark.setAttribute("role", "img");
    mark.setAttribute("aria-label", point.words.join(", "));
    mark.dataset.model = point.model;
    for (const name of ["mouseenter", "focus", "click"]) mark.addEventListener(name, () => tip.show(mark, point));
    for (const name of ["mouseleave", "blur"]) mark.addEventListener(name, tip.hide);
    return mark;
  };

  const isOnFront = (point, points) =>
    !points.some((other) => other.x <= point.x && other.y >= point.y && (other.x < point.x || other.y > point.y));

  /* points: {model, colour, x, y, low, high, words}; x is on a logarithmic axis. */
  const scatter = (holder, points, words, tip) => {
    const [svg, area] = frame(holder, words, { left: 44, right: 16 });
    const xs = points.map((point) => point.x);
    const [low, high] = [Math.min(...xs) / 1.25, Math.max(...xs) * 1.35];
    const log = linear(Math.log10(low), Math.log10(high), area.left, area.right);
    const x = (value) => log(Math.log10(value));
    const range = bounds(points.flatMap((point) => [point.y, point.low ?? point.y, point.high ?? point.y]), 0.06);
    const y = linear(...range, area.bottom, area.top);
    grid(svg, area, x, y, logTicks(low, high), ticks(...range, 6), (at) => String(at));
    const front = points.filter((point) => isOnFront(point, points)).sort((a, b) => a.x - b.x);
    svg.append(element("polyline", { points: front.map((point) => `${x(point.x)},${y(point.y)}`).join(" "), class: "tal-front" }));
    const marks = points.map((point) => {
      const mark = element("g", { class: "tal-mark" });
      const colour = paint(point.colour);
      if (point.low !== null) mark.append(element("line", { x1: x(point.x), x2: x(point.x), y1: y(point.low), y2: y(point.high), stroke: colour, class: "tal-interval" }));
      mark.append(element("circle", { cx: x(point.x), cy: y(point.y), r: 5, fill: colour }));
      mark.append(element("circle", { cx: x(point.x), cy: y(point.y), r: 14, fill: "transparent" }));
      return touchable(mark, point, tip);
    });
    svg.append(...marks);
    const dots = points.map((point) => around(x(point.x), y(point.y), 6));
    for (const label of beside(front.map((point) => ({ text: point.model, at: [x(point.x), y(point.y)] })), dots, area)) {
      if (label.far) svg.append(element("line", { x1: label.at[0], y1: label.at[1], x2: label.x, y2: label.y - 4, class: "tal-leader", stroke: "currentColor" }));
      svg.append(element("text", { x: label.x, y: label.y, class: "tal-label", "text-anchor": label.anchor }, label.text));
    }
    holder.replaceChildren(svg);
  };

  /* lines: {model, colour, points: [{model, x: label fraction, y, low, high, words}]} */
  const curves = (holder, lines, words, chosen, tip) => {
    const [svg, area] = frame(holder, words, { left: 44, right: holder.clientWidth < 430 ? 124 : 172 });
    const all = lines.flatMap((line) => line.points);
    const xs = [...new Set(all.map((point) => point.x))].sort((a, b) => a - b);
    const log = linear(Math.log10(xs[0]), Math.log10(xs.at(-1)), area.left + 8, area.right - 8);
    const x = (value) => (xs.length > 1 ? log(Math.log10(value)) : (area.left + area.right) / 2);
    const range = bounds(all.flatMap((point) => [point.y, point.low ?? point.y, point.high ?? point.y]), 0.04);
    const y = linear(...range, area.bottom, area.top);
    grid(svg, area, x, y, xs, ticks(...range, 6), (at) => `${Number((100 * at).toPrecision(4))} %`);
    svg.append(element("line", { x1: x(chosen), x2: x(chosen), y1: area.top, y2: area.bottom, class: "tal-chosen" }));
    const ends = [];
    for (const line of lines) {
      const colour = paint(line.colour);
      const group = element("g", { class: "tal-mark" });
      group.dataset.line = line.model;
      group.append(element("polyline", { points: line.points.map((point) => `${x(point.x)},${y(point.y)}`).join(" "), stroke: colour, class: "tal-curve" }));
      for (const point of line.points) {
        const mark = element("g");
        if (point.low !== null) mark.append(element("line", { x1: x(point.x), x2: x(point.x), y1: y(point.low), y2: y(point.high), stroke: colour, class: "tal-interval" }));
        mark.append(element("circle", { cx: x(point.x), cy: y(point.y), r: 3, fill: colour }));
        mark.append(element("circle", { cx: x(point.x), cy: y(point.y), r: 10, fill: "transparent" }));
        group.append(touchable(mark, point, tip));
      }
      svg.append(group);
      const last = line.points.at(-1);
      ends.push({ line, colour, y: y(last.y), from: [x(last.x), y(last.y)] });
    }
    for (const end of apart(ends, 13, area.top + 4, area.bottom)) {
      const [fromX, fromY] = end.from;
      svg.append(element("line", { x1: fromX + 4, y1: fromY, x2: area.right + 26, y2: end.y, stroke: end.colour, class: "tal-leader" }));
      const name = end.line.model.length > 24 ? `${end.line.model.slice(0, 23)}…` : end.line.model;
      const label = element("text", { x: area.right + 29, y: end.y + 4, class: "tal-label" }, name);
      label.addEventListener("mouseenter", () => emphasise(svg, end.line.model));
      label.addEventListener("mouseleave", () => emphasise(svg, null));
      svg.append(label);
    }
    holder.replaceChildren(svg);
  };

  const emphasise = (root, model) => {
    root.querySelectorAll("[data-line]").forEach((line) => line.classList.toggle("tal-dim", model !== null && line.dataset.line !== model));
  };

  return { scatter, curves, emphasise, paint };
})();
