// What is known of the chosen node.

const CHARTS = [drawHistogram, drawScatter, drawWeights];

function showPane(row) {
  const detail = data.detail[row] ?? {};
  document.getElementById("chosen").textContent = `${cell(row, "op")} ${cell(row, "name")}`;
  const facts = ORDER.slice(2).map((name) => [TITLES[name] ?? name, shown(name, cell(row, name))]);
  document.getElementById("about").textContent =
    facts.filter(([, text]) => text !== "").map(([label, text]) => `${label} ${text}`).join(" · ");
  for (const draw of CHARTS) draw(detail);
  drawSteps(detail.steps);
  drawChangesOf(row);
}

function drawSteps(steps) {
  const place = document.getElementById("steps");
  if (!steps) {
    place.replaceChildren(element("p", { class: "hint" },
      data.refused || "no pass changed it between the float model and the quantized one"));
    return;
  }
  place.replaceChildren(...steps.map(([name, lines]) => {
    const step = element("div", { class: "step" });
    step.append(element("b", {}, name));
    for (const line of lines) {
      const kind = line[0] === "+" ? "added" : line[0] === "-" ? "removed" : "";
      step.append(element("code", { class: kind }, line));
    }
    return step;
  }));
}
