
const scatter = document.querySelector("[data-figure='scatter']");
const models = document.querySelector(".chooser[data-axis='model'] select");

/** Puts the ring around the model that is shown. */
function ring() {
  const { data } = pictures.scatter.figure;
  const mark = data.at(-1);
  for (const trace of data.slice(0, -1)) {
    const place = trace.customdata.indexOf(chosen.model);
    if (place >= 0) [mark.x, mark.y] = [[trace.x[place]], [trace.y[place]]];
  }
}

/** Gives an axis, "x" or "y", the numbers that its list asks for. */
function measure({ name: letter, value: quantity }) {
  const { data, layout } = pictures.scatter.figure;
  const { values, axis } = layout.meta.axes[quantity];
  values.forEach((numbers, i) => (data[i][letter] = numbers));
  layout[`${letter}axis`] = axis;
}

if (scatter) {
  const lists = [...document.querySelectorAll(".axes select")];

  function redraw() {
    lists.forEach(measure);
    ring();
    markOutOfDate([scatter]);
  }

  function show({ points: [point] }) {
    models.value = point.customdata;
    models.dispatchEvent(new Event("change"));
  }

  lists.forEach((list) => list.addEventListener("change", redraw));
  document.addEventListener("chosen", ({ detail }) => {
    if (detail === "model") redraw();
  });
  scatter.addEventListener("drawn", () => {
    scatter.removeAllListeners("plotly_click");
    scatter.on("plotly_click", show);
  });
  redraw();
}
