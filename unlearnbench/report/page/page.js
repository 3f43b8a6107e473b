// Sorting, filtering and walking through cells are DataTables'; this sets it up, and shows tips.
const packed = atob(document.getElementById("library").textContent);
const bytes = Uint8Array.from(packed, (sign) => sign.charCodeAt(0));
const address = URL.createObjectURL(new Blob([bytes], { type: "text/javascript" }));
const { default: DataTable } = await import(address);
URL.revokeObjectURL(address);

const element = document.getElementById("board");
const board = new DataTable(element, {
  order: JSON.parse(element.dataset.order),
  paging: element.tBodies[0].rows.length > 200,
  pageLength: 100,
  titleRow: 1,
  columnDefs: [ // the best first, and the first that applies counts
    { targets: "th[data-down]", orderSequence: ["desc", "asc"] },
    { targets: "_all", orderSequence: ["asc", "desc"] },
  ],
  autoWidth: false,
  keys: { keys: [13, 33, 34, 35, 36, 37, 38, 39, 40] }, // Enter, pages, ends and arrows; Tab leaves the cells
  layout: { topStart: "info", topEnd: "search", bottomStart: null, bottomEnd: element.tBodies[0].rows.length > 200 ? "paging" : null },
  language: {
    search: "Search",
    info: "_TOTAL_ lines",
    infoFiltered: "of _MAX_",
    infoEmpty: "No line",
    zeroRecords: "No line is left: widen a filter.",
  },
});

// Filters: axes choose lines, attack and metric choose columns.
const text = (html) => new DOMParser().parseFromString(html, "text/html").body.textContent;
for (const select of document.querySelectorAll("#filters select[data-axis]")) {
  const column = board.column(Number(select.dataset.axis));
  const values = [...new Set(column.data().toArray().map(text))].sort();
  for (const value of values) select.add(new Option(value, value));
  if (values.length === 1) select.value = values[0];
  if (select.dataset.name === "defense" && values.includes("none")) select.value = "none";
  const choose = () => {
    column.search(select.value, { exact: select.value !== "" });
    column.visible(select.value === "", false); // the filter says it already
    board.columns.adjust().draw();
  };
  select.addEventListener("change", choose);
  choose();
}
const attack = document.getElementById("attack");
const metric = document.getElementById("metric");
function choose_columns() {
  board.columns("[data-metric]").every(function () {
    const { metric: name, attack: whose, main } = this.header().dataset;
    const chosen = metric.value === "main" ? main === "1" || attack.value === whose : !metric.value || metric.value === name;
    this.visible(chosen && (!attack.value || attack.value === whose), false);
  });
  board.columns.adjust();
}
attack.addEventListener("change", choose_columns);
metric.addEventListener("change", () => {
  if (metric.value && metric.value !== "main") attack.value = "";
  choose_columns();
});
choose_columns();
document.getElementById("filters").addEventListener("submit", (event) => event.preventDefault());

// Tips: what a heading or a number means, where a mouse points, the keyboard is, or a finger taps.
const tip = document.getElementById("tip");
let told = null;
let described = null;
function show(cell, by = cell) {
  if (!cell || cell === told) return;
  hide();
  told = cell;
  described = by;
  const heading = cell.tagName === "TD" ? board.column(board.cell(cell).index().column).header() : cell;
  const name = heading.querySelector(".dt-column-title").textContent;
  const parts = [name, heading.dataset.tip, cell === heading ? "" : cell.dataset.tip];
  tip.replaceChildren(...parts.filter(Boolean).map((part) => Object.assign(document.createElement("p"), { textContent: part })));
  tip.hidden = false;
  put();
  by.setAttribute("aria-describedby", "tip");
}
function put() {
  if (!told) return;
  const box = told.getBoundingClientRect();
  const left = Math.min(box.left, document.documentElement.clientWidth - tip.offsetWidth - 8);
  const above = box.top - tip.offsetHeight - 6;
  tip.style.left = `${Math.max(8, left)}px`;
  tip.style.top = `${above > 0 ? above : box.bottom + 6}px`;
}
function hide() {
  described?.removeAttribute("aria-describedby");
  told = null;
  tip.hidden = true;
}
const near = (event) => (event.target instanceof Element ? event.target.closest("#board [data-tip]") : null);
document.addEventListener("mouseover", (event) => (near(event) ? show(near(event)) : hide()));
document.addEventListener("focusin", (event) => (near(event) ? show(near(event), event.target) : hide()));
document.addEventListener("keydown", (event) => event.key === "Escape" && hide());
document.addEventListener("scroll", put, { capture: true, passive: true }); // focus scrolls too
board.on("key-focus", (_, __, cell) => show(cell.node().closest("[data-tip]"), document.activeElement));
board.on("key-blur", hide);
board.on("draw", () => (told?.tagName === "TH" ? put() : hide())); // a heading that sorts still says what it is

// A method's name leads to its part of the page, which opens.
function open_part() {
  const part = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (part?.tagName !== "DETAILS") return;
  part.open = true;
  part.scrollIntoView();
  part.querySelector("summary").focus({ preventScroll: true });
}
board.on("key", (_, __, code, cell) => code === 13 && cell.node().closest("tr").querySelector("a").click());
window.addEventListener("hashchange", open_part);
document.addEventListener("click", (event) => event.target.closest?.("a[href^='#method-']") && setTimeout(open_part));
open_part();
document.documentElement.dataset.ready = "";
