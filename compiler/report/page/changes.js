// What differs between two modules: a list with a filter, and what concerns the chosen node.

const MOST_CHANGES = 200;
const SIGNS = { "+": "added", "-": "removed", "~": "changed" };

function changeElement([sign, op, name, note, details]) {
  const made = element("div", { class: `change ${SIGNS[sign]}` });
  const head = element("b", {}, `${sign} ${op} ${name}`);
  made.append(head);
  if (note) made.append(element("span", { class: "next" }, note));
  for (const [aspect, before, after] of details) {
    const line = element("code", {});
    line.append(element("i", {}, aspect), element("del", {}, before), " → ",
      element("ins", {}, after));
    made.append(line);
  }
  const row = rowOf.get(name);
  if (row !== undefined) {
    head.style.cursor = "pointer";
    head.addEventListener("click", () => choose(row));
  }
  return made;
}

function drawChanges() {
  const words = document.getElementById("find-change").value.toLowerCase().split(/\s+/);
  const all = data.difference.changes;
  const hits = all.filter((change, index) => {
    changes.text[index] ??= JSON.stringify(change).toLowerCase();
    return words.every((word) => changes.text[index].includes(word));
  });
  const shown = hits.slice(0, MOST_CHANGES);
  document.getElementById("changes").replaceChildren(...shown.map(changeElement));
  const rest = hits.length > shown.length ? `, the first ${shown.length} are shown` : "";
  document.getElementById("changes-count").textContent = `${hits.length} of ${all.length}${rest}`;
}

const changes = { text: [], byName: new Map() };

function drawChangesOf(row) {
  const ofNode = changes.byName.get(cell(row, "name")) ?? [];
  document.getElementById("changed").replaceChildren(...ofNode.map(changeElement));
}

function startChanges() {
  const difference = data.difference;
  document.getElementById("differences").hidden = !difference;
  if (!difference) return;
  for (const change of difference.changes) {
    const ofNode = changes.byName.get(change[2]);
    if (ofNode) ofNode.push(change);
    else changes.byName.set(change[2], [change]);
  }
  const { before, after, nodes } = difference;
  document.getElementById("compared").textContent =
    `from ${before} (${nodes[0]} nodes) to ${after} (${nodes[1]} nodes)`;
  document.getElementById("find-change").addEventListener("input", drawChanges);
  drawChanges();
}
