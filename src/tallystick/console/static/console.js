// Makes the server's pages quicker to use; every page reads without it. No framework, no state outside the URL.
import { checkProofs } from "./proof.js";
import { walk } from "./walk.js";

const columns = document.querySelector(".columns");
const list = document.getElementById("events");

// --- times: UTC as served, or the reader's own -----------------------------------------------------------------------
const clockSwitch = document.querySelector("[data-clock-switch]");
let isLocal = localStorage.getItem("clock") === "local";

function clockText(date, local) {
  const options = { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false, timeZone: local ? undefined : "UTC" };
  return new Intl.DateTimeFormat("en-GB", options).format(date);
}

function exactText(date, source, local) {
  if (!local) return source.replace("T", " ").replace("Z", " UTC");
  const options = { dateStyle: "medium", timeStyle: "long" };
  return new Intl.DateTimeFormat(undefined, options).format(date);
}

function showTimes(root = document) {
  for (const node of root.querySelectorAll("time[datetime]")) {
    const date = new Date(node.dateTime);
    if (Number.isNaN(date.getTime())) continue;
    if ("exact" in node.dataset) node.textContent = exactText(date, node.dateTime, isLocal);
    else if (node.closest("#events")) {
      node.dataset.served ??= node.textContent;
      node.textContent = isLocal && node.dataset.served.includes(":") ? clockText(date, true) : node.dataset.served;
    }
  }
  if (list) showDays();
}

function showDays() {
  for (const node of list.querySelectorAll(".day.own")) node.remove();
  for (const node of list.querySelectorAll(".day")) node.hidden = isLocal;
  if (!isLocal) return;
  let last = "";
  for (const row of list.querySelectorAll(".row")) {
    const date = new Date(row.querySelector("time").dateTime);
    const name = new Intl.DateTimeFormat("en-GB", { weekday: "long", day: "numeric", month: "long" }).format(date);
    if (name !== last) {
      const day = document.createElement("li");
      day.className = "day own";
      day.textContent = `${name}, your time`;
      row.before(day);
      last = name;
    }
  }
}

function showClock() {
  clockSwitch.textContent = isLocal ? "Local time" : "UTC";
  showTimes();
}

if (clockSwitch) {
  clockSwitch.hidden = false;
  clockSwitch.addEventListener("click", () => {
    isLocal = !isLocal;
    localStorage.setItem("clock", isLocal ? "local" : "utc");
    showClock();
  });
  showClock();
}

// --- the panel: opened, changed and closed without loading the page again ---------------------------------------------
const withoutPanel = (url) => {
  const copy = new URL(url, location.href);
  copy.searchParams.delete("open");
  copy.searchParams.delete("tab");
  copy.searchParams.sort();
  return copy.href;
};
let shownPage = columns ? withoutPanel(location.href) : "";

async function showPanel(url, { push = true } = {}) {
  const target = new URL(url, location.href);
  if (withoutPanel(target) !== shownPage && push === false) return location.reload();
  if (!target.searchParams.get("open")) {
    document.getElementById("panel")?.remove();
    columns.classList.remove("has-panel");
  } else {
    const answer = await fetch(`/panel${target.search}`, { headers: { accept: "text/html" } });
    if (!answer.ok) return location.assign(target);
    const parsed = new DOMParser().parseFromString(await answer.text(), "text/html");
    const panel = document.importNode(parsed.getElementById("panel"), true);
    document.getElementById("panel")?.remove();
    columns.append(panel);
    columns.classList.add("has-panel");
    panelShown(panel);
  }
  if (push) history.pushState({}, "", target);
  for (const row of document.querySelectorAll(".row")) {
    const open = new URL(row.querySelector(".open").href).searchParams.get("open");
    row.toggleAttribute("aria-current", false);
    if (open && open === target.searchParams.get("open")) row.setAttribute("aria-current", "true");
  }
}

function panelShown(panel) {
  showTimes(panel);
  checkProofs(panel);
}

if (columns) {
  document.addEventListener("click", (event) => {
    if (event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey) return;
    const link = event.target.closest("a.open, a[data-tab], a[data-close]");
    if (!link) return;
    event.preventDefault();
    showPanel(link.href);
  });
  addEventListener("popstate", () => showPanel(location.href, { push: false }));
  const panel = document.getElementById("panel");
  if (panel) panelShown(panel);
}

// alt-click on a facet excludes, as the minus beside it does
document.addEventListener("click", (event) => {
  const value = event.altKey && event.target.closest(".facets .value");
  if (!value) return;
  event.preventDefault();
  location.assign(value.parentElement.querySelector(".not").href);
});

// --- small helpers ----------------------------------------------------------------------------------------------------
for (const select of document.querySelectorAll("select[data-submit]")) {
  select.addEventListener("change", () => {
    if (select.name === "from") select.form.querySelector("[name=to]")?.remove();
    select.form.requestSubmit();
  });
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy], [data-copy-url]");
  if (!button) return;
  const before = button.textContent;
  try {
    const text = button.dataset.copy ?? await (await fetch(button.dataset.copyUrl)).text();
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "The browser refused to copy";
  }
  setTimeout(() => { button.textContent = before; }, 1500);
});

// the form of a choice posts to the place that the choice names
for (const select of document.querySelectorAll("select[data-action-of]")) {
  const follow = () => { select.form.action = select.dataset.actionOf.replace("{}", encodeURIComponent(select.value)); };
  select.addEventListener("change", follow);
  follow();
}

