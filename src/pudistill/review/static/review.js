"use strict";
// The page shows one sample, or many, and sends each decision to the server, which answers with the
// next sample as soon as the decision is on the disk. Names and texts are only ever set as text.

const KEYS = [..."1234567890abcdefghijlmopqrtvwxyz"]; // k, n, s and u have other meanings
const SMALL_PICTURE = 64; // pixels; smaller ones are enlarged a little
const TINY_PICTURE = 16; // pixels; smaller ones are enlarged without smoothing
const SECONDS_TO_RETRY = 2;
const MILLISECONDS_TO_PROMISE = 200;
const SECONDS_TO_KEEP = 30; // how often the page says that it still shows its samples
const MOST_CLASSES = 200; // buttons at once

const $ = (id) => document.getElementById(id);
const random = () => crypto.getRandomValues(new Uint32Array(4)).join("-");
const page = random(); // samples are kept for it, until it is closed
const session = sessionStorage.getItem("session") || random(); // a reload keeps what can be taken back
sessionStorage.setItem("session", session);

let keys = new Map(); // from the key to the class
let about = null; // what does not change: classes, pairs, ...
let sample = null; // the sample on the page
let sawSuggestion = false;
let isLearning = false; // while the command fits, nothing can be decided
let isBusy = true; // while the server is asked, keys do nothing: nobody has seen the next sample
let view = "one";
let gridSheet = 0;
let lastChecked = null;
let gridSamples = [];

// -- elements ------------------------------------------------------------------------------------

function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "class") element.className = value;
    else if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value !== false && value !== null) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

function say(text, isError = false) {
  $("message").hidden = !text;
  $("message").textContent = text;
  $("message").className = isError ? "error" : "";
}

function number(n) {
  return n.toLocaleString("en");
}

// -- the server ----------------------------------------------------------------------------------

// A decision that did not arrive is sent again: the server writes it once.
async function ask(path, content) {
  for (;;) {
    try {
      const answer = await fetch(path, content === undefined ? {} : {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({
          session, page, who: $("who").value.trim() || about.who, scope: scope(), filter: filter(), ...content,
        }),
      });
      const result = await answer.json();
      if (!answer.ok) throw new Refusal(result.error || answer.statusText);
      return result;
    } catch (error) {
      if (error instanceof Refusal) throw error;
      say("The server does not answer. The last decision is sent again as soon as it does.", true);
      await new Promise((resolve) => setTimeout(resolve, 1000 * SECONDS_TO_RETRY));
      say("");
    }
  }
}

class Refusal extends Error {}

async function whileBusy(work) {
  if (isBusy || isLearning) return;
  isBusy = true;
  try {
    await work();
  } catch (error) {
    say(error.message, true);
    if (!(error instanceof Refusal)) throw error;
  } finally {
    isBusy = false;
  }
}

// -- filter --------------------------------------------------------------------------------------

function scope() {
  return $("filter").elements.scope.value;
}

function filter() {
  const form = $("filter").elements;
  const wanted = { search: form.search.value.trim() };
  if (form.pair.value) [wanted.given, wanted.label] = JSON.parse(form.pair.value);
  if (form.given.value) wanted.given = JSON.parse(form.given.value);
  if (form.source.value) wanted.source = form.source.value;
  for (const name of ["low", "high"]) {
    if (form[name].value !== "" && Number(form[name].value) !== Number(form[name].defaultValue)) {
      wanted[name] = Number(form[name].value);
    }
  }
  return wanted;
}

function hasFilter() {
  const { search, ...others } = filter();
  return Boolean(search) || Object.keys(others).length > 0;
}

// -- one sample ----------------------------------------------------------------------------------

