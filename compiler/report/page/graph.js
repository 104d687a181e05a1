// The network as SVG: groups folded by their names, coloured, zoomed and moved.

const SVG = "http://www.w3.org/2000/svg";
const view = { x: 0, y: 0, width: 0, height: 0 };

function svg(tag, attributes, text = null) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== null) made.textContent = text;
  return made;
}

function worst(rows) {
  let least = null;
  for (const row of rows) {
    const value = cell(row, "sqnr");
    if (value !== null && (least === null || value < least)) least = value;
  }
  return least;
}

function seconds(rows) {
  return rows.reduce((sum, row) => sum + (cell(row, "int8_us") ?? 0), 0);
}

function precisionOf(rows) {
  const names = new Set(rows.map((row) => cell(row, "precision")).filter(Boolean));
  return names.size === 1 ? [...names][0] : names.size ? "mixed" : "";
}

function boxColour(box, most) {
  const how = document.getElementById("colour").value;
  if (how === "sqnr") return sqnrColour(worst(box.rows));
  if (how === "time") return timeColour(seconds(box.rows) / (most || 1));
  const name = precisionOf(box.rows);
  return name === "mixed" ? "#d8cf6a" : precisionColour(name);
}

function legend() {
  const how = document.getElementById("colour").value;
  const entries = {
    sqnr: [[sqnrColour(0), "0 dB"], [sqnrColour(20), "20 dB"], [sqnrColour(40), "40 dB"]],
    precision: [[precisionColour("u8"), "integer"], ["#d8cf6a", "mixed"],
      [precisionColour("f32"), "float"]],
    time: [[timeColour(0), "fast"], [timeColour(1), "slowest"]],
  }[how];
  document.getElementById("legend").replaceChildren(...entries.map(([colour, text]) => {
    const made = element("span", {}, text);
    const mark = element("i");
    mark.style.background = colour;
    made.prepend(mark);
    return made;
  }));
}

// The end of a name says most of it, but for what exporters put behind.
function tail(name) {
  return clipped(name.replace(/_output_\d+$/, ""));
}

function clipped(text, length = 29) {
  return text.length > length ? `…${text.slice(1 - length)}` : text;
}

function labelOf(box) {
  if (box.group !== undefined) {
    return [clipped(folds.groups[box.group].label), `${box.rows.length} nodes`];
  }
  const value = shown("sqnr", cell(box.row, "sqnr"));
  const error = value === "" || value === "exact" ? value : `${value} dB`;
  return [tail(cell(box.row, "name")), `${cell(box.row, "op")} ${error}`];
}

function drawGraph(fit = false) {
  const { boxes, edges } = layout();
  const most = Math.max(...boxes.map((box) => seconds(box.rows)), 0);
  const root = document.getElementById("graph");
  const parts = edges.map(([a, b]) => {
    const from = boxes[a], to = boxes[b];
    const y1 = from.y + BOX.height, y2 = to.y, bend = Math.max(14, Math.abs(y2 - y1) / 2);
    return svg("path", { d: `M${from.x} ${y1}C${from.x} ${y1 + bend} ${to.x} ${y2 - bend} ` +
      `${to.x} ${y2}` });
  });
  for (const box of boxes) parts.push(drawBox(box, most));
  root.replaceChildren(...parts);
  legend();
  if (fit || !view.width) fitView(boxes);
}

function drawBox(box, most) {
  const made = svg("g", {});
  const marks = ["box"];
  if (box.group !== undefined) marks.push("group");
  else if (box.row === chosen.row) marks.push("chosen");
  const frame = svg("rect", { x: box.x - BOX.width / 2, y: box.y, width: BOX.width,
    height: BOX.height, rx: 5, class: marks.join(" "), fill: boxColour(box, most) });
  const full = box.group !== undefined ? folds.groups[box.group].label : cell(box.row, "name");
  frame.append(svg("title", {}, full));
  made.append(frame);
  labelOf(box).forEach((text, line) => made.append(svg("text", { x: box.x,
    y: box.y + 14 + 14 * line, "text-anchor": "middle", fill: "#14171c" }, text)));
  made.addEventListener("click", (event) => clickBox(box, event.shiftKey));
  return made;
}

function clickBox(box, fold) {
  if (fold) {
    const around = box.group !== undefined ? folds.groups[box.group].parent
      : folds.parent.get(box.row);
    if (around) folds.open.delete(around);
    drawGraph();
  } else if (box.group !== undefined) {
    folds.open.add(box.group);
    drawGraph();
  } else {
    choose(box.row);
  }
}

function fitView(boxes) {
  const root = document.getElementById("graph");
  const ratio = root.clientHeight / Math.max(1, root.clientWidth);
  const half = Math.max(...boxes.map((box) => Math.abs(box.x))) + BOX.width;
  view.width = Math.min(2 * half, 1100);
  view.height = view.width * ratio;
  view.x = -view.width / 2;
  view.y = -BOX.gapY;
  applyView();
}

function applyView() {
  const numbers = [view.x, view.y, view.width, view.height];
  document.getElementById("graph").setAttribute("viewBox", numbers.join(" "));
}

function showNode(row) {
  unfoldAround(row);
  drawGraph();
  const box = layout().boxes.find((b) => b.row === row);
  if (!box) return;
  view.x = box.x - view.width / 2;
  view.y = box.y - view.height / 2;
  applyView();
}

// Choose the first node from a row on whose name holds the text, from the top again at the end.
function find(text, from) {
  const wanted = text.toLowerCase();
  const count = data.rows.length;
  for (let step = 0; wanted && step < count; step += 1) {
    const row = (from + step) % count;
    if (cell(row, "name").toLowerCase().includes(wanted)) return choose(row);
  }
}

function startGraph() {
  readTree(data.tree, null);
  folds.open.add(0);
  if (data.rows.length <= 60) unfoldLevel();
  const root = document.getElementById("graph");
  root.addEventListener("wheel", (event) => {
    event.preventDefault();
    const area = root.getBoundingClientRect();
    const atX = (event.clientX - area.left) / area.width;
    const atY = (event.clientY - area.top) / area.height;
    const zoom = Math.exp(event.deltaY / 600);
    view.x += view.width * atX * (1 - zoom);
    view.y += view.height * atY * (1 - zoom);
    view.width *= zoom;
    view.height *= zoom;
    applyView();
  }, { passive: false });
  root.addEventListener("pointermove", (event) => {
    if (!(event.buttons & 1)) return;
    view.x -= (event.movementX * view.width) / root.clientWidth;
    view.y -= (event.movementY * view.height) / root.clientHeight;
    applyView();
  });
  document.getElementById("colour").addEventListener("change", () => drawGraph());
  document.getElementById("open").addEventListener("click", () => { unfoldLevel(); drawGraph(); });
  document.getElementById("fold").addEventListener("click", () => {
    folds.open = new Set([0]);
    drawGraph(true);
  });
  const field = document.getElementById("find");
  field.addEventListener("input", () => find(field.value, 0));
  field.addEventListener("keydown", (event) => {
    if (event.key === "Enter") find(field.value, (chosen.row ?? -1) + 1);
  });
  chosen.listeners.push(showNode);
  drawGraph(true);
}
