// The browse page.  Text of records only ever becomes text nodes: nothing that a record holds is markup here.
import { words } from "./words.js";

const VIEWS = ["kept", "train", "validation", "test", "dropped", "changed", "all"];
const FILTERS = { grep: "grep", fate: "fate", step: "step", label: "label", languageOf: "language", source: "source", min_length: "min_length", max_length: "max_length" };
const ODD = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u200b\u200c\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;
const at = (id) => document.getElementById(id);
const state = { overview: null, view: "kept", starts: [null], page: null, here: -1, asked: 0, shown: 0, counts: [] };
let language = localStorage.getItem("wuxing.language") || (navigator.language.startsWith("zh") ? "zh" : "en");

function say(key, values = {}) {
  return words[language][key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
}
const count = (number) => number.toLocaleString("en");

// Control characters as pictures, invisible ones by name: as in the report.
function visible(text) {
  return String(text ?? "").replace(ODD, (c) => {
    const point = c.codePointAt(0);
    return point < 32 ? String.fromCharCode(0x2400 + point) : `⟨U+${point.toString(16).toUpperCase().padStart(4, "0")}⟩`;
  });
}

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== ""));
  return made;
}

function marked(text, wanted) {
  const shown = visible(text);
  if (!wanted) return [shown];
  const parts = [], low = shown.toLowerCase(), needle = wanted.toLowerCase();
  let from = 0;
  for (let place = low.indexOf(needle); place >= 0 && parts.length < 400; place = low.indexOf(needle, from)) {
    parts.push(shown.slice(from, place), element("mark", {}, shown.slice(place, place + needle.length)));
    from = place + needle.length;
  }
  return [...parts, shown.slice(from)];
}

async function fetchJson(path, values) {
  const asked = new URLSearchParams(Object.entries(values).filter(([, value]) => value));
  const answer = await fetch(`${path}?${asked}`, { credentials: "omit" });
  const body = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(body.error || answer.statusText), { status: answer.status });
  return body;
}

function filters() {
  const given = { view: state.view };
  for (const [id, name] of Object.entries(FILTERS)) {
    if (!at(id).closest("label").hidden) given[name] = at(id).value.trim();
  }
  return given;
}

async function load() {
  const turn = ++state.asked;
  at("state").textContent = say("loading");
  try {
    const page = await fetchJson("/api/records", { ...filters(), cursor: state.starts.at(-1) });
    if (turn !== state.asked) return;  // a newer question was asked meanwhile
    state.page = page;
    show();
  } catch (error) {
    if (turn !== state.asked) return;
    state.page = { entries: [], next: null, scanned: 0 };
    show();
    at("state").textContent = error.status ? error.message : say("failed");
  }
}

function show() {
  const { entries, next, scanned } = state.page;
  state.here = -1;
  at("list").replaceChildren(...entries.map(row));
  const before = state.counts.slice(0, state.starts.length - 1).reduce((sum, n) => sum + n, 0);
  state.counts[state.starts.length - 1] = entries.length;
  at("state").textContent = entries.length
    ? say("shown", { a: count(before + 1), b: count(before + entries.length) })
    : next ? say("soFar", { n: count(scanned) }) : say("nothing");
  at("back").disabled = state.starts.length < 2;
  at("next").disabled = !next;
  at("next").textContent = say(next && !entries.length ? "on" : "next");
}

function row(entry) {
  const wanted = at("grep").value.trim();
  const lost = entry.fate !== "kept" && entry.fate !== "changed";
  const open = element("button", { class: "open", type: "button" }, visible(entry.id));
  const said = [entry.split && say(entry.split), !entry.split && entry.fate !== "changed" && entry.fate, entry.step, entry.detail, entry.label,
    entry.language, entry.length ? say("characters", { n: count(entry.length) }) : null];
  const about = element("div", { class: "about" }, open, ...said.filter(Boolean).map((fact) => element("span", {}, element("bdi", {}, visible(fact)))));
  const made = element("li", { class: [lost && "lost", entry.fate === "changed" && "changed", entry.thumb && "pictured"].filter(Boolean).join(" ") || null }, about);
  if (entry.thumb) made.append(element("img", { src: entry.thumb, alt: visible(entry.id), loading: "lazy" }));
  if (entry.kind === "audio" && entry.place) {
    made.append(element("audio", { controls: true, preload: "none", src: `/media?place=${encodeURIComponent(entry.place)}` }));
  }
  if (entry.text) made.append(element("bdi", { class: "text" }, ...marked(entry.text, wanted)));
  made.addEventListener("click", (event) => { if (event.target.tagName !== "AUDIO") openRecord(entry.id); });
  return made;
}

async function openRecord(id) {
  const dialog = at("record");
  at("record-id").textContent = visible(id);
  at("content").replaceChildren(say("loading"));
  if (!dialog.open) dialog.showModal();
  try {
    at("content").replaceChildren(...opened(await fetchJson("/api/record", { id })));
  } catch (error) {
    at("content").replaceChildren(error.status === 404 ? say("gone") : error.status ? error.message : say("failed"));
  }
  dialog.scrollTop = 0;
}

function body(text) {
  return element("bdi", { class: "body" }, ...marked(text, at("grep").value.trim()));
}