async function show(result) {
  progress(result.progress);
  sample = result.sample;
  sawSuggestion = Boolean(sample && sample.suggestion !== undefined);
  $("find").value = "";
  const is = Boolean(sample);
  $("answers").hidden = $("classes-box").hidden = false;
  for (const id of ["given", "suggested", "none", "skip"]) $(id).hidden = !is;
  $("classes-box").hidden = !is;
  if (!is) {
    $("about").replaceChildren();
    $("said").hidden = true;
    showEnd(result.progress);
    return;
  }
  const shown = await content(sample);
  $("sample").replaceChildren(shown);
  $("sample").scrollTop = 0;
  if ($("sample").getBoundingClientRect().top < 0) $("sample").scrollIntoView();
  $("about").replaceChildren(
    make("span", { class: "id" }, sample.id),
    ...(sample.reason ? [" · ", sample.reason] : []),
    ...(sample.part === "random" ? [" · ", make("span", { class: "tag" }, "drawn at random")] : []),
    ...(sample.part === "picked" ? [" · ", make("span", { class: "tag" }, "picked by hand")] : []),
  );
  showSaid();
  $("given").hidden = sample.given === null;
  $("given").lastElementChild.replaceChildren("Right: ", make("b", {}, sample.given ?? ""));
  $("suggested").hidden = !about.suggests;
  $("suggested").disabled = sample.part === "random";
  $("suggested").title = sample.part === "random" ? "A sample drawn at random is decided without a suggestion." : "";
  showSuggestion();
  showClasses();
  const decided = sample.decided === null ? "" : ` Decided before: ${sample.decided}.`;
  $("live").textContent = `${sample.id}. Given label: ${sample.given ?? "none"}.${decided} ` +
    `${$("count").textContent}.`;
}

function showSaid() {
  $("said").hidden = !sample.said.length && !sample.hides_said;
  $("said").replaceChildren(
    sample.hides_said
      ? make("p", { class: "about" }, "What the sources said is hidden, as this sample was drawn at random.")
      : make("table", { class: "values" }, make("caption", {}, "What the sources said"),
        make("tbody", {}, ...sample.said.map(([source, label]) =>
          make("tr", {}, make("th", { scope: "row" }, source), make("td", {}, label))))),
  );
}

function showSuggestion() {
  const text = $("suggested").lastElementChild;
  if (sample.suggestion === undefined) {
    text.replaceChildren(sample.part === "random" ? "No suggestion" : "Show suggestion");
  } else {
    const sure = sample.confidence === null ? "" : ` (${Math.round(100 * sample.confidence)} %)`;
    text.replaceChildren("As suggested: ", make("b", {}, sample.suggestion ?? "none"), sure);
  }
}

function showEnd(state) {
  const filtered = hasFilter() || scope() !== "queue";
  if (!filtered && state.n_open) {
    $("sample").replaceChildren(make("div", { class: "end" },
      make("h2", {}, "Others are at work on the rest"),
      make("p", {}, `${number(state.n_open)} samples of this queue are on other pages.`),
      make("button", { type: "button", class: "main", onclick: refresh }, "Look again")));
    return;
  }
  if (!filtered && about.learns) {
    waitForNextRun(state);
    return;
  }
  promisedAt = null; // the last decisions count, too
  askPromisesSoon(state.n_verified);
  $("sample").replaceChildren(make("div", { class: "end" },
    make("h2", {}, filtered ? "Nothing is left here" : "This queue is done"),
    make("p", {}, filtered
      ? "No sample that nobody has decided passes the filter."
      : `${number(state.n_verified)} samples are verified. Stop the command with Ctrl-C and run pudistill update RUN to learn from them, or go on.`),
    filtered
      ? make("button", { type: "button", class: "main", onclick: () => { $("filter").reset(); refresh(); } }, "Clear the filter")
      : make("button", { type: "button", class: "main", onclick: more }, "Ask for more samples")));
  $("live").textContent = "Nothing is left here.";
}

