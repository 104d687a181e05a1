// Charts by the plotting library. It reads markup in its texts, so names are escaped for it.

function plain(text) {
  return String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

function frame(title, x, y, more = {}) {
  const line = themeColour("--line"), text = themeColour("--text");
  const axis = (label) => ({ title: { text: label }, gridcolor: line, zerolinecolor: line,
    automargin: true });
  return { title: { text: title, font: { size: 13 }, x: 0.02 }, height: 280,
    margin: { l: 50, r: 12, t: 34, b: 40 }, paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)", font: { color: text, size: 11 }, xaxis: axis(x),
    yaxis: axis(y), legend: { orientation: "h", y: 1.12, x: 1, xanchor: "right" }, ...more };
}

const CONFIG = { displaylogo: false, responsive: true, displayModeBar: false };

function chart(id, traces, layout) {
  const place = document.getElementById(id);
  if (traces.length) Plotly.react(place, traces, layout, CONFIG);
  else {
    Plotly.purge(place);
    place.replaceChildren();
  }
}

const MOST_POINTS = 600;

// Of many nodes the worst of each stretch is drawn.
function thinned(rows, name) {
  const stretch = Math.max(1, Math.ceil(rows.length / MOST_POINTS));
  const kept = [];
  for (let start = 0; start < rows.length; start += stretch) {
    const part = rows.slice(start, start + stretch);
    kept.push(part.reduce((a, b) => (cell(b, name) < cell(a, name) ? b : a)));
  }
  return kept;
}

function drawDepth() {
  const line = (name, title, colour) => {
    const known = data.rows.map((_, row) => row)
      .filter((row) => cell(row, name) !== null && cell(row, name) < EXACT);
    const rows = thinned(known, name);
    return { x: rows, y: rows.map((row) => cell(row, name)), name: title, mode: "lines+markers",
      marker: { size: 4, color: colour }, line: { width: 1, color: colour },
      text: rows.map((row) => plain(cell(row, "name"))), hovertemplate: "%{text}<br>%{y:.1f} dB" };
  };
  const first = data.first === null ? undefined : rowOf.get(data.first);
  const mark = first === undefined ? [] : [{ type: "line", x0: first, x1: first, yref: "paper",
    y0: 0, y1: 1, line: { dash: "dot", color: themeColour("--quantized") } }];
  chart("depth", [line("sqnr", "whole run", themeColour("--exact")),
    line("own", "own nodes on float inputs", themeColour("--quantized"))],
  frame("", "place in the network", "SQNR, dB", { shapes: mark, height: 240 }));
  const place = document.getElementById("depth");
  place.removeAllListeners?.("plotly_click");
  place.on("plotly_click", (event) => choose(event.points[0].x));
}

function drawHistogram(detail) {
  if (!detail.histogram) return chart("histogram", []);
  const [low, high, exact, quantized] = detail.histogram;
  const width = (high - low) / exact.length;
  const x = exact.map((_, bin) => low + (bin + 0.5) * width);
  const bars = (y, name, colour) => ({ type: "bar", x, y, name, width, opacity: 0.6,
    marker: { color: colour } });
  const palette = ["#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf",
    "#2ca02c", "#ff7f0e"];
  const limits = Object.entries(detail.thresholds).map(([name, ends], index) => ({
    x: [ends[0], ends[0], null, ends[1], ends[1]], y: [0, 1, null, 0, 1], yaxis: "y2",
    mode: "lines", name, line: { width: 1.5, dash: "dot", color: palette[index % 9] } }));
  const covered = [cell(chosen.row, "low"), cell(chosen.row, "high")];
  if (covered[0] !== null) {
    limits.unshift({ x: [covered[0], covered[0], null, covered[1], covered[1]],
      y: [0, 1, null, 0, 1], yaxis: "y2", mode: "lines", name: "covered",
      line: { width: 2, color: themeColour("--text") } });
  }
  chart("histogram", [bars(exact, "float", themeColour("--exact")),
    bars(quantized, "quantized", themeColour("--quantized")), ...limits],
  frame("Values, and the range of each method", "value", "", {
    barmode: "overlay", height: 340, yaxis2: { overlaying: "y", visible: false, range: [0, 1] },
    yaxis: { type: "log", automargin: true, gridcolor: themeColour("--line"),
      title: { text: "elements (log)" } },
    legend: { x: 1.02, y: 1, font: { size: 10 } } }));
}

