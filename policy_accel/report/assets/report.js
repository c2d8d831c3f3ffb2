"use strict";
(() => {
  const data = JSON.parse(document.getElementById("report-data").textContent);
  const root = document.documentElement, system = matchMedia("(prefers-color-scheme: dark)");
  const narrow = matchMedia("(max-width: 40rem)");
  // Okabe and Ito's colours, darker or lighter where the ground asks for it, told apart by those who are colour-blind.
  const COLOURS = {
    light: ["#0072b2", "#d55e00", "#009e73", "#b8578f", "#b07d00", "#3f8fc4", "#5c6675", "#7a4fb0"],
    dark: ["#56b4e9", "#ff8c42", "#2fc79a", "#e59bc6", "#f0c648", "#9ec9ff", "#b4bdcb", "#b79bf0"],
  };
  // Arms beyond the last colour begin again: hollow marks, broken lines.
  const SYMBOLS = ["circle", "diamond", "square", "triangle-up", "cross", "x", "pentagon", "star"];
  const DASHES = ["solid", "dash", "dot", "dashdot"];
  const number = (arm) => Math.max(0, data.arms.indexOf(arm));
  const theme = () => root.dataset.theme;
  const round = (arm) => Math.floor(number(arm) / COLOURS.light.length);
  const symbolOf = (arm) => SYMBOLS[number(arm) % SYMBOLS.length] + (round(arm) ? "-open" : "");
  const colour = (arm) => COLOURS[theme()][number(arm) % COLOURS.light.length];
  const variable = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const clear = (hex, share) => hex + Math.round(share * 255).toString(16).padStart(2, "0");
  const chosen = { arm: new Set(data.arms), seed: new Set(data.seeds) };
  const shows = (arm, seed) => (arm == null || chosen.arm.has(arm)) && (seed == null || chosen.seed.has(seed));
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

  function value(points, x) {
    let i = 1;
    while (i < points.x.length - 1 && points.x[i] < x) i++;
    if (points.x.length === 1) return points.y[0];
    const share = (x - points.x[i - 1]) / (points.x[i] - points.x[i - 1]);
    return points.y[i - 1] + share * (points.y[i] - points.y[i - 1]);
  }

  // Mean and range of lines where all of them are, as the page's maker computes them for all seeds.
  function band(lines) {
    const first = Math.max(...lines.map((line) => line.x[0]));
    const last = Math.min(...lines.map((line) => line.x[line.x.length - 1]));
    const x = [...new Set(lines.flatMap((line) => line.x))].filter((at) => at >= first && at <= last).sort((a, b) => a - b);
    const columns = x.map((at) => lines.map((line) => value(line, at)));
    return { x, mean: columns.map(mean), low: columns.map((c) => Math.min(...c)), high: columns.map((c) => Math.max(...c)) };
  }

  function followed(chart, trace) {
    const { role, arm } = trace.meta;
    if (!chart.follows || !["mean", "band", "bar"].includes(role) || chosen.seed.size === data.seeds.length) return trace;
    const parts = chart.traces.filter((other) => ["seed", "point"].includes(other.meta.role) && other.meta.arm === arm);
    const seen = parts.filter((other) => shows(arm, other.meta.seed));
    if (chart.follows === "row") {
      const there = seen.map((other) => other.x[0]).filter((at) => at != null);
      const text = (there.length ? `${Math.round(mean(there)).toLocaleString("en")} updates` : "not reached") +
        (there.length < seen.length ? `, ${there.length} of ${seen.length} runs` : "");
      return { ...trace, x: there.length ? [mean(there)] : [null], ...(role === "bar" && { text: [seen.length ? text : ""] }) };
    }
    if (!seen.length) return { ...trace, x: [], y: [] };
    const made = band(seen);
    if (role === "mean") return { ...trace, x: made.x, y: made.mean };
    if (seen.length < 2) return { ...trace, x: [], y: [] };
    return { ...trace, x: [...made.x, ...made.x.slice().reverse()], y: [...made.high, ...made.low.reverse()] };
  }

  function styled(chart, trace) {
    const { role, arm, seed } = trace.meta, hue = arm == null ? variable("--soft") : colour(arm);
    const symbol = symbolOf(arm), dash = DASHES[round(arm) % DASHES.length];
    const alone = chart.traces.filter((other) => other.meta.arm === arm && other.meta.role === "seed").length < 2;
    const made = { ...followed(chart, trace), visible: shows(arm, seed), hoverlabel: { namelength: -1 } };
    const styles = {
      band: { fillcolor: clear(hue, 0.16), line: { width: 0 } },
      seed: { line: { color: alone ? hue : clear(hue, 0.45), width: alone ? 2.4 : 1.1, dash }, marker: { color: hue, size: 5, symbol } },
      mean: { line: { color: hue, width: alone ? 0 : 2.6, dash }, marker: { color: hue, size: 20, symbol: "line-ns-open", line: { width: 3 } } },
      point: { marker: { color: clear(hue, 0.85), size: 10, symbol, line: { color: round(arm) ? hue : variable("--card"), width: 1.5 } } },
      bar: { marker: { color: clear(hue, 0.35) }, textfont: { color: variable("--ink") }, hoverinfo: "text+y", cliponaxis: false },
      interval: { marker: { color: hue, size: 10, symbol }, line: { color: hue }, error_x: { ...trace.error_x, color: hue, thickness: 2.2, width: 6 } },
      floor: { line: { color: hue, width: 1.6, dash: "dash" } },
    };
    return { ...made, ...styles[role] };
  }

  function layout(chart) {
    const axis = (given) => ({
      gridcolor: variable("--line"), zerolinecolor: variable("--line"), linecolor: variable("--line"), automargin: true,
      ...given, title: { text: given.title || "", standoff: 12 },
    });
    const used = new Set((chart.traces || []).map((trace) => trace.meta.arm));
    const arms = data.arms.filter((arm) => chosen.arm.has(arm) && used.has(arm));
    const y = axis(chart.layout.yaxis || {});
    const x = { ...axis(chart.layout.xaxis || {}), ...(narrow.matches && !chart.layout.xaxis?.tickvals && { nticks: 5, tickangle: 0 }) };
    // On a phone names of arms stand above their rows, not beside them.
    if (y.type === "category" && narrow.matches) Object.assign(y, { ticklabelposition: "inside top", tickfont: { size: 11 } });
    if (y.type === "category") Object.assign(y, { categoryorder: "array", categoryarray: arms.slice().reverse(), autorange: true });
    return {
      ...chart.layout, xaxis: x, yaxis: y, showlegend: false, dragmode: false,
      margin: { l: y.ticklabelposition ? 8 : 56, r: 16, t: 8, b: 48 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: variable("--ink") },
      hoverlabel: { bgcolor: variable("--card"), bordercolor: variable("--line"), font: { color: variable("--ink") } },
    };
  }

  function draw() {
    for (const chart of data.charts) {
      const traces = chart.traces.map((trace) => styled(chart, trace));
      Plotly.react(`chart-${chart.name}`, traces, layout(chart), { responsive: true, displayModeBar: false });
    }
    for (const key of document.querySelectorAll("[data-key]")) {
      key.style.borderColor = colour(key.dataset.key);
      key.style.borderStyle = round(key.dataset.key) > 1 ? "dotted" : "solid";
      key.style.background = round(key.dataset.key) ? "transparent" : colour(key.dataset.key);
    }
    for (const row of document.querySelectorAll("[data-arm]")) row.hidden = !shows(row.dataset.arm, row.dataset.seed);
    for (const group of document.querySelectorAll(".group")) {
      group.hidden = [...group.querySelectorAll("figure")].every((figure) => figure.hidden);
    }
    for (const chunk of data.chunks) drawChunk(chunk);
  }

  // An action chunk, as it is after some evaluations of the network, over the picture of the scene.
  function drawChunk(chunk) {
    const box = document.getElementById(`chunk-${chunk.name}`), step = Number(box.querySelector("input").value);
    const samples = chunk.steps[step], made = chunk.evaluations[step], all = chunk.evaluations[chunk.steps.length - 1];
    box.querySelector("output").textContent = made === all ? "the result" : made ? `${made} of ${all} evaluations` : "noise";
    if (chunk.kind === "lines") return drawActions(chunk, step);
    box.querySelectorAll("polyline").forEach((line, i) => {
      const from = line.dataset.part === "executed" ? chunk.executed : [0, samples[0].length];
      const points = samples[Number(line.dataset.sample)].slice(...from);
      line.setAttribute("points", points.map((point) => point.join(",")).join(" "));
      line.style.stroke = COLOURS.light[number(chunk.arm) % COLOURS.light.length];
    });
  }

  function drawActions(chunk, step) {
    const shades = COLOURS[theme()];
    const traces = chunk.steps[step][0][0].map((_, column) => ({
      type: "scatter", mode: "lines+markers", name: `action ${column}`, y: chunk.steps[step][0].map((action) => action[column]),
      line: { color: shades[column % shades.length], dash: DASHES[Math.floor(column / shades.length) % DASHES.length] },
      marker: { symbol: SYMBOLS[column % SYMBOLS.length], size: 6 },
    }));
    const chart = { layout: { xaxis: { title: "step of the chunk" }, yaxis: { title: "normalised action", range: chunk.range } } };
    Plotly.react(`chunk-chart-${chunk.name}`, traces, layout(chart), { responsive: true, displayModeBar: false });
  }

  function setTheme(name) {
    root.dataset.theme = name;
    document.getElementById("theme").textContent = name === "dark" ? "Light colours" : "Dark colours";
    draw();
  }

  function filter() {
    for (const kind of ["arm", "seed"]) {
      chosen[kind] = new Set([...document.querySelectorAll(`#filters input[name=${kind}]:checked`)].map((box) => box.value));
    }
    draw();
    document.getElementById("chosen").textContent = `${chosen.arm.size} of ${data.arms.length} arms and ` +
      `${chosen.seed.size} of ${data.seeds.length} training seeds are shown.`;
  }

  document.getElementById("filters").addEventListener("change", filter);
  document.getElementById("theme").addEventListener("click", () => setTheme(theme() === "dark" ? "light" : "dark"));
  narrow.addEventListener("change", draw);
  system.addEventListener("change", () => setTheme(system.matches ? "dark" : "light"));
  for (const button of document.querySelectorAll(".play-all")) {
    button.addEventListener("click", () => {
      const films = [...button.parentElement.querySelectorAll("video")], start = films.some((film) => film.paused);
      for (const film of films) start ? film.play() : film.pause();
    });
  }
  for (const chunk of data.chunks) {
    const box = document.getElementById(`chunk-${chunk.name}`), slider = box.querySelector("input");
    let timer = null;
    const stop = () => { clearInterval(timer); timer = null; box.querySelector("button").textContent = "Play"; };
    slider.addEventListener("input", () => { stop(); drawChunk(chunk); });
    box.querySelector("button").addEventListener("click", () => {
      if (timer) return stop();
      if (slider.value === slider.max) slider.value = 0;
      box.querySelector("button").textContent = "Pause";
      drawChunk(chunk);
      timer = setInterval(() => {
        slider.value = Number(slider.value) + 1;
        drawChunk(chunk);
        if (slider.value === slider.max) stop();
      }, 500);
    });
  }
  setTheme(system.matches ? "dark" : "light");
})();