// The server answers as soon as it has learned.
async function waitForNextRun(state) {
  isLearning = true;
  $("answers").hidden = true;
  const waited = make("p", { class: "about" });
  $("sample").replaceChildren(make("div", { class: "end" },
    make("h2", {}, "Learning from your labels"),
    make("p", {}, `${number(state.n_trusted + state.n_verified)} samples are verified. The next ones show as soon as the models are fitted; ` +
      "the terminal says how long that takes. Stop with Ctrl-C there."),
    waited));
  const begin = Date.now();
  setInterval(() => {
    const seconds = Math.floor((Date.now() - begin) / 1000);
    waited.textContent = `${Math.floor(seconds / 60)} min ${seconds % 60} s so far`;
  }, 1000);
  $("live").textContent = "Learning from your labels.";
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, 1000 * SECONDS_TO_RETRY));
    try {
      const answer = await fetch("/api/about");
      if (!answer.ok) throw new Refusal();
      const { run, queue } = await answer.json();
      if (run !== about.run || queue !== about.queue) break;
    } catch {
      const sentence = "The command has ended. Its terminal says what was found.";
      $("sample").replaceChildren(make("div", { class: "end" }, make("p", {}, sentence)));
      $("live").textContent = sentence;
      return;
    }
  }
  location.reload();
}

function sizeOf(picture) {
  const pixels = Math.max(picture.naturalWidth, picture.naturalHeight);
  return pixels <= TINY_PICTURE ? "small tiny" : pixels <= SMALL_PICTURE ? "small" : "";
}

async function content(of) {
  if (of.kind === "picture") {
    const picture = make("img", { alt: `Picture ${of.id}`, src: `/picture/${of.row}` });
    try {
      await picture.decode();
    } catch {
      return make("p", { class: "error" }, "This picture cannot be read now.");
    }
    picture.className = sizeOf(picture);
    return picture;
  }
  if (of.kind === "text") {
    const text = make("p", { class: "text" }, of.text);
    const box = make("div", { tabindex: 0, role: "region", "aria-label": "Text" }, text);
    if (of.n_characters > of.text.length) {
      const all = make("button", { type: "button", onclick: async () => {
        all.disabled = true;
        text.textContent = await (await fetch(`/text/${of.row}`)).text();
        all.remove();
      } }, `Show all ${number(of.n_characters)} characters`);
      box.append(all);
    }
    return box;
  }
  const few = 12;
  const rows = of.values.map(([name, value], n) => make("tr", { hidden: n >= few },
    make("th", { scope: "row" }, name), make("td", {}, value)));
  const box = make("div", { tabindex: 0, role: "region", "aria-label": "Values" },
    make("table", { class: "values" }, make("tbody", {}, ...rows)));
  if (rows.length > few) {
    const all = make("button", { type: "button", onclick: () => {
      rows.forEach((row) => { row.hidden = false; });
      all.remove();
    } }, `Show all ${number(rows.length)} columns`);
    box.append(all);
  }
  return box;
}

// -- classes -------------------------------------------------------------------------------------

// Classes that are called 0, 1, a or b have that key; the others have the first free ones.
function assignKeys() {
  keys = new Map();
  if (about.classes.length > KEYS.length) return;
  const own = about.classes.filter((name) => KEYS.includes(name.toLowerCase()));
  for (const name of own) {
    if (!keys.has(name.toLowerCase())) keys.set(name.toLowerCase(), name);
  }
  const free = KEYS.filter((key) => !keys.has(key));
  const others = about.classes.filter((name) => ![...keys.values()].includes(name));
  others.forEach((name, n) => keys.set(free[n], name));
}

function keyOf(name) {
  return [...keys].find(([, other]) => other === name)?.[0];
}

function found() {
  const wanted = $("find").value.trim().toLowerCase();
  const all = about.classes.map((name) => ({ name, key: keyOf(name) }));
  const begins = all.filter(({ name }) => name.toLowerCase().startsWith(wanted));
  const holds = all.filter(({ name }) => !begins.some((other) => other.name === name) &&
    name.toLowerCase().includes(wanted));
  return [...begins, ...holds];
}