function drawScatter(detail) {
  if (!detail.scatter) return chart("scatter", []);
  const [x, y] = detail.scatter;
  const ends = [Math.min(...x), Math.max(...x)];
  chart("scatter", [{ x, y, mode: "markers", name: "elements",
    marker: { size: 4, color: themeColour("--exact"), opacity: 0.7 } },
  { x: ends, y: ends, mode: "lines", name: "equal",
    line: { width: 1, color: themeColour("--soft") } }],
  frame("Float against quantized", "float", "quantized", { height: 340, showlegend: false }));
}

function drawWeights(detail) {
  if (!detail.weights) return chart("weights", []);
  const [low, high, reach] = detail.weights;
  const x = low.map((_, channel) => channel);
  const lines = (y, name, colour, dash) => ({ x, y, name, mode: "lines",
    line: { shape: "hvh", width: 1.5, color: colour, dash } });
  const traces = [lines(low, "least", themeColour("--exact")),
    lines(high, "most", themeColour("--exact"))];
  if (reach.length) {
    traces.push(lines(reach, "what the scale reaches", themeColour("--quantized"), "dot"),
      lines(reach.map((v) => -v), "", themeColour("--quantized"), "dot"));
  }
  chart("weights", traces, frame("Weights by output channel", "channel", "weight",
    { height: 340, showlegend: false }));
}

function drawSearch() {
  const { ranking, front, scores } = data.searched;
  document.getElementById("search").hidden = !ranking && !front;
  if (scores) {
    const mixed = `with ${scores.floats} float layers`;
    const known = [["INT8", scores.int8_cos], [mixed, scores.mix_cos]];
    document.getElementById("scores").textContent = known.filter(([, score]) => score !== undefined)
      .map(([label, score]) => `${label} ${score.toFixed(6)}`).join(" · ");
  }
  if (ranking) drawRanking(ranking.slice(0, MOST_RANKED));
  if (front) drawFront(front);
}

const MOST_RANKED = 30;

function drawRanking(rows) {
  const colours = rows.map((r) => themeColour(r.float ? "--quantized" : "--exact"));
  chart("ranking", [{ type: "bar", orientation: "h", x: rows.map((r) => r.loss),
    y: rows.map((_, place) => place), marker: { color: colours },
    text: rows.map((r) => plain(`${r.op} ${r.name}`)), textposition: "none",
    hovertemplate: "%{text}<br>%{x}<extra></extra>" }],
  frame("Layers by what they lose alone in integers (orange: float)", "loss", "", {
    height: 80 + 18 * rows.length, yaxis: { autorange: "reversed", automargin: true,
      tickvals: rows.map((_, place) => place),
      ticktext: rows.map((r) => plain(clipped(r.name, 44))) } }));
  const place = document.getElementById("ranking");
  place.removeAllListeners?.("plotly_click");
  place.on("plotly_click", (event) => {
    const row = rowOf.get(rows[event.points[0].y].name);
    if (row !== undefined) choose(row);
  });
}

function drawFront(front) {
  chart("front", [{ x: front.map((p) => p.ms), y: front.map((p) => p.score),
    text: front.map((p) => `${p.floats} float layers, predicted ${p.predicted.toFixed(2)} ms`),
    hovertemplate: "%{x:.2f} ms, %{y:.6f}<br>%{text}<extra></extra>", mode: "lines+markers",
    marker: { size: 8, color: themeColour("--quantized") },
    line: { color: themeColour("--quantized") } }],
  frame("Accuracy and latency of mixed models", "measured ms", "score"));
}