// --- brushing over the histogram --------------------------------------------------------------------------------------
for (const chart of document.querySelectorAll("svg[data-brush]")) {
  const [first, last] = [Number(chart.dataset.from), Number(chart.dataset.to)];
  let start = null, brush = null;
  const place = (event) => {
    const box = chart.getBoundingClientRect();
    return Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
  };
  chart.addEventListener("dragstart", (event) => event.preventDefault());
  chart.addEventListener("pointerdown", (event) => { if (!event.button) start = place(event); });
  chart.addEventListener("pointermove", (event) => {
    if (start === null) return;
    const now = place(event);
    if (!brush && Math.abs(now - start) < 0.004) return;
    if (!brush) {
      brush = document.createElementNS(chart.namespaceURI, "rect");
      brush.setAttribute("class", "brush");
      brush.setAttribute("height", "76");
      chart.append(brush);
      chart.setPointerCapture(event.pointerId);
    }
    const width = chart.viewBox.baseVal.width;
    brush.setAttribute("x", Math.min(start, now) * width);
    brush.setAttribute("width", Math.abs(now - start) * width);
  });
  chart.addEventListener("pointerup", (event) => {
    if (brush) {
      const [from, to] = [start, place(event)].sort((a, b) => a - b);
      const time = (share) => new Date((first + (last - first) * share) / 1000).toISOString();
      const url = new URL(chart.dataset.brush, location.href);
      url.searchParams.set("from", time(from));
      url.searchParams.set("to", time(to));
      chart.addEventListener("click", (click) => click.preventDefault(), { once: true, capture: true });
      location.assign(url);
    }
    start = null;
  });
}

// --- live tail: rows come ready-made from the server ------------------------------------------------------------------
const liveSwitch = document.querySelector("[data-live-switch]");
const ROWS_MAX = 500;
let tail = null, held = [], isHeld = false;

function addRow(markup) {
  const row = document.importNode(new DOMParser().parseFromString(markup, "text/html").querySelector(".row"), true);
  row.classList.add("fresh");
  const firstDay = list.querySelector(".day:not(.own)");
  if (firstDay && firstDay.dataset.day === row.dataset.day) firstDay.after(row);
  else list.prepend(row);
  const rows = list.querySelectorAll(".row");
  if (rows.length > ROWS_MAX) rows[rows.length - 1].remove();
}

function showLive() {
  liveSwitch.classList.toggle("live-on", tail !== null);
  if (tail === null) liveSwitch.textContent = "Follow live";
  else if (isHeld) liveSwitch.textContent = held.length ? `Paused: ${held.length} new, show them` : "Paused, go on";
  else liveSwitch.textContent = "● live, pause";
}

function startTail() {
  tail = new EventSource(new URL(list.dataset.live, location.href));
  tail.addEventListener("row", (event) => {
    if (isHeld) held.push(event.data);
    else addRow(event.data);
    showLive();
  });
  tail.addEventListener("error", () => {
    if (tail.readyState === EventSource.CLOSED) { tail = null; showLive(); }
  });
}

if (liveSwitch && list) {
  liveSwitch.hidden = false;
  liveSwitch.addEventListener("click", () => {
    if (tail === null) startTail();
    else if (isHeld) { held.forEach(addRow); held = []; isHeld = false; if (isLocal) showTimes(); }
    else isHeld = true;
    showLive();
  });
}

// --- reconcile: step by step -------------------------------------------------------------------------------------------
const walkForm = document.querySelector("form[data-walk]");
if (walkForm) {
  const announce = (text) => { document.querySelector("#walk [role=status]").textContent = text; };
  walk(walkForm, announce).catch((error) => announce(`Stopped: ${error.message}`));
}

// --- keys -------------------------------------------------------------------------------------------------------------
const help = document.getElementById("help");
let pending = "";

function moveFocus(step) {
  const links = [...document.querySelectorAll(".row .open")];
  if (!links.length) return;
  const now = links.indexOf(document.activeElement);
  const current = now >= 0 ? now : links.findIndex((link) => link.parentElement.getAttribute("aria-current"));
  const next = links[Math.min(links.length - 1, Math.max(0, current + step))];
  next.focus({ preventScroll: false });
  next.scrollIntoView({ block: "nearest" });
}

const follow = (url) => { if (url) location.assign(url); };

const actions = {
  "/": () => document.querySelector("input[type=search]")?.focus(),
  j: () => moveFocus(1),
  k: () => moveFocus(-1),
  e: () => document.querySelector("[data-export]")?.click(),
  v: () => document.querySelector("#panel [data-tab][href*='tab=proof']")?.click(),
  "g a": () => follow(document.getElementById("panel")?.dataset.actor),
  "g t": () => follow(document.getElementById("panel")?.dataset.target),
  "g e": () => follow("/"),
  "g o": () => follow("/overview"),
  "g d": () => follow("/delivery"),
  "g i": () => follow("/integrity"),
  "g r": () => follow("/retention"),
  "g s": () => follow("/status"),
  "?": () => help.showModal(),
  Escape: () => document.querySelector("[data-close]")?.click(),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || help.open) return;
  const isTyping = event.target.matches("input, select, textarea");
  if (isTyping) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const name = pending === "g" ? `g ${event.key}` : event.key;
  pending = pending === "" && event.key === "g" ? "g" : "";
  if (actions[name]) {
    event.preventDefault();
    actions[name]();
  }
});