function showClasses() {
  const classes = found();
  const typed = $("find").value.trim();
  const buttons = classes.slice(0, MOST_CLASSES).map(({ name, key }) => make("button", {
    type: "button", onclick: () => decide("label", name),
    "aria-current": sample && sample.decided === name ? "true" : null,
  }, key ? make("kbd", {}, key) : null, " ", make("span", {}, name)));
  if (classes.length > MOST_CLASSES) buttons.push(make("span", { class: "about" }, `and ${number(classes.length - MOST_CLASSES)} more: type a part of the name`));
  if (typed && !about.classes.includes(typed) && typed !== about.no_class) {
    buttons.push(make("button", { type: "button", onclick: () => decide("label", typed) },
      "New class ", make("b", {}, typed)));
  }
  $("classes").replaceChildren(...buttons);
}

// -- decisions -----------------------------------------------------------------------------------

const decide = (action, label = null) => whileBusy(async () => {
  if (!sample) return;
  say("");
  try {
    const result = await ask("/api/decide", { rows: [sample.row], action, label, saw: sawSuggestion });
    learn(label);
    await show(result);
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    say(error.message, true);
    await show(await ask("/api/next", {}));
  }
  $("main").focus({ preventScroll: true });
});

function learn(label) {
  if (label === null || label === about.no_class || about.classes.includes(label)) return;
  about.classes.push(label);
  assignKeys();
  fillGridLabels();
}

const suggest = () => whileBusy(async () => {
  if (!about.suggests) return;
  if (!sample || sample.part === "random") {
    say("A sample drawn at random is decided without a suggestion, so that the estimates hold.");
    return;
  }
  if (sample.suggestion === undefined) {
    Object.assign(sample, await ask(`/api/suggestion/${sample.row}`));
    sawSuggestion = true;
    showSuggestion();
    $("live").textContent = `Suggested: ${sample.suggestion}.`;
    return;
  }
  isBusy = false;
  await decide("suggested");
});

const undo = () => whileBusy(async () => {
  say("");
  const result = await ask("/api/undo", {});
  if (result.sample === null) {
    progress(result.progress);
    say("This page has decided nothing that could be taken back.");
    return;
  }
  await show(result);
  say(`Taken back: ${result.sample.id}.`);
  $("main").focus({ preventScroll: true });
});

const more = () => whileBusy(async () => {
  say("");
  await show(await ask("/api/more", {}));
});

const refresh = () => whileBusy(async () => {
  say("");
  $("filter-on").hidden = !hasFilter() && scope() === "queue";
  if (scope() === "decided") setView("grid");
  if (view === "grid") await showGrid();
  else await show(await ask("/api/next", {}));
});

function progress(state) {
  const n = state.n_queue - state.n_open;
  $("bar").max = Math.max(1, state.n_queue);
  $("bar").value = n;
  $("count").textContent = `${number(n)} of ${number(state.n_queue)}`;
  $("count").title = `${number(state.n_verified)} verified in this review, ${number(state.n_skipped)} skipped, ` +
    `${number(state.n_trusted)} before`;
  document.title = `${n} of ${state.n_queue} · Review`;
  askPromisesSoon(state.n_verified);
}

// -- what is promised ----------------------------------------------------------------------------

let promisedAt = null;
let promiseTimer = null;

// It takes the server long for large data: the next sample is shown first.
function askPromisesSoon(n) {
  clearTimeout(promiseTimer);
  promiseTimer = setTimeout(askPromises, MILLISECONDS_TO_PROMISE, n);
}

async function askPromises(n) {
  const batch = Math.floor(n / 10);
  if (promisedAt === batch) return;
  promisedAt = batch;
  try {
    const answer = await fetch("/api/promises");
    const { promises } = await answer.json();
    $("promises").hidden = false;
    $("promised").replaceChildren(
      make("table", { class: "values" }, make("tbody", {}, ...promises.rows.map((row) => make("tr", {},
        make("th", { scope: "row" }, row.name),
        make("td", {}, make("b", {}, row.value), " ", make("small", {}, row.interval)))))),
      make("p", { class: "about" }, promises.note));
  } catch {
    promisedAt = null; // asked again after the next decision
  }
}

// -- many at once --------------------------------------------------------------------------------

