"use strict";

const { templates, figures } = JSON.parse(document.getElementById("figures").textContent);
const places = [...document.querySelectorAll("[data-figure]")];
const darkMode = matchMedia("(prefers-color-scheme: dark)");
const options = {
  responsive: true,
  displaylogo: false,
  modeBarButtons: [["toImage"]],
  toImageButtonOptions: { format: "svg" },
};

let view = 0;
let printing = false;

/** The figures of a place: a single one, or one for every view. */
function alternatives(place) {
  return figures[place.dataset.figure];
}

function draw(place) {
  const all = alternatives(place);
  const { data, layout } = structuredClone(all.length > 1 ? all[view] : all[0]);
  layout.template = templates[darkMode.matches && !printing ? "dark" : "light"];
  if (printing) layout.width = place.clientWidth; // Plotly's own resizing comes too late for the printer
  Plotly.react(place, data, layout, options);
}

function drawAll() {
  places.forEach(draw);
}

function choose(chosen) {
  view = chosen;
  places.filter((place) => alternatives(place).length > 1).forEach(draw);
  for (const part of document.querySelectorAll("[data-view]")) {
    part.hidden = Number(part.dataset.view) !== view;
  }
}

/** On paper the page is light, and as narrow as a sheet. */
function setPrinting(on) {
  printing = on;
  document.documentElement.classList.toggle("printing", on);
  drawAll();
  places.forEach((place) => Plotly.Plots.resize(place));
}

for (const button of document.querySelectorAll("input[name=view]")) {
  button.checked = Number(button.value) === view;
  button.addEventListener("change", () => choose(Number(button.value)));
}
darkMode.addEventListener("change", drawAll);
addEventListener("beforeprint", () => setPrinting(true));
addEventListener("afterprint", () => setPrinting(false));
drawAll();
