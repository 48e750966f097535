"use strict";
// Tables that sort. Each header becomes a button; cells give their value in data-v.
for (const table of document.querySelectorAll("table.sorts")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const rising = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", rising ? "ascending" : "descending");
      const value = (row) => {
        const text = row.cells[column].dataset.v ?? row.cells[column].textContent;
        return text === "" ? -Infinity : Number.isNaN(Number(text)) ? text : Number(text);
      };
      const order = (a, b) => {
        const [x, y] = [value(a), value(b)];
        if (typeof x === "number" && typeof y === "number") return x - y;
        return String(x).localeCompare(String(y));
      };
      const body = table.tBodies[0];
      const rows = [...body.rows].sort(order);
      body.append(...(rising ? rows : rows.reverse()));
    });
  });
}

// Buttons that show only the boards of one outcome, in the table and among the maps.
const filters = document.querySelectorAll(".filters button");
for (const button of filters) {
  button.addEventListener("click", () => {
    filters.forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
    for (const item of document.querySelectorAll("[data-outcome]")) {
      const wanted = button.dataset.only;
      item.hidden = wanted !== "" && item.dataset.outcome !== wanted;
    }
  });
}

// The viewer: a board's stack of layers is moved into the dialog and back.
const viewer = document.getElementById("viewer");
const stage = viewer.querySelector(".stage");
const opens = [...document.querySelectorAll(".open")];
const fingers = new Map();
let shown = -1, scale = 1, left = 0, top_ = 0;

const stack = () => stage.firstElementChild;

function place() {
  stack().style.transform = `translate(${left}px, ${top_}px) scale(${scale})`;
}

function fit() {
  const { clientWidth: width, clientHeight: height } = stage;
  const ratio = Number(stack().dataset.ratio);  // height over width
  stack().style.width = `${Math.min(width, height / ratio)}px`;
  scale = 1;
  left = (width - stack().offsetWidth) / 2;
  top_ = (height - stack().offsetHeight) / 2;
  place();
}

function zoom(factor, x = stage.clientWidth / 2, y = stage.clientHeight / 2) {
  const next = Math.min(40, Math.max(1, scale * factor));
  left = x - (x - left) * next / scale;
  top_ = y - (y - top_) * next / scale;
  scale = next;
  place();
}

function move(dx, dy) {
  left += dx;
  top_ += dy;
  place();
}

function putBack() {
  if (shown < 0) return;
  const own = stack();
  own.style.width = own.style.transform = "";
  opens[shown].append(own);
  shown = -1;
}

function show(index) {
  putBack();
  shown = (index + opens.length) % opens.length;
  document.getElementById("viewer-name").textContent = opens[shown].dataset.name;
  stage.append(opens[shown].firstElementChild);
  if (!viewer.open) viewer.showModal();
  fit();
  stage.focus({ preventScroll: true });
}

function step(by) {
  let next = shown;
  do next = (next + by + opens.length) % opens.length;
  while (opens[next].closest("[hidden]") && next !== shown);
  show(next);
}

const actions = {
  in: () => zoom(1.5), out: () => zoom(1 / 1.5), fit,
  next: () => step(1), previous: () => step(-1), close: () => viewer.close(),
};
const keys = {
  "+": actions.in, "=": actions.in, "-": actions.out, "0": fit, n: actions.next, p: actions.previous,
  ArrowLeft: () => move(60, 0), ArrowRight: () => move(-60, 0),
  ArrowUp: () => move(0, 60), ArrowDown: () => move(0, -60),
};

function layers() {
  for (const box of viewer.querySelectorAll("[data-layer]")) {
    viewer.classList.toggle(`show-${box.dataset.layer}`, box.checked);
  }
}

opens.forEach((button, index) => button.addEventListener("click", () => show(index)));
viewer.addEventListener("close", () => {
  const last = shown;
  putBack();
  if (last >= 0) opens[last].focus();
});
viewer.addEventListener("change", layers);
viewer.addEventListener("click", (event) => actions[event.target.dataset?.do]?.());
viewer.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !(event.key in keys)) return;
  event.preventDefault();
  keys[event.key]();
});
stage.addEventListener("wheel", (event) => {
  event.preventDefault();
  const box = stage.getBoundingClientRect();
  zoom(Math.exp(-event.deltaY / 400), event.clientX - box.left, event.clientY - box.top);
}, { passive: false });
stage.addEventListener("pointerdown", (event) => {
  stage.setPointerCapture(event.pointerId);
  fingers.set(event.pointerId, event);
});
stage.addEventListener("pointermove", (event) => {
  const before = fingers.get(event.pointerId);
  if (!before) return;
  const other = [...fingers.values()].find((finger) => finger.pointerId !== event.pointerId);
  if (other) {
    const box = stage.getBoundingClientRect();
    const away = (finger) => Math.hypot(finger.clientX - other.clientX, finger.clientY - other.clientY);
    zoom(away(event) / Math.max(1, away(before)), other.clientX - box.left, other.clientY - box.top);
  } else {
    move(event.clientX - before.clientX, event.clientY - before.clientY);
  }
  fingers.set(event.pointerId, event);
});
for (const kind of ["pointerup", "pointercancel"]) {
  stage.addEventListener(kind, (event) => fingers.delete(event.pointerId));
}
window.addEventListener("resize", () => { if (shown >= 0) fit(); });
layers();
