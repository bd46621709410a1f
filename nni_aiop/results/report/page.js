"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(`--${name}`).trim();
  const at = (id) => document.getElementById(id);
  const narrow = matchMedia("(max-width: 640px)").matches;
  const coarse = matchMedia("(pointer: coarse)").matches;

  // Plotly reads a little HTML in its texts: names must not be taken for it.
  const plain = (text) => String(text)
    .replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  const short = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);
  const figure = (value) => {
    if (value === null || value === undefined) return "not known";
    if (typeof value !== "number") return String(value);
    if (Number.isInteger(value) && Math.abs(value) < 1e15) return value.toLocaleString("en");
    return String(Number(value.toPrecision(6)));
  };
  const LINES = data.lines; // of parallel coordinates, at most
  const MANY = 8000; // points from which on WebGL is quicker, also on a computer without a GPU
  const webgl = (() => {
    try {
      return Boolean(document.createElement("canvas").getContext("webgl"));
    } catch {
      return false;
    }
  })();

  // --- what was evaluated ---

  const failed = new Set(data.failed);
  const outside = new Set(data.outside);
  const front = new Set(data.front);
  const everything = Array.from({ length: data.n }, (_, i) => i);
  const number = "number of the evaluation";
  const title = (name) => {
    const objective = data.objectives.find((o) => o.metric === name);
    return (objective && objective.title) || data.names[name] || name;
  };
  const columns = new Map([[number, everything]]);
  for (const [name, column] of Object.entries(data.metrics)) columns.set(name, column);
  for (const [name, column] of Object.entries(data.costs)) columns.set(name, column);
  const signs = new Map(data.objectives.map((o) => [o.metric, o.sign]));
  for (const name of Object.keys(data.costs)) if (!signs.has(name)) signs.set(name, -1);

  const choice = (dimension, i) => {
    const point = dimension.points[i];
    if (point === null) return null;
    return dimension.texts ? dimension.texts[point] : figure(point);
  };
  const value = (dimension, i) => {
    const point = dimension.points[i];
    return point === null || !dimension.texts ? point : dimension.values[point];
  };
  const record = (i) => {
    const of = (all) => Object.fromEntries(Object.entries(all)
      .map(([name, column]) => [name, column[i]]).filter(([, v]) => v !== null));
    const active = data.dimensions.filter((d) => d.points[i] !== null);
    return {
      number: i,
      sample: Object.fromEntries(active.map((d) => [d.label, value(d, i)])),
      metrics: failed.has(i) ? null : of(data.metrics),
      costs: of(data.costs),
    };
  };
  const described = (i) => {
    const lines = [`<b>evaluation ${i}</b>${failed.has(i) ? " (failed)" : ""}`];
    const line = (name, text) => lines.push(`${plain(short(name, 40))}: ${plain(short(text, 60))}`);
    for (const [name, column] of columns) {
      if (name !== number && column[i] !== null) line(title(name), figure(column[i]));
    }
    const active = data.dimensions.filter((d) => d.points[i] !== null);
    for (const d of active.slice(0, 12)) line(d.label, choice(d, i));
    if (active.length > 12) lines.push(`… and ${active.length - 12} other dimensions`);
    return lines.join("<br>");
  };
  const texts = everything.map(described);

  // --- the picked evaluation ---

  const boxes = []; // of each figure: what puts a box around an evaluation
  const panel = at("panel");
  const cell = (row, tag, text) => {
    const made = document.createElement(tag);
    made.textContent = text;
    row.append(made);
    return made;
  };
  const table = (heading, rows) => {
    const made = document.createElement("table");
    const first = made.insertRow();
    cell(first, "th", heading).colSpan = 2;
    for (const [name, text] of rows) {
      const row = made.insertRow();
      cell(row, "th", name);
      cell(row, "td", text);
    }
    return made;
  };
  const copy = async (text, button) => {
    const done = () => {
      const before = button.textContent;
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = before; }, 1200);
    };
    try {
      await navigator.clipboard.writeText(text);
      done();
    } catch {
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      if (document.execCommand("copy")) done();
      area.remove();
    }
  };
  const pick = (i) => {
    panel.classList.add("picked");
    panel.dataset.number = i;
    const body = at("picked");
    body.replaceChildren();
    const heading = document.createElement("h3");
    heading.textContent = `Evaluation ${i}`;
    const tags = document.createElement("div");
    tags.className = "tags";
    const tag = (text) => { cell(tags, "span", text); };
    if (i === data.best) tag("the best");
    if (front.has(i)) tag("on the Pareto front");
    if (failed.has(i)) tag("failed");
    if (outside.has(i)) tag("outside a limit");
    const named = record(i);
    const button = document.createElement("button");
    button.textContent = "Copy as JSON";
    button.id = "copy";
    button.addEventListener("click", () => copy(JSON.stringify(named, null, 1), button));
    const drawing = at(`drawing-${i}`);
    body.append(heading, tags, button);
    const measured = Object.entries(named.metrics ?? {}).map(([k, v]) => [title(k), figure(v)]);
    body.append(table("measured", measured.length ? measured : [["nothing", "it failed"]]));
    const costs = Object.entries(named.costs).map(([k, v]) => [title(k), figure(v)]);
    if (costs.length) body.append(table("exact costs", costs));
    body.append(table("sample", data.dimensions.map((d) => [d.label, choice(d, i) ?? "inactive"])));
    if (drawing) {
      const image = document.createElement("img");
      image.src = drawing.src;
      image.alt = drawing.alt;
      body.append(image);
    }
    for (const box of boxes) box(i);
  };
  if (panel) at("unpick").addEventListener("click", () => panel.classList.remove("picked"));
  for (const button of document.querySelectorAll("[data-pick]")) {
    button.addEventListener("click", () => pick(Number(button.dataset.pick)));
  }
  for (const image of document.querySelectorAll(".drawings img, img.whole")) {
    image.addEventListener("click", () => {
      at("large").querySelector("img").src = image.src;
      at("large").querySelector("img").alt = image.alt;
      at("large").showModal();
    });
  }
  at("large").addEventListener("click", () => at("large").close());
  for (const button of document.querySelectorAll("[data-copy]")) {
    button.addEventListener("click", () => copy(at(button.dataset.copy).textContent, button));
  }

  // --- figures ---

  const config = {
    displaylogo: false,
    showSendToCloud: false, // plotly.js 4 would offer to upload the figure
    plotlyServerURL: "",
    responsive: true,
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
    displayModeBar: narrow ? false : "hover",
  };
  const axis = (name, more) => ({
    title: { text: plain(name), standoff: 8 },
    gridcolor: colour("line"), linecolor: colour("line"), zeroline: false, automargin: true,
    exponentformat: "SI", ...more,
  });
  const layout = (more) => ({
    font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: colour("ink") },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: 56, r: 16, t: 34, b: 52 },
    hovermode: "closest", hoverlabel: { align: "left", namelength: -1 },
    dragmode: coarse ? false : "zoom",
    modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("grey"), activecolor: colour("blue") },
    legend: { orientation: "h", x: 0, y: 1.01, yanchor: "bottom", font: { size: 12 } },
    ...more,
  });
  const kind = webgl && data.n > MANY ? "scattergl" : "scatter";
  const dots = (name, which, x, y, marker) => ({
    type: kind, mode: "markers", name,
    x: which.map((i) => x[i]), y: which.map((i) => y[i]),
    customdata: which, text: which.map((i) => texts[i]),
    hovertemplate: "%{text}<extra></extra>", marker,
  });
  // A box around a point, which is moved without drawing all points again. An annotation stands on a
  // logarithmic axis by its exponent.
  const boxAt = ([x, y], { xaxis, yaxis }) => {
    if (x === null || y === null) return [];
    const on = (value, { type }) => (type === "log" ? Math.log10(value) : value);
    return [{
      x: on(x, xaxis), y: on(y, yaxis), text: "\u00a0", showarrow: false, width: 14, height: 14,
      borderpad: 3, borderwidth: 2.5, bordercolor: colour("ink"), captureevents: false,
    }];
  };
  const draw = async (id, traces, frame, place) => {
    const target = at(id);
    const boxed = (i) => (i === undefined ? [] : boxAt(place(Number(i)), frame));
    const annotations = boxed(panel.dataset.number);
    await Plotly.react(target, traces, { ...frame, annotations }, config);
    target.box = (i) => Plotly.relayout(target, { annotations: boxed(i) });
    if (target.drawn) return;
    target.drawn = true;
    target.on("plotly_click", (event) => {
      const i = event.points[0].customdata;
      if (Number.isInteger(i)) pick(i);
    });
    boxes.push((i) => target.box(i));
  };
  const finite = (column) => column.filter((v) => v !== null);
  const wide = (column) => {
    const known = finite(column);
    if (!known.length) return false;
    const low = known.reduce((a, b) => Math.min(a, b));
    return low > 0 && known.reduce((a, b) => Math.max(a, b)) > 20 * low;
  };
  const limitLine = (name, across) => {
    if (!(name in data.limits)) return [];
    const at = data.limits[name];
    const line = { width: 1.5, dash: "dash", color: colour("soft") };
    const ends = across === "x"
      ? { x0: at, x1: at, yref: "paper", y0: 0, y1: 1 }
      : { y0: at, y1: at, xref: "paper", x0: 0, x1: 1 };
    return [{ type: "line", line, ...ends }];
  };

  const drawFront = () => {
    const [nameX, nameY] = [at("front-x").value, at("front-y").value];
    const [x, y] = [columns.get(nameX), columns.get(nameY)];
    const known = everything.filter((i) => x[i] !== null && y[i] !== null && !failed.has(i));
    const inside = known.filter((i) => !outside.has(i));
    const traces = [
      dots("evaluated", inside.filter((i) => !front.has(i)), x, y,
        { size: 8, color: colour("blue"), opacity: data.n > 1500 ? 0.45 : 0.65 }),
    ];
    const broken = known.filter((i) => outside.has(i));
    if (broken.length) {
      traces.push(dots("outside a limit", broken, x, y,
        { size: 8, color: colour("grey"), symbol: "x-thin-open", opacity: 0.8 }));
    }
    traces.push(dots("Pareto front", inside.filter((i) => front.has(i)), x, y,
      { size: 11, color: colour("red"), symbol: "diamond", line: { width: 1, color: colour("card") } }));
    const [signX, signY] = [signs.get(nameX), signs.get(nameY)];
    if (signX && signY) { // the stairs of these two alone
      const sorted = [...inside].sort((a, b) => signX * (x[b] - x[a]) || signY * (y[b] - y[a]));
      const stairs = [];
      for (const i of sorted) {
        if (!stairs.length || signY * (y[i] - y[stairs.at(-1)]) > 0) stairs.push(i);
      }
      if (stairs.length > 1) {
        traces.unshift({
          type: "scatter", mode: "lines", x: stairs.map((i) => x[i]), y: stairs.map((i) => y[i]),
          line: { color: colour("red"), width: 1.5, shape: "vh" }, hoverinfo: "skip", showlegend: false,
        });
      }
    }
    const scale = (name, column) => (
      name !== number && wide(column) ? { type: "log", dtick: "D2" } : { type: "linear" });
    const frame = layout({
      xaxis: axis(title(nameX), scale(nameX, x)), yaxis: axis(title(nameY), scale(nameY, y)),
      shapes: [...limitLine(nameX, "x"), ...limitLine(nameY, "y")],
    });
    return draw("front", traces, frame, (i) => [x[i], failed.has(i) ? null : y[i]]);
  };

  const drawProgress = () => {
    const objective = data.objectives[0];
    const y = data.metrics[objective.metric];
    let [name, x] = [number, everything];
    if (at("progress-x") && at("progress-x").value !== number) {
      let sum = 0;
      name = "seconds of all evaluations, one after another";
      x = data.metrics[data.seconds].map((v) => { sum += v ?? 0; return sum; });
    }
    const known = everything.filter((i) => y[i] !== null && !failed.has(i));
    const best = [];
    for (const i of known) {
      if (outside.has(i)) continue;
      if (!best.length || objective.sign * (y[i] - y[best.at(-1)]) > 0) best.push(i);
    }
    const ends = best.map((i) => [x[i], y[i]]);
    if (best.length) ends.push([x[data.n - 1], y[best.at(-1)]]);
    const traces = [
      dots("evaluated", known.filter((i) => !outside.has(i)), x, y,
        { size: 7, color: colour("blue"), opacity: data.n > 1500 ? 0.4 : 0.6 }),
    ];
    const broken = known.filter((i) => outside.has(i));
    if (broken.length) {
      traces.push(dots("outside a limit", broken, x, y,
        { size: 7, color: colour("grey"), symbol: "x-thin-open", opacity: 0.8 }));
    }
    traces.push({
      type: "scatter", mode: "lines", name: "best so far", hoverinfo: "skip",
      x: ends.map(([a]) => a), y: ends.map(([, b]) => b),
      line: { color: colour("red"), width: 2.5, shape: "hv" },
    });
    const lost = [...failed];
    if (lost.length && known.length) {
      const floor = known.reduce((a, i) => Math.min(a, y[i]), Infinity);
      const level = everything.map(() => floor);
      traces.push(dots("failed (no value)", lost, x, level,
        { size: 9, color: colour("soft"), symbol: "line-ns-open" }));
    }
    const frame = layout({
      xaxis: axis(name, { rangemode: "tozero" }), yaxis: axis(title(objective.metric)),
      shapes: limitLine(objective.metric, "y"),
    });
    return draw("progress", traces, frame, (i) => [x[i], failed.has(i) ? null : y[i]]);
  };

  const ticks = (count) => {
    const step = Math.max(1, Math.ceil(count / 14));
    return Array.from({ length: count }, (_, i) => i).filter((i) => i % step === 0);
  };
  const coordinate = (d, which) => {
    const label = plain(short(d.label, 22));
    if (d.texts) {
      const listed = ticks(d.texts.length);
      const more = d.inactive ? [-1] : [];
      return {
        label,
        values: which.map((i) => d.points[i] ?? -1),
        range: [d.inactive ? -1.15 : -0.15, Math.max(d.texts.length - 0.85, 0.15)],
        tickvals: [...more, ...listed],
        ticktext: [...more.map(() => "inactive"), ...listed.map((i) => plain(short(d.texts[i], 12)))],
      };
    }
    const scaled = (v) => (d.log ? Math.log10(v) : v);
    const known = finite(d.points).map(scaled);
    const low = known.reduce((a, b) => Math.min(a, b), Infinity);
    const high = known.reduce((a, b) => Math.max(a, b), -Infinity);
    const below = low - 0.12 * (high - low || 1);
    const made = { label: d.log ? `${label} (log)` : label,
      values: which.map((i) => (d.points[i] === null ? below : scaled(d.points[i]))) };
    if (!known.length || d.inactive || d.log) {
      const marks = known.length ? [0, 0.25, 0.5, 0.75, 1].map((s) => low + s * (high - low)) : [];
      const shown = marks.map((v) => String(Number((d.log ? 10 ** v : v).toPrecision(3))));
      made.tickvals = d.inactive ? [below, ...marks] : marks;
      made.ticktext = d.inactive ? ["inactive", ...shown] : shown;
    }
    return made;
  };
  const drawParallel = () => {
    const target = at("parallel");
    if (!target) return null;
    if (!webgl) {
      at("parallel-note").textContent = "This figure needs WebGL, which this browser does not offer.";
      target.remove();
      return null;
    }
    const objective = data.objectives[0];
    const y = data.metrics[objective.metric];
    let which = everything.filter((i) => y[i] !== null && !failed.has(i));
    // The best lines are drawn last, over the others.
    which.sort((a, b) => objective.sign * (y[a] - y[b]));
    if (which.length > LINES) { // the best tenth of them, and others evenly
      const rest = which.slice(0, -LINES / 10);
      const step = rest.length / (0.9 * LINES);
      which = [...rest.filter((_, i) => Math.floor(i / step) !== Math.floor((i - 1) / step)),
        ...which.slice(-LINES / 10)];
    }
    const made = data.axes.map((place) => coordinate(data.dimensions[place], which));
    const more = [...(data.cost ? [data.cost] : []), ...data.objectives.map((o) => o.metric)];
    for (const name of new Set(more)) {
      const column = columns.get(name);
      const log = wide(column) && finite(column).length === column.length;
      made.push(coordinate({ label: title(name), points: column, log,
        inactive: which.some((i) => column[i] === null) }, which));
    }
    target.style.minWidth = `${Math.max(300, 80 * made.length)}px`;
    const size = narrow ? 9 : 11;
    const trace = {
      type: "parcoords", dimensions: made,
      line: {
        color: which.map((i) => y[i]), colorscale: "Cividis", reversescale: objective.sign < 0,
        showscale: true, colorbar: { title: { text: plain(short(objective.title, 18)) }, thickness: 12 },
      },
      labelfont: { size: size + 1 }, tickfont: { size, color: colour("ink") },
      rangefont: { size: 1, color: "rgba(0,0,0,0)" }, labelside: "top", labelangle: made.length > 6 ? -18 : 0,
      unselected: { line: { color: colour("grey"), opacity: 0.08 } },
    };
    return Plotly.newPlot(target, [trace], layout({ margin: { l: 100, r: 20, t: 84, b: 24 } }), config);
  };

  const drawImportance = () => {
    const found = data.importance;
    if (!found || !at("importance")) return null;
    const most = 20;
    const places = found.labels.map((_, i) => i).slice(0, most).reverse();
    const y = places.map((i) => plain(short(found.labels[i], narrow ? 16 : 30)) + "\u00a0");
    const marks = (name, rows, marker, more) => ({
      name, y, x: places.map((i) => rows[i][1]), marker, orientation: "h",
      text: places.map((i) => `${plain(found.labels[i])}: ${(100 * rows[i][1]).toFixed(1)} %, `
        + `between ${(100 * rows[i][0]).toFixed(1)} and ${(100 * rows[i][2]).toFixed(1)} %`),
      hovertemplate: `%{text}<extra>${name}</extra>`,
      error_x: { type: "data", symmetric: false, thickness: 1.4, width: 4, color: colour("soft"),
        array: places.map((i) => rows[i][2] - rows[i][1]),
        arrayminus: places.map((i) => rows[i][1] - rows[i][0]) },
      ...more,
    });
    const target = at("importance");
    target.style.height = `${110 + 30 * places.length}px`;
    return Plotly.newPlot(target, [
      marks("with interactions", found.total, { color: colour("blue") },
        { type: "bar", textposition: "none" }),
      marks("alone", found.alone, { color: colour("red"), symbol: "diamond", size: 9 },
        { type: "scatter", mode: "markers", error_x: undefined }),
    ], layout({
      xaxis: axis(`part of the variance of ${found.metric}`, { range: [0, 1.02], tickformat: ".0%" }),
      yaxis: { automargin: true, tickfont: { size: 12 }, type: "category" },
      margin: { l: 20, r: 20, t: 34, b: 50 }, bargap: 0.35,
    }), config);
  };

  // --- a network that was shrunk ---

  const drawBudgets = () => {
    const { front: told, metric } = data.shrink;
    const points = (name, rows, marker, more) => ({
      type: "scatter", mode: "markers", name, x: rows.map((r) => r[0]), y: rows.map((r) => r[1]),
      marker, hovertemplate: `%{x:.4f} of the multiply-adds<br>%{y}<extra>${name}</extra>`, ...more,
    });
    const best = [...told.best].sort((a, b) => a[0] - b[0]);
    const traces = [
      points("fine-tuned", told.tuned, { size: 8, color: colour("blue"), opacity: 0.6 }),
      points("best of a budget", best, { size: 12, color: colour("red"), symbol: "diamond" },
        { mode: "lines+markers", line: { color: colour("red"), width: 1.5 } }),
    ];
    if (told.baseline !== null) {
      traces.push(points("as it was, fine-tuned too", [[1, told.baseline]],
        { size: 14, color: colour("ink"), symbol: "star" }));
    }
    const shapes = data.shrink.networks.map((network) => ({
      type: "line", x0: network.budget, x1: network.budget, yref: "paper", y0: 0, y1: 1,
      line: { width: 1, dash: "dash", color: colour("soft") },
    }));
    return Plotly.newPlot(at("budgets"), traces, layout({
      xaxis: axis("part of the multiply-adds that is kept"), yaxis: axis(metric), shapes,
    }), config);
  };
  const drawLayers = () => {
    const rows = data.shrink.networks[Number(at("layers-of").value)].widths;
    const target = at("layers");
    target.style.height = `${Math.min(2400, 120 + 22 * rows.length)}px`;
    const y = rows.map((_, i) => i);
    const text = rows.map(([name, before, after, mark]) => `${plain(name)}: ${figure(before)} → `
      + `${figure(after)} channels${mark ? `, ${plain(mark)}` : ""}`);
    const bar = (name, x, color, width) => ({
      type: "bar", orientation: "h", name, x, y, width, marker: { color }, text,
      textposition: "none", hovertemplate: "%{text}<extra></extra>",
    });
    const listed = y.filter((i) => i % Math.ceil(rows.length / 110) === 0);
    return Plotly.react(target, [
      bar("before", rows.map((r) => r[1]), colour("line"), 0.8),
      bar("after", rows.map((r) => r[2]), colour("blue"), 0.45),
    ], layout({
      barmode: "overlay", xaxis: axis("channels"),
      yaxis: { automargin: true, autorange: "reversed", tickvals: listed, tickfont: { size: 11 },
        ticktext: listed.map((i) => plain(short(rows[i][0], narrow ? 18 : 40)) + "\u00a0") },
    }), config);
  };

  // --- begin ---

  // What takes long is drawn when it comes into sight.
  const inSight = (target, draw) => {
    if (!target) return;
    const watch = new IntersectionObserver((entries) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      watch.disconnect();
      draw();
    }, { rootMargin: "300px" });
    watch.observe(target);
  };
  const options = (id, chosen, names) => {
    const made = at(id);
    for (const name of names) {
      const option = new Option(short(title(name), 60), name, false, name === chosen);
      made.append(option);
    }
  };
  const begin = async () => {
    if (at("budgets")) await drawBudgets();
    if (at("layers")) {
      at("layers-of").addEventListener("change", drawLayers);
      await drawLayers();
    }
    if (at("front")) {
      const names = [...columns.keys()];
      const second = data.objectives[1] ? data.objectives[1].metric : names.find((n) => n !== number);
      options("front-x", data.cost ?? second, names);
      options("front-y", data.objectives[0].metric, names);
      for (const id of ["front-x", "front-y"]) at(id).addEventListener("change", drawFront);
      await drawFront();
    }
    if (at("progress")) {
      if (at("progress-x")) {
        for (const name of [number, "seconds"]) at("progress-x").append(new Option(name, name));
        at("progress-x").addEventListener("change", drawProgress);
      }
      await drawProgress();
    }
    await drawImportance();
    if (data.best !== null) {
      const wideEnough = matchMedia("(min-width: 1100px)").matches;
      if (wideEnough) pick(data.best);
    }
    inSight(at("parallel"), drawParallel);
    document.documentElement.dataset.ready = "yes";
  };
  begin();
})();
