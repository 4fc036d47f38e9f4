/* The explorer of the start page. Its data come from results.js, which `tal site` writes from the tables.
   The state is in the address after `#`, so that a link shows what its sender saw. */
"use strict";
(() => {
  const data = window.TAL_RESULTS;
  const root = document.getElementById("tal-explorer");
  if (!data || !root) return;
  const charts = window.TAL_CHARTS;

  const rows = data.rows.map((values) => Object.fromEntries(data.columns.map((name, place) => [name, values[place]])));
  const distinct = (values) => [...new Set(values)];
  const state = { benchmark: "", arm: "", fraction: 1, cost: "macs", hide: [], find: "", sort: "mean", down: true };

  const make = (name, attributes = {}, ...children) => {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
      else if (key in made && key !== "list") made[key] = value;
      else made.setAttribute(key, value);
    }
    made.append(...children);
    return made;
  };

  /* ---- what can be chosen ---- */
  const benchmarks = () => distinct(rows.map((row) => row.benchmark));
  const arms = () => data.arms.map((arm) => arm.id).filter((arm) => rows.some((row) => row.arm === arm && row.benchmark === state.benchmark));
  const ofArm = () => rows.filter((row) => row.benchmark === state.benchmark && row.arm === state.arm);
  const fractions = () => distinct(ofArm().map((row) => row.fraction)).sort((a, b) => a - b);
  const percent = (fraction) => `${Number((100 * fraction).toPrecision(4))} %`;
  const costsHere = () => data.costs[(data.costs[state.benchmark] || {}).of];
  const measured = () => (costsHere() || { models: {} }).models;

  const cost = (row, name) => {
    if (name === "params") return row.params === null ? null : row.params / 1e6;
    if (name === "train") return row.train_s;
    const known = measured()[row.model];
    return known ? known[name] : null;
  };
  const available = () => Object.keys(data.axes).filter((name) => ofArm().some((row) => cost(row, name) > 0));

  /* ---- state and address ---- */
  const read = () => {
    const asked = new URLSearchParams(location.hash.slice(1));
    const pick = (name, choices, otherwise) => {
      const value = choices.find((choice) => String(choice) === asked.get(name));
      return value === undefined ? otherwise : value;
    };
    state.benchmark = pick("benchmark", benchmarks(), benchmarks().find((name) => name === "mean") || benchmarks()[0]);
    state.arm = pick("arm", arms(), arms()[0]);
    state.fraction = pick("fraction", fractions(), fractions().at(-1));
    state.cost = pick("cost", Object.keys(data.axes), "macs");
    state.hide = (asked.get("hide") || "").split("~").filter(Boolean);
    state.find = asked.get("find") || "";
    state.sort = pick("sort", columns().map((column) => column.id), "mean");
    state.down = asked.get("order") !== "up";
    settle();
  };

  /* Keeps only what exists: another benchmark has other arms, label fractions and costs. */
  const settle = () => {
    if (!arms().includes(state.arm)) state.arm = arms()[0];
    if (!fractions().includes(state.fraction)) state.fraction = fractions().at(-1);
    if (!available().includes(state.cost)) state.cost = available()[0] || "macs";
  };

  const write = () => {
    const address = new URLSearchParams({ benchmark: state.benchmark, arm: state.arm, fraction: state.fraction, cost: state.cost });
    if (state.hide.length) address.set("hide", state.hide.join("~"));
    if (state.find) address.set("find", state.find);
    if (state.sort !== "mean" || !state.down) {
      address.set("sort", state.sort);
      address.set("order", state.down ? "down" : "up");
    }
    history.replaceState(null, "", `#${address}`);
  };

  /* ---- words ---- */
  const decimal = (value) => (value === null ? "–" : value.toFixed(1));
  const short = (value, digits = 3) => {
    if (value === null) return "–";
    const known = digits < 3 ? Number(value.toPrecision(digits)) : value;
    return known >= 10 ** (digits - 1) ? Math.round(known).toLocaleString("en") : known.toPrecision(digits);
  };
  const isNoisy = (row, name) => (((costsHere() || {}).noisy || {})[name] || []).includes(row.model);
  const costWords = (row, name) => short(cost(row, name), isNoisy(row, name) ? 2 : 3);
  const interval = (row) => (row.low === null ? "–" : `[${decimal(row.low)}, ${decimal(row.high)}]`);
  const runsOf = (row) => (row.runs === null ? "" : row.runs === 1 ? "one run" : `${row.runs} ${hasFolds() ? "folds" : "runs"}`);
  const hasFolds = () => ["equal", "plain"].includes(state.arm);
  const point = (row) => ({
    model: row.model, colour: data.models[row.model], low: row.low, high: row.high, y: row.mean,
    words: [
      row.model,
      `${decimal(row.mean)} avg mAP${row.low === null ? "" : ` ${interval(row)}`} at ${percent(row.fraction)}`,
      runsOf(row),
      cost(row, state.cost) === null ? "" : `${data.axes[state.cost]}: ${costWords(row, state.cost)}`,
    ].filter(Boolean),
  });

  const columns = () => [
    { id: "model", words: "model", text: (row) => row.model },
    { id: "mean", words: "avg mAP (%)", value: (row) => row.mean, show: decimal },
    { id: "interval", words: "95 % interval", value: (row) => row.low, text: interval },
    { id: "runs", words: "runs", value: (row) => row.runs, show: (value) => (value === null ? "–" : String(value)) },
    ...(ofArm().some((row) => row.group) ? [{ id: "group", words: "group", text: (row) => row.group || "–" }] : []),
    ...available().map((name) => ({ id: name, words: data.axes[name], value: (row) => cost(row, name), text: (row) => costWords(row, name) })),
  ];
  const cell = (column, row) => (column.text ? column.text(row) : column.show(column.value(row)));

  /* ---- parts of the page ---- */
  const tooltip = make("div", { className: "tal-tip", hidden: true, role: "status" });
  const tip = {
    show: (mark, shown) => {
      tooltip.replaceChildren(...shown.words.map((text, line) => make(line ? "div" : "strong", {}, text)));
      tooltip.hidden = false;
      charts.emphasise(root, shown.model);
      const place = mark.getBoundingClientRect();
      const within = root.getBoundingClientRect();
      const left = place.left - within.left + place.width / 2 + 12;
      tooltip.style.left = `${Math.max(0, Math.min(left, within.width - tooltip.offsetWidth - 4))}px`;
      tooltip.style.top = `${place.top - within.top - tooltip.offsetHeight - 6}px`;
    },
    hide: () => {
      tooltip.hidden = true;
      charts.emphasise(root, null);
    },
  };
  const control = (id, words) => {
    const select = make("select", { id: `tal-${id}`, onchange: () => change({ [id]: choose(id, select.value) }) });
    return make("label", {}, words, select);
  };
  const choices = {
    benchmark: () => benchmarks().map((name) => [name, name === "mean" ? "mean over benchmarks" : name]),
    arm: () => arms().map((id) => [id, data.arms.find((arm) => arm.id === id).name]),
    fraction: () => fractions().map((value) => [value, percent(value)]),
    cost: () => available().map((name) => [name, data.axes[name]]),
  };
  const choose = (id, text) => choices[id]().map(([value]) => value).find((value) => String(value) === text);

  const about = make("p", { className: "tal-about" });
  const models = make("div", { className: "tal-models", role: "group", "aria-label": "models" });
  const scatter = make("div", { className: "tal-chart" });
  const scatterTitle = make("figcaption");
  const curves = make("div", { className: "tal-chart" });
  const curvesTitle = make("figcaption");
  const find = make("input", { type: "search", id: "tal-find", placeholder: "Filter, for example: former", oninput: () => change({ find: find.value }) });
  const count = make("span", { className: "tal-count", role: "status" });
  const links = make("span", { className: "tal-links" });
  const table = make("table", { className: "tal-table", id: "tal-rows" });

  root.append(
    make("div", { className: "tal-controls" }, control("benchmark", "Benchmark"), control("arm", "Recipe or sweep"), control("fraction", "Label fraction"), control("cost", "Cost axis")),
    about,
    models,
    make("div", { className: "tal-charts" }, make("figure", {}, scatterTitle, scatter), make("figure", {}, curvesTitle, curves)),
    make("div", { className: "tal-above" }, make("label", { htmlFor: "tal-find" }, "Table "), find, count, links),
    make("div", { className: "tal-wide" }, table),
    tooltip,
  );

  /* ---- drawing ---- */
  const visible = (list) => list.filter((row) => !state.hide.includes(row.model));
  const message = (holder, text) => holder.replaceChildren(make("p", { className: "tal-none" }, text));

  const drawControls = () => {
    for (const [id, list] of Object.entries(choices)) {
      const select = document.getElementById(`tal-${id}`);
      select.replaceChildren(...list().map(([value, words]) => make("option", { value: String(value), selected: value === state[id] }, words)));
    }
    const costs = costsHere();
    about.textContent = data.arms.find((arm) => arm.id === state.arm).about
      + (costs ? ` Costs: compact models, ${costs.steps.toLocaleString("en")} steps, one recording, feature width and classes of ${costs.of}, ${costs.machine}.` : " Costs of inference were not measured.")
      + (ofArm().some((row) => row.model === data.floor) ? ` ${data.floor} sees no features: it is the floor.` : "");
    const all = distinct(ofArm().map((row) => row.model)).sort();
    const everything = make("button", { type: "button", className: "tal-all", onclick: () => change({ hide: state.hide.length ? [] : all }) }, state.hide.length ? "show all" : "hide all");
    models.replaceChildren(everything, ...all.map((model) => {
      const shown = !state.hide.includes(model);
      const dot = make("span", { className: "tal-dot" });
      dot.style.background = charts.paint(data.models[model]);
      return make("button", {
        type: "button", "aria-pressed": String(shown), "data-model": model,
        onclick: () => change({ hide: shown ? [...state.hide, model] : state.hide.filter((name) => name !== model) }),
      }, dot, model);
    }));
  };

  const drawCharts = () => {
    const here = visible(ofArm());
    const points = here.filter((row) => row.fraction === state.fraction && row.mean !== null && cost(row, state.cost) > 0)
      .map((row) => ({ ...point(row), x: cost(row, state.cost) }));
    scatterTitle.textContent = `Accuracy against cost at ${percent(state.fraction)} of the labels. Dashed: no other model is both cheaper and better (means, not tested).`;
    if (points.length) charts.scatter(scatter, points, { title: scatterTitle.textContent, x: `${data.axes[state.cost]}, log scale`, y: "avg mAP (%)" }, tip);
    else message(scatter, here.length ? "No cost was measured for these models." : "No model is chosen.");
    const lines = distinct(here.map((row) => row.model)).map((model) => ({
      model, colour: data.models[model],
      points: here.filter((row) => row.model === model && row.mean !== null).sort((a, b) => a.fraction - b.fraction).map((row) => ({ ...point(row), x: row.fraction })),
    })).filter((line) => line.points.length);
    curvesTitle.textContent = fractions().length > 1 ? "Accuracy by label fraction. Bars: 95 % intervals." : "Accuracy; this arm has one label fraction.";
    if (lines.length) charts.curves(curves, lines, { title: curvesTitle.textContent, x: "label fraction, log scale", y: "avg mAP (%)" }, state.fraction, tip);
    else message(curves, "No model is chosen.");
  };

  const sorted = (list) => {
    const column = columns().find((known) => known.id === state.sort) || columns()[1];
    const key = (row) => (column.value ? column.value(row) : column.text(row));
    const filled = list.filter((row) => key(row) !== null).sort((a, b) => (column.value ? key(a) - key(b) : key(a).localeCompare(key(b))));
    if (state.down) filled.reverse();
    return [...filled, ...list.filter((row) => key(row) === null)];
  };

  const shownRows = () => {
    const here = visible(ofArm()).filter((row) => row.fraction === state.fraction);
    return sorted(here.filter((row) => row.model.toLowerCase().includes(state.find.trim().toLowerCase())));
  };

  const drawTable = () => {
    const shown = shownRows();
    const headings = columns().map((column) => {
      const here = column.id === state.sort;
      const button = make("button", { type: "button", "data-sort": column.id, onclick: () => change({ sort: column.id, down: here ? !state.down : Boolean(column.value) }) }, column.words);
      return make("th", { scope: "col", "aria-sort": here ? (state.down ? "descending" : "ascending") : "none" }, button);
    });
    const body = shown.map((row) => make("tr", {}, ...columns().map((column) => make("td", {}, cell(column, row)))));
    table.replaceChildren(make("thead", {}, make("tr", {}, ...headings)), make("tbody", {}, ...body));
    count.textContent = ` ${shown.length} model${shown.length === 1 ? "" : "s"} at ${percent(state.fraction)} `;
    const files = data.arms.find((arm) => arm.id === state.arm).files[state.benchmark] || [];
    const report = files.map((address) => make("a", { href: address, download: "" }, address.endsWith(".csv") ? "CSV" : "LaTeX"));
    const rowsOnly = make("a", { href: "#", id: "tal-csv", download: `${state.benchmark}_${state.arm}_${state.fraction}.csv`.replace(/[^\w.-]+/g, "_") }, "these rows as CSV");
    rowsOnly.href = `data:text/csv;charset=utf-8,${encodeURIComponent(csv(shown))}`;
    links.replaceChildren(rowsOnly, ...(report.length ? [" · all label fractions: ", report[0], " · ", report[1]] : []));
  };

  /* A cell that a spreadsheet would calculate gets `'` in front, as in every CSV of this project. */
  const csv = (list) => {
    const quoted = (text) => `"${(/^[=+\-@\t\r]/.test(text) ? `'${text}` : text).replaceAll('"', '""')}"`;
    const lines = [["benchmark", "arm", "fraction", ...columns().map((column) => column.words)].map(quoted)];
    for (const row of list) {
      const values = columns().map((column) => (column.id !== "interval" && column.value ? column.value(row) ?? "" : quoted(cell(column, row))));
      lines.push([quoted(row.benchmark), quoted(row.arm), row.fraction, ...values]);
    }
    return `${lines.map((line) => line.join(",")).join("\n")}\n`;
  };

  const draw = () => {
    tip.hide();
    drawControls();
    drawCharts();
    drawTable();
    if (document.activeElement !== find) find.value = state.find;
  };

  const change = (changes) => {
    const focused = document.activeElement;
    const again = focused && root.contains(focused) ? focused.dataset.sort ? `[data-sort="${CSS.escape(focused.dataset.sort)}"]` : focused.dataset.model ? `button[data-model="${CSS.escape(focused.dataset.model)}"]` : null : null;
    Object.assign(state, changes);
    settle();
    write();
    draw();
    if (again && root.querySelector(again)) root.querySelector(again).focus();
  };

  window.addEventListener("hashchange", () => {
    read();
    draw();
  });
  let width = 0;
  new ResizeObserver(() => {
    if (root.clientWidth === width) return;
    width = root.clientWidth;
    drawCharts();
  }).observe(root);
  read();
  draw();
})();