function setView(name) {
  view = name;
  $("one").hidden = name !== "one";
  $("grid").hidden = name !== "grid";
  $("view-one").setAttribute("aria-pressed", String(name === "one"));
  $("view-grid").setAttribute("aria-pressed", String(name === "grid"));
}

async function showGrid() {
  const result = await ask("/api/grid", { sheet: gridSheet });
  progress(result.progress);
  gridSamples = result.samples;
  lastChecked = null;
  const isDecided = scope() === "decided";
  $("grid-about").textContent = !result.samples.length ? "Nothing is left here."
    : isDecided ? `${number(result.n)} decided, the last ones first.`
      : `${number(result.samples.length)} of those that nobody has decided. Select several and give them one label.`;
  $("earlier").hidden = !isDecided || gridSheet === 0;
  $("later").hidden = !isDecided || result.before + result.samples.length >= result.n;
  $("cards").classList.toggle("wide", gridSamples.some((of) => of.kind !== "picture"));
  $("cards").replaceChildren(...result.samples.map((of, n) => {
    const box = make("input", { type: "checkbox", "data-n": n, onclick: (event) => check(event, n) });
    const picture = of.kind === "picture"
      ? make("img", { alt: `Picture ${of.id}`, src: `/picture/${of.row}`, loading: "lazy", onload: (event) => {
        event.target.className = sizeOf(event.target);
      } })
      : make("span", { class: "excerpt" }, of.excerpt);
    return make("li", {}, make("label", {}, box, picture,
      make("span", { class: "name" }, make("bdi", {}, of.given ?? "no label"),
        of.suggestion === undefined ? null : make("span", { class: "about" }, " → ", make("bdi", {}, of.suggestion ?? "none")),
        of.decided === null ? null : make("b", { class: "decided" }, ` ✓ ${of.decided}`))));
  }));
  $("live").textContent = $("grid-about").textContent;
}

function boxes() {
  return [...$("cards").querySelectorAll("input")];
}

function check(event, n) {
  if (event.shiftKey && lastChecked !== null) {
    const [from, to] = [Math.min(n, lastChecked), Math.max(n, lastChecked)];
    boxes().slice(from, to + 1).forEach((box) => { box.checked = event.target.checked; });
  }
  lastChecked = n;
}

const decideMany = (action, label = null) => whileBusy(async () => {
  const chosen = boxes().filter((box) => box.checked).map((box) => gridSamples[Number(box.dataset.n)]);
  if (!chosen.length) {
    say("Select samples first: click them, or press * for all.");
    return;
  }
  say("");
  const saw = chosen.some((of) => of.suggestion !== undefined);
  await ask("/api/decide", { rows: chosen.map((of) => of.row), action, label, saw, many: true });
  learn(label);
  await showGrid();
  $("main").focus({ preventScroll: true });
});

function selectAll() {
  const all = boxes();
  const value = !all.every((box) => box.checked);
  all.forEach((box) => { box.checked = value; });
}

function fillGridLabels() {
  $("grid-label").replaceChildren(...[...about.classes, about.no_class].map((name) => make("option", { value: name },
    keyOf(name) ? `${keyOf(name)}: ${name}` : name)));
}

// -- keys ----------------------------------------------------------------------------------------

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !about) return;
  const target = event.target;
  if (target === $("find")) {
    if (event.key === "Escape") $("main").focus();
    if (event.key === "Enter") {
      event.preventDefault();
      const typed = $("find").value.trim();
      const first = about.classes.includes(typed) ? typed : typed && found().map(({ name }) => name)[0];
      if (first) decide("label", first);
      else if (typed) say(`No class is called ${typed}: choose "New class" to add it.`);
    }
    return;
  }
  const isCheckbox = target.type === "checkbox";
  if (target.closest("select, textarea") || (target.closest("input") && !isCheckbox)) return;
  const opens = (event.key === "Enter" || event.key === " ") && target.closest("button, summary, a");
  if (opens || event.repeat) return; // a key that is held down decides nothing
  const named = keys.get(event.key.toLowerCase());
  if (view === "grid") {
    if (event.key === "*") selectAll();
    else if (event.key === "Enter") decideMany("given");
    else if (event.key === "n") decideMany("none");
    else if (event.key === "k") decideMany("skip");
    else if (named !== undefined) decideMany("label", named);
    else return;
    event.preventDefault();
    return;
  }
  if (event.key === "Enter") { if (sample && sample.given !== null) decide("given"); }
  else if (event.key === "s") suggest();
  else if (event.key === "n") decide("none");
  else if (event.key === "k") decide("skip");
  else if (event.key === "u" || event.key === "Backspace") undo();
  else if (event.key === "/") $("find").focus();
  else if (named !== undefined) decide("label", named);
  else return;
  event.preventDefault();
});

