// Draws Figure 4 from the page's data, and again whenever a control, the theme or the chosen epoch changes.
"use strict";
(() => {
  const study = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const controls = document.getElementById("controls");
  const slider = document.getElementById("epoch");
  const theme = document.getElementById("theme");
  const systemDark = matchMedia("(prefers-color-scheme: dark)");
  const panels = Array.from(document.querySelectorAll(".panel"), (figure, place) => ({
    figure,
    plot: figure.querySelector(".plot"),
    ...study.panels[place],
  }));

  // Colours are the style sheet's and looks the swatches', as the current theme resolves them.
  const probe = document.body.appendChild(document.createElement("span"));
  probe.hidden = true;
  const shade = (name) => {
    probe.style.color = `var(${name})`;
    return getComputedStyle(probe).color;
  };
  const looks = () => Array.from(controls.querySelectorAll(".swatch line"), (sample) => {
    const { stroke, strokeWidth, strokeDasharray } = getComputedStyle(sample);
    return { color: stroke, width: parseFloat(strokeWidth), dash: strokeDasharray.replace("none", "solid") };
  });
  const faint = (colour) => colour.replace("rgb(", "rgba(").replace(")", ", 0.22)");
  const thin = (line) => ({ ...line, width: 0.65 * line.width });

  const percent = (fraction) => `${(100 * fraction).toFixed(2)}%`;
  const valueText = (mean, sd) => percent(mean) + (sd === null ? "" : ` ± ${percent(sd)}`);
  const plain = (text) => text.replace(/[&<>]/g, (each) => `&#${each.charCodeAt(0)};`); // Plotly reads text as HTML

  function choices() {
    const form = new FormData(controls);
    const numbers = (name) => new Set(form.getAll(name).map(Number));
    return {
      orderings: numbers("ordering"),
      panels: numbers("panel"),
      seeds: numbers("seed"),
      singleRuns: form.get("curves") === "runs",
      paper: form.has("paper"),
      from: form.has("end") ? Math.floor(study.epochs * 0.8) + 1 : 1,
    };
  }

  // The traces of a network in one ordering.

  const trace = (line, name, y, texts) => ({
    x: y.map((_, at) => at + 1), y, text: texts, line, name: plain(name),
    mode: study.epochs <= study.fewEpochs || y.length === 1 ? "lines+markers" : "lines", // a one-epoch curve would be invisible
    hovertemplate: "%{fullData.name}: %{text}<extra></extra>",
  });

  const runTrace = (line, { name, accuracy }) =>
    trace(thin(line), name, accuracy, accuracy.map((y, at) => `epoch ${at + 1}, ${percent(y)}`));

  const meanTrace = (line, name, { mean, sd }) => trace(line, name, mean, mean.map((y, at) => valueText(y, sd[at])));

  function band(line, { mean, sd }) {
    const there = mean.map((_, at) => at).filter((at) => sd[at] !== null);
    const back = there.toReversed();
    return {
      x: [...there, ...back].map((at) => at + 1),
      y: [...there.map((at) => mean[at] + sd[at]), ...back.map((at) => mean[at] - sd[at])],
      name: "band", mode: "lines", line: { width: 0 }, fill: "toself", fillcolor: faint(line.color), hoverinfo: "skip",
    };
  }

  const paperMark = ({ color }, name, { paper }) => ({
    x: [study.epochs], y: [paper], name: plain(`the paper’s ${name}`), mode: "markers", cliponaxis: false,
    marker: { symbol: "diamond", size: 9, color, line: { width: 1.5, color: shade("--background") } },
    hovertemplate: "%{fullData.name}: %{y:.2%}<extra></extra>",
  });

  function tracesOf(curve, line, name, choice) {
    const runs = curve.runs.filter((run) => choice.seeds.has(run.seed));
    const curves = choice.singleRuns
      ? runs.map((run) => runTrace(line, run))
      : curve.mean.length ? [band(line, curve), meanTrace(line, name, curve)] : [];
    return choice.paper && curve.paper !== null ? [...curves, paperMark(line, name, curve)] : curves;
  }

  // Panels.

  function rangeOf(traces, from) {
    const seen = traces.flatMap(({ x, y }) => y.filter((_, at) => x[at] >= from));
    if (seen.length === 0) return [study.accuracyFrom, 1];
    if (from > 1) return [Math.min(...seen) - 0.005, Math.max(...seen) + 0.005];
    const curves = traces.filter(({ y, mode }) => y.length > 0 && mode !== "markers"); // not the paper's values
    const asked = curves.every(({ y }) => Math.max(...y) >= study.accuracyFrom + study.leastHeight); // else one is hidden
    return [asked ? study.accuracyFrom : Math.min(...seen) - 0.02, Math.max(...seen) + 0.02];
  }

  function chosenEpoch() {
    const at = Number(slider.value);
    const line = { color: shade("--control"), width: 1 };
    return [{ type: "line", x0: at, x1: at, yref: "paper", y0: 0, y1: 1, layer: "below", line }];
  }

  function layoutOf(range, { from, singleRuns }) {
    const [background, line, text] = ["--background", "--control", "--text"].map(shade);
    const font = { family: getComputedStyle(document.body).fontFamily, size: 13, color: shade("--quiet") };
    const axis = (title) => ({
      title: { text: title, standoff: 8 }, gridcolor: shade("--grid"), linecolor: line, zeroline: false,
      fixedrange: true, automargin: true,
    });
    const margin = Math.max(0.25, (study.epochs - from) * 0.02);
    const xaxis = {
      ...axis("epoch"), range: [from - margin, study.epochs + margin], showline: true,
      ...(study.epochs - from <= 10 ? { dtick: 1 } : {}), unifiedhovertitle: { text: "epoch %{x}" },
      showspikes: !singleRuns, spikecolor: line, spikethickness: 1, spikedash: "solid",
    };
    return {
      font, xaxis, yaxis: { ...axis(`${study.split} accuracy`), range, tickformat: from > 1 ? ".1%" : ".0%" },
      margin: { l: 48, r: 14, t: 8, b: 40 }, paper_bgcolor: background, plot_bgcolor: background,
      hovermode: singleRuns ? "closest" : "x unified", shapes: chosenEpoch(), showlegend: false,
      dragmode: false, // else a finger could not scroll the page past a panel
      hoverlabel: { bgcolor: shade("--raised"), bordercolor: line, font: { ...font, color: text }, namelength: -1 },
    };
  }

  function draw() {
    const choice = choices();
    const lines = looks();
    document.getElementById("seeds").hidden = !choice.singleRuns;
    panels.forEach(({ figure }, place) => { figure.hidden = !choice.panels.has(place); });
    const shown = panels.filter(({ figure }) => !figure.hidden);
    const traces = shown.map(({ curves }) => curves.flatMap((curve, place) =>
      choice.orderings.has(place) ? tracesOf(curve, lines[place], study.orderings[place].name, choice) : []));
    document.getElementById("nothing").hidden = traces.flat().length > 0;
    const layout = layoutOf(rangeOf(traces.flat(), choice.from), choice); // one for all: panels are to be compared
    shown.forEach(({ plot }, at) => {
      Plotly.react(plot, traces[at], structuredClone(layout), { displayModeBar: false, responsive: true });
    });
  }

  // The chosen epoch: its values in a table, a line in every panel.

  function showValues() {
    const at = Number(slider.value) - 1;
    document.getElementById("epoch-shown").textContent = slider.value;
    document.querySelectorAll("#values tbody tr").forEach((row, place) => {
      row.querySelectorAll("td").forEach((cell, column) => {
        const { mean, sd } = panels[column].curves[place];
        cell.textContent = at < mean.length ? valueText(mean[at], sd[at]) : "–";
      });
    });
  }

  function epochChosen() {
    showValues();
    for (const { figure, plot } of panels) if (!figure.hidden) Plotly.relayout(plot, { shapes: chosenEpoch() });
  }

  // The theme: the system's until the button is pressed.

  function isDark() {
    return root.style.colorScheme ? root.style.colorScheme === "dark" : systemDark.matches;
  }

  function themeChanged() {
    theme.setAttribute("aria-pressed", String(isDark()));
    draw();
  }

  theme.addEventListener("click", () => {
    root.style.colorScheme = isDark() ? "light" : "dark";
    themeChanged();
  });
  systemDark.addEventListener("change", themeChanged);
  controls.addEventListener("change", draw);
  slider.addEventListener("input", epochChosen);
  matchMedia("print").addEventListener("change", draw); // print is light
  for (const part of [theme, controls, document.getElementById("values")]) part.hidden = false;
  document.getElementById("undrawn").hidden = true;
  showValues();
  themeChanged();
})();
