// Puts the parts together.

function showSummary() {
  const facts = document.getElementById("facts");
  for (const [label, text] of data.facts) {
    facts.append(element("dt", {}, label), element("dd", {}, text));
  }
  for (const [name, cos, sqnr, agreement] of data.outputs) {
    const share = agreement === null ? "" : `, largest agrees ${(100 * agreement).toFixed(1)} %`;
    facts.append(element("dt", {}, `output ${name}`),
      element("dd", {}, `cos ${cos}, ${shown("sqnr", sqnr)} dB${share}`));
  }
  const causes = document.getElementById("causes");
  for (const [kind, name, text, next] of data.causes) {
    const item = element("li", {}, `[${kind}] ${text}`);
    item.append(element("span", { class: "next" }, `next: ${next}`));
    const row = rowOf.get(name);
    if (row !== undefined) {
      item.style.cursor = "pointer";
      item.addEventListener("click", () => choose(row));
    }
    causes.append(item);
  }
  if (!data.causes.length) {
    causes.append(element("li", {}, "none stands out: ranges and weights fit"));
  }
  document.getElementById("first").textContent = data.first === null
    ? `No value is below tolerance ${data.tolerance.join(", ")}.`
    : `The runs part first at ${data.first} (tolerance ${data.tolerance.join(", ")}).`;
  document.getElementById("pipeline").textContent = data.pipeline.join(", ") || "not known";
}

// All charts in other colours, one a frame, so that the page answers in between.
function redraw() {
  const tasks = [drawDepth, ...CHARTS.map((draw) => () => {
    if (chosen.row !== null) draw(data.detail[chosen.row] ?? {});
  }), drawSearch];
  const next = () => {
    tasks.shift()();
    if (tasks.length) requestAnimationFrame(() => setTimeout(next));
  };
  next();
}

// The node that is looked at first: that of the likeliest cause, else where the runs part, else
// the worst one.
function firstChosen() {
  const named = [...data.causes.map(([, name]) => name), data.first].map((name) => rowOf.get(name));
  const known = data.rows.map((_, row) => row).filter((row) => cell(row, "sqnr") !== null);
  const worst = known.reduce((a, b) => (cell(b, "sqnr") < cell(a, "sqnr") ? b : a), known[0]);
  return named.find((row) => row !== undefined) ?? worst;
}

function setTheme(name) {
  document.documentElement.dataset.theme = name;
}

function start() {
  setTheme(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  document.getElementById("theme").addEventListener("click", () => {
    setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
    requestAnimationFrame(() => setTimeout(redraw));
  });
  showSummary();
  startChanges();
  startTable();
  startGraph();
  chosen.listeners.push(showPane);
  drawDepth();
  drawSearch();
  const first = firstChosen();
  if (first !== undefined) choose(first);
  document.documentElement.dataset.ready = "yes";
}

start();