// After a click, Enter means "right as given" again, and not the button that was clicked.
document.addEventListener("click", (event) => {
  if (event.detail > 0 && event.target.closest("button, summary")) $("main").focus({ preventScroll: true });
});

// -- other pages ---------------------------------------------------------------------------------

function rowsShown() {
  if (view === "grid") return scope() === "decided" ? [] : gridSamples.map((of) => of.row);
  return sample ? [sample.row] : [];
}

async function keep() {
  if (document.hidden || isBusy || !about) return;
  const rows = rowsShown();
  if (!rows.length) return;
  try {
    if (!(await ask("/api/keep", { rows })).kept) await refresh();
  } catch (error) {
    say(error.message, true);
  }
}

setInterval(keep, 1000 * SECONDS_TO_KEEP);
document.addEventListener("visibilitychange", keep);
addEventListener("pagehide", () => {
  const content = new Blob([JSON.stringify({ page, rows: [] })], { type: "application/json" });
  navigator.sendBeacon("/api/keep", content);
});

// -- start ---------------------------------------------------------------------------------------

function options(select, entries) {
  select.append(...entries.map(([value, text]) => make("option", { value }, text)));
}

async function start() {
  history.replaceState(null, "", "/"); // the token is not kept in the list of visited pages
  about = await ask("/api/about");
  $("run").textContent = about.run;
  $("who").value = localStorage.getItem("who") || about.who;
  const form = $("filter").elements;
  options(form.pair, about.pairs.map(([given, label, n]) => [JSON.stringify([given, label]), `\u2068${given}\u2069 → \u2068${label}\u2069 (${number(n)})`]));
  options(form.given, about.labels.map((name) => [JSON.stringify(name), name]));
  options(form.source, about.sources.map((name) => [name, name]));
  assignKeys();
  fillGridLabels();
  $("none").lastElementChild.textContent = about.no_class === "none of these" ? "None of these" : about.no_class;
  $("find").addEventListener("input", showClasses);
  $("who").addEventListener("change", () => localStorage.setItem("who", $("who").value.trim()));
  $("given").addEventListener("click", () => decide("given"));
  $("suggested").addEventListener("click", suggest);
  $("none").addEventListener("click", () => decide("none"));
  $("skip").addEventListener("click", () => decide("skip"));
  $("undo").addEventListener("click", undo);
  $("view-one").addEventListener("click", () => {
    if (scope() === "decided") $("filter").reset();
    setView("one");
    refresh();
  });
  $("view-grid").addEventListener("click", () => { setView("grid"); gridSheet = 0; refresh(); });
  $("all").addEventListener("click", selectAll);
  $("grid-given").addEventListener("click", () => decideMany("given"));
  $("grid-give").addEventListener("click", () => decideMany("label", $("grid-label").value));
  $("earlier").addEventListener("click", () => { gridSheet -= 1; refresh(); });
  $("later").addEventListener("click", () => { gridSheet += 1; refresh(); });
  $("filter").addEventListener("submit", (event) => { event.preventDefault(); gridSheet = 0; $("main").focus({ preventScroll: true }); refresh(); });
  $("filter").addEventListener("reset", () => setTimeout(() => { gridSheet = 0; refresh(); }));
  isBusy = false;
  await refresh();
  $("main").focus({ preventScroll: true });
}

start().catch((error) => say(error.message, true));
