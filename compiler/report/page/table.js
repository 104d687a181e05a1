// The table of nodes: only the rows that can be seen are in the document.

const HEIGHT = 24;
const WIDTHS = { name: 300, op: 110, precision: 58, reason: 260, runs: 64, outside: 84, low: 84 };
const LEFT = new Set(["name", "op", "precision", "runs", "reason"]);
const TITLES = { precision: "type", float_us: "float µs", int8_us: "int8 µs", low: "covers from",
  high: "covers to", from: "least", to: "most", own: "own dB", sqnr: "run dB" };
const ORDER = ["name", "op", "precision", "sqnr", "own", "outside", "cos", "low", "high", "from",
  "to", "scale", "float_us", "int8_us", "runs", "reason"];

const table = { order: data.rows.map((_, index) => index), sort: null, down: false };

function cellElement(name, text) {
  const made = element("span", { title: text }, text);
  made.style.width = `${WIDTHS[name] ?? 76}px`;
  if (LEFT.has(name)) made.className = "left";
  return made;
}

function drawHead() {
  const row = element("div", { class: "row" });
  for (const name of ORDER) {
    const arrow = table.sort === name ? (table.down ? " ▾" : " ▴") : "";
    const made = cellElement(name, (TITLES[name] ?? name) + arrow);
    made.dataset.column = name;
    made.addEventListener("click", () => sortBy(name));
    row.append(made);
  }
  document.getElementById("head").replaceChildren(row);
}

function sortBy(name) {
  table.down = table.sort === name ? !table.down : false;
  table.sort = name;
  refresh();
}

// Words that a row must hold, and comparisons such as sqnr<20.
function conditions(text) {
  return text.trim().split(/\s+/).filter(Boolean).map((word) => {
    const parts = /^(\w+)([<>=])(.+)$/.exec(word);
    if (parts && parts[1] in column) {
      const [, name, sign, wanted] = parts;
      const number = Number(wanted);
      if (sign === "=") return (row) => String(cell(row, name) ?? "") === wanted;
      return (row) => {
        const value = cell(row, name);
        return value !== null && (sign === "<" ? value < number : value > number);
      };
    }
    const plain = word.toLowerCase();
    return (row) => ["name", "op", "precision", "runs", "reason"]
      .some((name) => String(cell(row, name) ?? "").toLowerCase().includes(plain));
  });
}

function refresh() {
  const wanted = conditions(document.getElementById("filter").value);
  const all = data.rows.map((_, index) => index);
  table.order = all.filter((row) => wanted.every((fits) => fits(row)));
  if (table.sort !== null) {
    const place = column[table.sort];
    const sign = table.down ? -1 : 1;
    table.order.sort((a, b) => sign * compared(data.rows[a][place], data.rows[b][place]) || a - b);
  }
  document.getElementById("count").textContent = `${table.order.length} of ${data.rows.length}`;
  document.getElementById("rows").style.height = `${table.order.length * HEIGHT}px`;
  drawHead();
  drawRows();
}

// Nothing known sorts behind everything.
function compared(a, b) {
  const none = (value) => value === null || value === "";
  if (none(a) || none(b)) return none(a) && none(b) ? 0 : none(a) ? 1 : -1;
  return a < b ? -1 : a > b ? 1 : 0;
}

function drawRows() {
  const view = document.getElementById("table");
  const start = Math.max(0, Math.floor(view.scrollTop / HEIGHT) - 5);
  const stop = Math.min(table.order.length, start + Math.ceil(view.clientHeight / HEIGHT) + 10);
  const rows = table.order.slice(start, stop).map((index) => {
    const row = element("div", { class: index === chosen.row ? "row chosen" : "row" });
    row.dataset.row = index;
    for (const name of ORDER) row.append(cellElement(name, shown(name, cell(index, name))));
    return row;
  });
  const window_ = document.getElementById("window");
  window_.style.top = `${start * HEIGHT}px`;
  window_.replaceChildren(...rows);
}

function showRow(index) {
  const place = table.order.indexOf(index);
  const view = document.getElementById("table");
  const top = place * HEIGHT;
  const seen = top >= view.scrollTop && top < view.scrollTop + view.clientHeight - 2 * HEIGHT;
  if (place >= 0 && !seen) view.scrollTop = Math.max(0, top - view.clientHeight / 3);
  drawRows();
}

function startTable() {
  document.getElementById("table").addEventListener("scroll", drawRows);
  document.getElementById("filter").addEventListener("input", refresh);
  document.getElementById("window").addEventListener("click", (event) => {
    const row = event.target.closest(".row");
    if (row) choose(Number(row.dataset.row));
  });
  chosen.listeners.push(showRow);
  refresh();
}
