"use strict";

const { templates, colours, pictures } = JSON.parse(document.getElementById("pictures").textContent);
const places = [...document.querySelectorAll("[data-figure]")];
const darkMode = matchMedia("(prefers-color-scheme: dark)");
const touch = matchMedia("(hover: none)");
const options = {
  displaylogo: false,
  displayModeBar: touch.matches ? false : "hover", // on a touch screen it would cover the legend
  modeBarButtons: [["toImage"]],
  toImageButtonOptions: { format: "svg" },
};

const chosen = {};
let printing = false;

/** Draws the figures that are out of date, each when it comes near the screen. */
const outOfDate = new IntersectionObserver(
  (entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => draw(entry.target)),
  { rootMargin: "100%" }, // near: no further than one more screen
);

/** Sees when a place appears or has another size: its figure is as large as it. */
const sizes = new ResizeObserver((entries) => {
  if (!printing) markOutOfDate(entries.map((entry) => entry.target));
});

/** Sets what a path such as "data.0.z" leads to. */
function put(figure, path, value) {
  const keys = path.split(".");
  const last = keys.pop();
  keys.reduce((part, key) => part[key], figure)[last] = value;
}

/** Marks figures as out of date: those near the screen are drawn in the next frame. */
function markOutOfDate(changed) {
  for (const place of changed) {
    outOfDate.unobserve(place);
    outOfDate.observe(place);
  }
}

/** Draws a figure as it is to be now. */
function draw(place) {
  outOfDate.unobserve(place);
  const picture = pictures[place.dataset.figure];
  const figure = structuredClone(picture.figure);
  const version = picture.versions[chosen[picture.axis] ?? 0] ?? {};
  for (const [path, value] of Object.entries(version)) put(figure, path, value);
  const scheme = darkMode.matches && !printing ? "dark" : "light";
  figure.layout.template = templates[scheme];
  const named = figure.layout.meta?.colours;
  if (named) figure.layout.colorway = named.map((name) => colours[scheme][name]);
  figure.layout.width = place.clientWidth;
  figure.layout.height = place.clientHeight;
  // Plotly.react, which is faster, leaves a legend where it was at another width.
  const plot = place.layout?.width === figure.layout.width ? Plotly.react : Plotly.newPlot;
  plot(place, figure.data, figure.layout, options);
  place.dispatchEvent(new CustomEvent("drawn"));
}

/** Shows what belongs to a choice on an axis. */
function choose(axis, choice) {
  chosen[axis] = choice;
  markOutOfDate(places.filter((place) => pictures[place.dataset.figure].axis === axis));
  for (const part of document.querySelectorAll(`[data-${axis}]`)) {
    part.hidden = Number(part.dataset[axis]) !== choice;
  }
  document.dispatchEvent(new CustomEvent("chosen", { detail: axis }));
}

/** The words of a sequence: "2 0 3 1", or "2031" where every word is a letter long. */
function words(typed) {
  const parts = typed.split(/[^\w#]+/).filter(Boolean);
  return (parts.length > 1 ? parts : [...typed.trim()]).join(" ");
}

function connectChooser(form) {
  const { axis } = form.dataset;
  const list = form.querySelector("select");
  const typed = form.querySelector("input");
  const complaint = form.querySelector(".complaint");
  const said = form.querySelector("output:not(.complaint)");
  const all = [...list.options];

  function say(sentence) {
    if (said) said.textContent = sentence;
  }

  /** Says beside the box what was expected there; nothing, if the box is right. */
  function complain(sentence) {
    if (!typed) return;
    complaint.textContent = sentence;
    typed.classList.toggle("wrong", sentence !== "");
    typed.setAttribute("aria-invalid", String(sentence !== ""));
  }

  function go(option) {
    say("");
    complain("");
    list.value = option.value;
    choose(axis, Number(option.value));
  }

  function move(step) {
    const from = list.selectedIndex;
    if (step !== "mistake") return go(all[(from + Number(step) + all.length) % all.length]);
    const after = [...all.slice(from + 1), ...all.slice(0, from)];
    const wrong = after.find((option) => "wrong" in option.dataset);
    if (wrong) return go(wrong);
    say("no other mistake");
  }

  list.addEventListener("change", () => go(list.selectedOptions[0]));
  typed?.addEventListener("change", () => {
    const names = [words(typed.value), typed.value.trim()];
    const found = all.find((option) => names.includes(option.dataset.name));
    if (found) go(found);
    else complain(typed.value.trim() && form.dataset.absent);
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  for (const button of form.querySelectorAll("[data-move]")) {
    button.addEventListener("click", () => move(button.dataset.move));
  }
  go(all[0]);
}

/** A slider over training: its labels are in a list beside it. */
function connectSlider(form) {
  const slider = form.querySelector("input");
  const said = form.querySelector("output");
  const labels = [...form.querySelectorAll("li")].map((item) => item.textContent);

  function go() {
    said.textContent = labels[slider.value];
    slider.setAttribute("aria-valuetext", labels[slider.value]);
    choose(form.dataset.axis, Number(slider.value));
  }

  slider.addEventListener("input", go);
  go();
}

/** Shows the places of one layer or head, or of all. */
function connectFilter(form) {
  const selects = [...form.querySelectorAll("select")];

  function filter() {
    for (const card of document.querySelectorAll("[data-layer]")) {
      card.hidden = !selects.every(({ name, value }) => ["all", card.dataset[name] ?? value].includes(value));
    }
  }

  selects.forEach((select) => select.addEventListener("change", filter));
}

/** Opens the section that the address leads to. */
function openTarget() {
  const details = document.getElementById(location.hash.slice(1))?.querySelector("details");
  if (details) details.open = true;
}

/** On paper the page is whole, light, and as narrow as a sheet. */
function setPrinting(on) {
  printing = on;
  document.documentElement.classList.toggle("printing", on);
  if (on) {
    document.querySelectorAll("details").forEach((details) => (details.open = true));
    places.forEach(draw); // the printer does not wait
  } else {
    markOutOfDate(places);
  }
}

document.querySelectorAll(".chooser").forEach(connectChooser);
document.querySelectorAll(".slider").forEach(connectSlider);
document.querySelectorAll(".filter").forEach(connectFilter);
addEventListener("hashchange", openTarget);
openTarget();
darkMode.addEventListener("change", () => markOutOfDate(places));
addEventListener("beforeprint", () => setPrinting(true));
addEventListener("afterprint", () => setPrinting(false));
places.forEach((place) => sizes.observe(place));
