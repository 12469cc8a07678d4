"use strict";
// The table of changed samples: it sorts, filters, searches and opens, and collects corrections.
(() => {
  const place = document.getElementById("changes");
  if (!place) return;
  const data = JSON.parse(document.getElementById("changes-data").textContent);
  const n = data.ids.length, PAGE = 50, NOWHERE = data.errors.length;
  const byId = (name) => document.getElementById("changes-" + name);
  const el = (tag, attributes = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else if (value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
    }
    node.append(...children);
    return node;
  };
  const percent = (thousandths) => thousandths < 0 ? "–" : thousandths >= 1000 ? "100 %"
    : thousandths > 990 || thousandths < 10 ? (thousandths / 10).toFixed(1) + " %"
    : Math.round(thousandths / 10) + " %";
  const given = (i) => data.names[data.given[i]], label = (i) => data.names[data.label[i]];
  const accepted = (i) => data.accepted[i] === NOWHERE ? "no" : "≤ " + data.errors[data.accepted[i]];

  // Corrections: by row, kept in the browser until they are downloaded.
  const STORE = "pudistill-corrections-" + data.key;
  const chosen = new Map();
  let saved = true;
  try {
    const stored = JSON.parse(localStorage.getItem(STORE) || "{}");
    for (const [row, entry] of Object.entries(stored)) if (+row < n) chosen.set(+row, entry);
  } catch { /* no storage in this browser: the page still works */ }
  const keep = () => {
    saved = false;
    try { localStorage.setItem(STORE, JSON.stringify(Object.fromEntries(chosen))); } catch { /* full */ }
  };

  // Sorting: a permutation for each column, made when it is first needed.
  const permutations = {};
  const collate = new Intl.Collator("en", { numeric: true }).compare;
  const ranks = (values) => {
    const order = [...new Set(values)].sort((a, b) => typeof a === "string" ? collate(a, b) : a - b);
    const rank = new Map(order.map((value, position) => [value, position]));
    return values.map((value) => rank.get(value));
  };
  const nameRank = ranks(data.names);
  const keys = {
    id: () => ranks(data.ids),
    change: () => data.given.map((code, i) => nameRank[code] * data.names.length + nameRank[data.label[i]]),
    source: () => data.source,
    confidence: () => data.confidence.map((value) => -value),
    accepted: () => data.accepted,
  };
  const sorted = (name) => {
    if (!permutations[name]) {
      const key = keys[name]();
      permutations[name] = Uint32Array.from({ length: n }, (_, i) => i).sort((a, b) => key[a] - key[b] || a - b);
    }
    return permutations[name];
  };
  let sorting = "confidence", descending = false;

  // Filtering.
  let texts = null;
  const words = () => texts ??= data.ids.map((id, i) =>
    (id + "\n" + given(i) + "\n" + label(i) + (data.texts ? "\n" + data.texts[i] : "")).toLowerCase());
  let found = sorted("confidence"), page = 0, open = -1;
  const filter = () => {
    const value = (name) => byId(name) ? byId(name).value : "";
    const code = (name) => value(name) === "" ? -1 : +value(name);
    const wanted = { given: code("given"), label: code("label"), source: code("source") };
    const least = value("least") === "" ? -1 : 10 * value("least"), most = value("most") === "" ? 1001 : 10 * value("most");
    const level = value("accepted"), state = value("state"), search = value("search").trim().toLowerCase();
    const hay = search ? words() : null, order = sorted(sorting), rows = new Uint32Array(n);
    let count = 0;
    for (let k = 0; k < n; k++) {
      const i = order[descending ? n - 1 - k : k];
      if (wanted.given >= 0 && data.given[i] !== wanted.given) continue;
      if (wanted.label >= 0 && data.label[i] !== wanted.label) continue;
      if (wanted.source >= 0 && data.source[i] !== wanted.source) continue;
      if (data.confidence[i] < least || data.confidence[i] > most) continue;
      if (level !== "" && (level === "no" ? data.accepted[i] !== NOWHERE : data.accepted[i] > +level)) continue;
      if (state !== "" && chosen.has(i) !== (state === "done")) continue;
      if (hay && !hay[i].includes(search)) continue;
      rows[count++] = i;
    }
    found = rows.subarray(0, count);
  };

  // Drawing: one page of rows.
  const body = byId("rows");
  const decision = (i) => {
    const entry = chosen.get(i);
    return entry === undefined ? el("span", { class: "undecided" }, "–") : el("b", {}, entry.label);
  };
  const picture = (i, isLarge) => {
    const [source, size] = data.pictures[i];
    const alt = `Sample ${data.ids[i]}, given as ${given(i)}, suggested ${label(i)}`;
    return el("img", { src: source, alt: isLarge ? alt : "", class: (isLarge ? "large" : "thumb") + (size <= 64 ? " small" : "") });
  };
  const hasPictures = Object.keys(data.pictures).length > 0;
  const columns = 4 + hasPictures + (data.sources.length > 1) + (data.accepted !== null);
  const change = (i) => el("span", { class: "change" }, el("del", {}, given(i)), " → ", el("b", {}, label(i)));

  const choose = (i, name) => {
    if (name === null) chosen.delete(i);
    else chosen.set(i, { label: name, when: new Date().toISOString().slice(0, 19) + "Z", who: byId("who").value.trim() });
    keep();
    count();
  };
  const detail = (i) => {
    const set = (name) => () => { choose(i, name); next(i); };
    const button = (key, name, text) => el("button", {
      type: "button", "aria-pressed": String(chosen.get(i)?.label === name), onclick: set(name),
    }, text, el("kbd", { "aria-hidden": "true" }, key));
    const other = el("select", { "aria-label": `Another class for ${data.ids[i]}`, onchange: (event) => {
      if (event.target.value !== "") set(data.names[+event.target.value])();
    } }, el("option", { value: "" }, "another class …"),
      ...data.names.slice(0, data.classes).map((name, code) => el("option", { value: code, selected: chosen.get(i)?.label === name }, name)));
    const buttons = [button("g", given(i), `as given: ${given(i)}`), button("s", label(i), `as suggested: ${label(i)}`), other];
    if (data.none !== null) buttons.push(button("n", data.none, data.none));
    if (chosen.has(i)) buttons.push(el("button", { type: "button", onclick: () => { choose(i, null); draw(); focus(i); } }, "undo", el("kbd", { "aria-hidden": "true" }, "u")));
    const facts = [["source", data.sources[data.source[i]]], ["confidence", percent(data.confidence[i])]];
    if (data.accepted !== null) facts.push(data.accepted[i] === NOWHERE ? ["not", "accepted"] : ["accepted,", `at most ${data.errors[data.accepted[i]]} wrong`]);
    const said = data.texts ? data.texts[i] : "";
    return el("tr", { class: "detail" }, el("td", { colspan: columns },
      el("div", { class: "opened" }, ...(data.pictures[i] ? [picture(i, true)] : []),
        el("div", {}, el("p", { class: "full-id" }, data.ids[i]), ...(said ? [el("p", {}, said)] : []),
          el("p", { class: "facts" }, change(i), ...facts.map(([name, value]) => el("span", {}, `${name} ${value}`))),
          el("div", { class: "buttons" }, ...buttons)))));
  };
  const row = (i) => {
    const isOpen = i === open;
    const said = data.texts ? data.texts[i] : "";
    const toggle = el("button", {
      type: "button", class: "open", "data-row": i, "aria-expanded": String(isOpen),
      onclick: () => { open = isOpen ? -1 : i; draw(); focus(i); },
    }, data.ids[i]);
    const cells = [];
    if (hasPictures) cells.push(el("td", { class: "picture" }, ...(data.pictures[i] ? [picture(i, false)] : [])));
    cells.push(el("td", { class: "sample" }, toggle, ...(said && !isOpen ? [el("span", { class: "excerpt" }, said)] : [])));
    cells.push(el("td", {}, change(i)));
    if (data.sources.length > 1) cells.push(el("td", { class: "extra" }, data.sources[data.source[i]]));
    cells.push(el("td", { class: "number" }, percent(data.confidence[i])));
    if (data.accepted !== null) cells.push(el("td", { class: "extra" }, accepted(i)));
    cells.push(el("td", { class: "chosen" }, decision(i)));
    return el("tr", { class: isOpen ? "is-open" : null }, ...cells);
  };
  const focus = (i) => {
    const button = body.querySelector(`button[data-row="${i}"]`);
    if (button) button.focus({ preventScroll: true });
    (body.querySelector(".opened") || button)?.scrollIntoView({ block: "nearest" }); // above the bar
  };
  const number = (value) => value.toLocaleString("en");
  const count = () => {
    const button = byId("download");
    button.disabled = chosen.size === 0;
    button.textContent = chosen.size === 1 ? "Download 1 correction" : `Download ${number(chosen.size)} corrections`;
  };
  const draw = () => {
    const pages = Math.max(1, Math.ceil(found.length / PAGE));
    page = Math.min(Math.max(page, 0), pages - 1);
    const rows = [];
    for (const i of found.subarray(page * PAGE, (page + 1) * PAGE)) {
      rows.push(row(i));
      if (i === open) rows.push(detail(i));
    }
    body.replaceChildren(...rows);
    const from = page * PAGE + 1, to = Math.min((page + 1) * PAGE, found.length);
    byId("count").textContent = found.length === 0 ? "No sample matches." :
      `${number(from)} to ${number(to)} of ${number(found.length)}` + (found.length < n ? ` (of ${number(n)} in all)` : "");
    byId("previous").disabled = page === 0;
    byId("next").disabled = page === pages - 1;
    for (const button of place.querySelectorAll("button[data-sort]")) {
      const own = button.dataset.sort === sorting;
      const direction = own ? (descending !== (sorting === "confidence") ? "descending" : "ascending") : "none";
      button.closest("th").setAttribute("aria-sort", direction);
    }
  };
  const next = (i) => {
    const position = found.indexOf(i);
    if (position + 1 < found.length) {
      open = found[position + 1];
      page = Math.floor((position + 1) / PAGE);
    } else open = -1;
    draw();
    focus(open);
  };
  const refresh = () => { open = -1; page = 0; filter(); draw(); };

  // The download: a trusted table. Weight 0: chosen by hand, so it counts in no estimate.
  const cell = (text) => /[",\r\n]/.test(text) || text !== text.trim() ? `"${text.replaceAll('"', '""')}"` : text;
  const download = () => {
    const lines = ["id,label,weight,when,who"];
    for (const [i, entry] of chosen) lines.push([data.ids[i], entry.label, "0", entry.when, entry.who || byId("who").value.trim()].map(cell).join(","));
    const link = el("a", { download: "corrections.csv", href: URL.createObjectURL(new Blob([lines.join("\n") + "\n"], { type: "text/csv" })) });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    saved = true;
  };

  // Controls.
  const options = (name, codes, names) => {
    const counts = new Map();
    for (const code of codes) counts.set(code, (counts.get(code) || 0) + 1);
    const entries = [...counts].sort((a, b) => nameOf(names, a[0]) < nameOf(names, b[0]) ? -1 : 1);
    byId(name).append(...entries.map(([code, size]) => el("option", { value: code }, `${names[code]} (${number(size)})`)));
  };
  const nameOf = (names, code) => /^\d{1,15}$/.test(names[code]) ? names[code].padStart(15, "0") : names[code];
  options("given", data.given, data.names);
  options("label", data.label, data.names);
  options("source", data.source, data.sources);
  if (data.sources.length < 2) byId("source").closest("label").hidden = true;
  if (data.accepted === null) byId("accepted").closest("label").hidden = true;
  else byId("accepted").append(...data.errors.map((error, level) => el("option", { value: level }, `at most ${error} wrong`)), el("option", { value: "no" }, "not accepted"));
  const head = [...(hasPictures ? [["", null]] : []), ["sample", "id"], ["given → new", "change"],
    ...(data.sources.length > 1 ? [["source", "source", "extra"]] : []), ["confidence", "confidence", "number"],
    ...(data.accepted !== null ? [["accepted", "accepted", "extra"]] : []), ["your choice", null, "chosen"]];
  byId("head").append(...head.map(([text, name, style]) => el("th", { scope: "col", class: style || null },
    ...(name ? [el("button", { type: "button", "data-sort": name, onclick: () => {
      if (sorting === name) descending = !descending;
      else [sorting, descending] = [name, false];
      refresh();
    } }, text)] : [text]))));
  place.querySelector("form").addEventListener("input", refresh);
  place.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
  byId("previous").addEventListener("click", () => { page--; open = -1; draw(); });
  byId("next").addEventListener("click", () => { page++; open = -1; draw(); });
  byId("download").addEventListener("click", download);
  body.addEventListener("keydown", (event) => {
    if (open < 0 || event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "SELECT") return;
    const names = { g: given(open), s: label(open), n: data.none, u: null };
    if (!(event.key in names) || (event.key === "n" && data.none === null)) return;
    event.preventDefault();
    const i = open;
    choose(i, names[event.key]);
    if (event.key === "u") { draw(); focus(i); } else next(i);
  });
  window.addEventListener("beforeunload", (event) => { if (!saved && chosen.size) event.preventDefault(); });
  filter();
  draw();
  count();
  place.hidden = false;
  setTimeout(words, 200);  // so that the first search is as quick as the others
  const still = document.getElementById("changes-still");
  if (still) still.hidden = true;
})();
