// Which groups are open, and where what can be seen stands.

const BOX = { width: 200, height: 34, gapX: 18, gapY: 26 };
const SEEN_AT_ONCE = 400;

const folds = { groups: [], parent: new Map(), open: new Set() };

function readTree(tree, parent) {
  const id = folds.groups.length;
  const group = { id, label: tree.label, parent, members: [], rows: [] };
  folds.groups.push(group);
  for (const member of tree.members) {
    if (typeof member === "number") {
      folds.parent.set(member, id);
      group.members.push({ row: member });
      group.rows.push(member);
    } else {
      const inner = readTree(member, id);
      group.members.push({ group: inner });
      for (const row of folds.groups[inner].rows) group.rows.push(row);
    }
  }
  return id;
}

// What is seen: rows and closed groups, in the order of their first row.
function visible(id = 0, out = []) {
  for (const member of folds.groups[id].members) {
    if (member.row !== undefined) out.push({ row: member.row, rows: [member.row] });
    else if (folds.open.has(member.group)) visible(member.group, out);
    else out.push({ group: member.group, rows: folds.groups[member.group].rows });
  }
  if (id === 0) out.sort((a, b) => a.rows[0] - b.rows[0]);
  return out;
}

function unfoldAround(row) {
  for (let id = folds.parent.get(row); id; id = folds.groups[id].parent) folds.open.add(id);
}

// One level more everywhere, as far as it stays readable.
function unfoldLevel() {
  for (const box of visible()) {
    if (box.group === undefined) continue;
    folds.open.add(box.group);
    if (visible().length > SEEN_AT_ONCE) {
      folds.open.delete(box.group);
      return;
    }
  }
}

// Layers by the longest path along rising order; places within a layer by their neighbours.
function layout() {
  const boxes = visible();
  const of = new Map();
  boxes.forEach((box, index) => box.rows.forEach((row) => of.set(row, index)));
  const links = new Map();
  for (const [from, to] of data.edges) {
    const a = of.get(from), b = of.get(to);
    if (a !== b) links.set(`${a} ${b}`, [a, b]);
  }
  const edges = [...links.values()];
  const before = boxes.map(() => []);
  for (const [a, b] of edges) if (a < b) before[b].push(a);
  boxes.forEach((box, index) => {
    box.layer = before[index].reduce((most, a) => Math.max(most, boxes[a].layer + 1), 0);
  });
  const layers = [];
  boxes.forEach((box, index) => (layers[box.layer] ??= []).push(index));
  for (const layer of layers) {
    const wish = (index) => before[index].length
      ? before[index].reduce((sum, a) => sum + boxes[a].x, 0) / before[index].length : 0;
    layer.sort((a, b) => wish(a) - wish(b) || a - b);
    layer.forEach((index, place) => {
      boxes[index].x = (place - (layer.length - 1) / 2) * (BOX.width + BOX.gapX);
      boxes[index].y = boxes[index].layer * (BOX.height + BOX.gapY);
    });
  }
  return { boxes, edges };
}