function opened(found) {
  const kept = found.fate === "kept";
  const facts = element("dl");
  const fact = (name, ...value) => facts.append(element("dt", {}, name), element("dd", {}, ...value));
  fact(say("fate"), element("span", { class: `badge ${kept ? "kept" : "lost"}` }, visible(found.fate)));
  if (found.split) fact(say("split"), say(found.split));
  if (found.detail) fact(say("detail"), visible(found.detail));
  if (found.source) fact(say("source"), visible(found.source));
  if (found.label) fact(say("label"), visible(found.label));
  if (found.liked !== null && found.liked !== undefined) fact("", say(found.liked ? "liked" : "disliked"));
  for (const [name, value] of Object.entries(found.meta ?? {})) fact(visible(name), visible(typeof value === "string" ? value : JSON.stringify(value)));
  const parts = [facts, ...media(found)];
  if (found.text) parts.push(body(found.text));
  for (const turn of found.messages ?? []) parts.push(element("div", { class: "role" }, visible(turn.role)), body(turn.content));
  for (const name of ["chosen", "rejected"]) {
    if (found[name]) parts.push(element("h3", {}, say(name)), body(found[name]));
  }
  if (!found.text && !found.messages && !found.media) parts.push(element("p", {}, say("notKept")));
  for (const change of found.changes ?? []) {
    parts.push(element("h3", {}, say("changedBy", { step: visible(change.step) })));
    parts.push(element("div", { class: "role" }, say("before")), body(change.before), element("div", { class: "role" }, say("after")), body(change.after));
  }
  if (found.twins?.length) {
    parts.push(element("h3", {}, say("twins")), element("ul", {}, ...found.twins.map((twin) => {
      const open = element("button", { type: "button" }, visible(twin.id));
      open.addEventListener("click", () => openRecord(twin.id));
      return element("li", {}, open, ` ${visible(twin.fate)}`);
    })));
  }
  parts.push(element("p", { class: "role" }, say("why", { id: visible(found.id) })));
  return parts;
}

function media(found) {
  if (!found.media || !found.place) return [];
  const source = `/media?place=${encodeURIComponent(found.place)}`;
  if (found.media === "audio") return [element("audio", { controls: true, src: source })];
  const image = element("img", { src: source, alt: visible(found.id) });
  image.addEventListener("load", () => image.classList.toggle("small", image.naturalWidth < 128));
  image.addEventListener("error", () => image.replaceWith(say("broken")));
  return [image];
}

function again() {
  state.starts = [null];
  state.counts = [];
  load();
}

function options(id, names, said = (name) => name) {
  const select = at(id), chosen = select.value;
  select.closest("label").hidden = !names.length;
  select.replaceChildren(element("option", { value: "" }, say("any")), ...names.map((name) => element("option", { value: name }, visible(said(name)))));
  if (names.includes(chosen)) select.value = chosen;
}

function paint() {
  const { overview } = state;
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  for (const part of document.querySelectorAll("[data-word]")) part.textContent = say(part.dataset.word);
  at("views").setAttribute("aria-label", say("views"));
  at("language").textContent = say("other");
  if (!overview) return;
  document.title = `${overview.id} – wuxing`;
  at("corpus").textContent = overview.id;
  const rows = Object.values(overview.fates).reduce((sum, n) => sum + n, 0);
  at("counts").textContent = rows ? say("counts", { rows: count(rows), kept: count(overview.fates.kept ?? 0) }) : "";
  const report = overview.reports.includes(language) ? language : overview.reports[0];
  at("report").hidden = !report;
  if (report) at("report").href = `/report/${report}`;
  at("views").replaceChildren(...VIEWS.filter((view) => view in overview.views).map((view) => {
    const made = element("button", { type: "button", "aria-pressed": String(view === state.view), "data-view": view }, say(view), element("span", { class: "count" }, count(overview.views[view])));
    made.addEventListener("click", () => { state.view = view; paint(); again(); });
    return made;
  }));
  const lost = Object.keys(overview.fates).filter((fate) => fate !== "kept");
  options("fate", ["dropped", "all"].includes(state.view) ? lost : [], (fate) => `${fate} (${count(overview.fates[fate])})`);
  options("step", state.view === "changed" ? overview.steps : []);
  const splits = !["dropped", "changed", "all"].includes(state.view);
  for (const [id, name] of [["label", "labels"], ["languageOf", "languages"]]) {
    options(id, splits ? Object.keys(overview[name]).filter((key) => !key.startsWith("script:")) : []);
  }
  options("source", Object.keys(overview.sources).length > 1 ? Object.keys(overview.sources) : []);
  for (const id of ["min_length", "max_length"]) at(id).closest("label").hidden = state.view === "all";
}

function keys(event) {
  if (at("record").open || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) || event.ctrlKey || event.metaKey || event.altKey) return;
  const rows = [...at("list").children];
  if (event.key === "j" || event.key === "k") {
    state.here = Math.max(0, Math.min(rows.length - 1, state.here + (event.key === "j" ? 1 : -1)));
    rows.forEach((each, place) => each.classList.toggle("here", place === state.here));
    rows[state.here]?.querySelector(".open").focus();
  } else if (event.key === "n") at("next").click();
  else if (event.key === "b") at("back").click();
  else if (event.key === "/") { event.preventDefault(); at("grep").focus(); }
}

let waiting;
at("filters").addEventListener("submit", (event) => { event.preventDefault(); again(); });
at("filters").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(again, 250); });
at("clear").addEventListener("click", (event) => { event.preventDefault(); at("filters").reset(); again(); });
at("next").addEventListener("click", () => { state.starts.push(state.page.next); load(); scrollTo(0, 0); });
at("back").addEventListener("click", () => { state.starts.pop(); load(); scrollTo(0, 0); });
at("close").addEventListener("click", () => at("record").close());
at("language").addEventListener("click", () => {
  language = language === "en" ? "zh" : "en";
  localStorage.setItem("wuxing.language", language);
  paint();
  if (state.page) show();
});
document.addEventListener("keydown", keys);
paint();
fetchJson("/api/overview", {}).then((overview) => { state.overview = overview; paint(); load(); }, () => { at("state").textContent = say("failed"); });
