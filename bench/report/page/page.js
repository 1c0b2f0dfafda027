"use strict";
// Draws the charts in the colours of the page's style sheet, again when the colour scheme changes.
const source = document.getElementById("charts").textContent;
function draw() {
  const style = getComputedStyle(document.documentElement);
  const inColour = (_, value) => (/^var\(--\w+\)$/.test(value) ? style.getPropertyValue(value.slice(4, -1)).trim() : value);
  for (const { id, data, layout } of JSON.parse(source, inColour)) {
    const chart = document.getElementById(id);
    const isNew = !chart.data;
    Plotly.react(chart, data, layout, { displayModeBar: false, responsive: true, showTips: false });
    if (isNew && chart.dataset.labels) chart.on("plotly_afterplot", () => placeLabels(chart));
    if (chart.dataset.labels) placeLabels(chart);
  }
}

// Moves each point's name to the nearest place where it covers neither a marker nor another name.
function placeLabels(chart) {
  const box = (element) => element.getBoundingClientRect();
  const meet = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
  const frame = box(chart.querySelector(".nsewdrag"));
  const taken = [...chart.querySelectorAll(".point")].map(box);
  for (const label of chart.querySelectorAll("text.textpoint, .textpoint text")) {
    label.style.translate = "none";
    const at = box(label);
    const moves = [];
    for (let dy = -22; Math.abs(dy) < 160; dy = dy < 0 ? -dy : -dy - 4)
      for (const dx of [0, 0.35, -0.35, 0.62, -0.62]) moves.push([dx * at.width, dy]);
    moves.sort(([a, b], [c, d]) => Math.hypot(a / 3, b) - Math.hypot(c / 3, d));
    for (const [dx, dy] of moves) {
      const moved = new DOMRect(at.x + dx, at.y + dy, at.width, at.height);
      if (moved.left < frame.left || moved.right > frame.right || moved.top < frame.top || moved.bottom > frame.bottom) continue;
      if (taken.some((other) => meet(moved, other))) continue;
      label.style.translate = `${dx}px ${dy}px`;
      taken.push(moved);
      break;
    }
  }
}

// Sorts a table by the column of the pressed button; what was not measured stays last either way.
function sort(button) {
  const header = button.closest("th");
  const body = header.closest("table").tBodies[0];
  const sign = header.ariaSort === "ascending" ? -1 : 1;
  const value = (row) => row.cells[header.cellIndex].dataset.value;
  const compare = (a, b) => {
    if (!value(a) || !value(b)) return !value(a) - !value(b);
    return sign * (value(a) - value(b) || value(a).localeCompare(value(b), "en", { numeric: true }));
  };
  for (const other of header.parentElement.cells) other.removeAttribute("aria-sort");
  header.ariaSort = sign === 1 ? "ascending" : "descending";
  body.append(...[...body.rows].sort(compare));
}

for (const button of document.querySelectorAll("thead button")) button.addEventListener("click", () => sort(button));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
draw();
