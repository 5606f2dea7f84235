// The explorer of debates. All that models and people wrote becomes text nodes or values of attributes that
// only hold text; nothing is parsed as HTML. `lab/explorer.py` judges the answers and chooses the words.
"use strict";
const source = document.documentElement.outerHTML; // the page as it came, to be saved with the notes
const ROW = 30, STEP = 6; // pixels of a row of the table; as many rows are drawn ahead, above and below the screen
const SIGNS = { right: "✓", wrong: "✗", none: "–", plain: "?" };
const BECAME = { "improved by comparison": true, "regressed by comparison": false };
const CHOICES = ["task", "level", "run", "outcome", "compare"];
const $ = (id) => document.getElementById(id);
const state = { q: "", task: "", level: "", run: "", outcome: "", compare: "", sort: "place", down: "" };
const opened = new Set(); // the folds that are open: they stay open in the next debate
const notes = JSON.parse($("notes").textContent);
let rows = [], runs = [], ordered = [], shown = [], columns = [], current = null, dataKey = "";
let drawn = {}; // which rows of `shown` are in the table
const byProblem = new Map(); // the first debate of a problem in each run

/** An element with attributes and children; a child that is a string becomes text. */
function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node[name] = value;
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
}

// --- data -------------------------------------------------------------------------------------------

async function load() {
  const packed = Uint8Array.from(atob($("data").textContent), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const data = await new Response(stream).json();
  dataKey = `maft-notes-${$("data").textContent.slice(-40)}`; // the checksum in it tells pages apart
  try { // a sandbox and some browsers' files have no storage: then notes live in this page and what it saves
    Object.assign(notes, JSON.parse(localStorage.getItem(dataKey) || "{}"));
  } catch { /* in memory */ }
  runs = data.runs;
  rows = data.debates;
  rows.forEach((row, place) => {
    const { problem, turns } = row.debate;
    Object.assign(row, { place, id: problem.id, question: problem.question, task: problem.task });
    Object.assign(row, { level: problem.level, rounds: turns[0].length, agents: turns.length });
    row.text = [problem.question, ...turns.flat().map((turn) => turn.response)].join("\n").toLowerCase();
    if (!byProblem.has(row.id)) byProblem.set(row.id, []);
    row.same = byProblem.get(row.id);
    row.same[row.run] ??= row;
  });
}

const noteKey = (row) => `${row.id} ${runs[row.run]}`;
const counterpart = (row, run) => (run === row.run ? undefined : row.same[run]);
const compared = () => (state.compare === "" ? -1 : runs.indexOf(state.compare));

// --- table ------------------------------------------------------------------------------------------

function makeColumns() {
  const several = (name) => rows.some((row) => row[name] !== rows[0][name]);
  const right = (row) => (row.rounds > 1 ? `${row.first_right}→` : "") + `${row.last_right}/${row.agents}`;
  columns = [
    { name: "place", title: "#", cell: (row) => String(row.place + 1) },
    { name: "question", title: "question", cell: (row) => row.question },
    { name: "before", title: "before", hint: "the vote over the first answers", cell: (row) => row.before ?? "–" },
    { name: "after", title: "after", hint: "the vote over the last answers", cell: (row) => [sign(row.vote[0]), ` ${row.debate.vote ?? ""}`] },
    { name: "last_right", title: "right", cell: right },
    { name: "outcome", title: "outcome", cell: (row) => row.words.join(", ") },
    ...["rounds", "run", "task", "level"].filter(several).map((name) => ({
      name, title: name, cell: (row) => (name === "run" ? runs[row.run] : String(row[name] ?? "")),
    })),
  ];
  const heads = columns.map(({ name, title, hint }) =>
    el("th", { scope: "col", "data-name": name, class: name, title: hint },
      el("button", { type: "button", onclick: () => sortBy(name) }, title)));
  $("list").querySelector("thead").replaceChildren(el("tr", {}, heads));
}

const sign = (kind) => el("b", { class: kind, "aria-label": kind === "plain" ? "not judged" : kind }, SIGNS[kind]);

function sortBy(name) {
  state.down = state.sort === name && !state.down ? "1" : "";
  state.sort = name;
  sort();
  filter();
}

/** What a row is sorted by: a number where it can be read as one. */
function sortKey(row) {
  const special = { after: () => row.debate.vote, outcome: () => row.words.join(), run: () => runs[row.run] };
  const value = (special[state.sort] ?? (() => row[state.sort]))();
  return value === null || value === "" || isNaN(value) ? String(value ?? "").toLowerCase() : Number(value);
}

/** Sorts all rows; those that match then keep this order. */
function sort() {
  const turn = state.down ? -1 : 1;
  const compare = ([x, a], [y, b]) => {
    if (typeof x !== typeof y) return typeof x === "number" ? -1 : 1;
    return x < y ? -turn : x > y ? turn : a.place - b.place;
  };
  ordered = rows.map((row) => [sortKey(row), row]).sort(compare).map(([, row]) => row);
  for (const head of $("list").querySelectorAll("th")) {
    head.toggleAttribute("aria-sort", false);
    if (head.dataset.name === state.sort) head.setAttribute("aria-sort", state.down ? "descending" : "ascending");
  }
}

/** The debates that match; the one on screen stays there if it is among them. */
function filter() {
  const words = state.q.toLowerCase().split(/\s+/).filter(Boolean), other = compared();
  const matches = (row) => {
    if (state.task && row.task !== state.task) return false;
    if (state.level && String(row.level) !== state.level) return false;
    if (state.run && runs[row.run] !== state.run) return false;
    if (state.outcome in BECAME) {
      const there = counterpart(row, other);
      if (!there || row.vote_right === there.vote_right || there.vote_right !== BECAME[state.outcome]) return false;
    } else if (state.outcome && !row.outcomes.includes(state.outcome)) return false;
    return words.every((word) => row.text.includes(word));
  };
  shown = ordered.filter(matches);
  show(shown.includes(current) ? current : shown[0] ?? null);
}

/** Draws the rows that are on screen, and room for the others above and below, where these are not drawn yet. */
function drawRows() {
  const list = $("list"), first = Math.max(0, STEP * (Math.floor(list.scrollTop / ROW / STEP) - 1));
  const last = Math.min(shown.length, first + Math.ceil(list.clientHeight / ROW) + 3 * STEP);
  if (drawn.shown !== shown || drawn.first !== first || drawn.last !== last) {
    drawn = { shown, first, last };
    list.querySelector("tbody").replaceChildren(...tableRows(first, last));
    list.firstChild.setAttribute("aria-rowcount", shown.length + 1);
  }
  list.querySelector("[aria-selected=true]")?.setAttribute("aria-selected", "false");
  if (current) $(`row-${current.place}`)?.setAttribute("aria-selected", "true");
  list.setAttribute("aria-activedescendant", current ? `row-${current.place}` : "");
}

function tableRows(first, last) {
  const space = (number) => el("tr", { class: "space", "aria-hidden": "true" }, el("td", { style: `height:${number * ROW}px` }));
  const between = shown.slice(first, last).map((row, n) =>
    el("tr", { id: `row-${row.place}`, "aria-rowindex": first + n + 2, "aria-selected": "false", onclick: () => show(row) },
      columns.map(({ name, cell }) =>
        el("td", { class: name, title: name === "question" || name === "outcome" ? cell(row) : null },
          name === "question" && notes[noteKey(row)] ? el("span", { title: notes[noteKey(row)] }, "✎ ") : null, cell(row)))));
  return [space(first), ...between, space(shown.length - last)];
}

function scrollToCurrent() {
  const list = $("list"), top = shown.indexOf(current) * ROW, head = list.querySelector("thead").offsetHeight;
  if (top < list.scrollTop) list.scrollTop = top;
  if (top + ROW + head > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW + head - list.clientHeight;
}

// --- one debate -------------------------------------------------------------------------------------

/** Shows a debate; null: none matches. */
function show(row) {
  current = row;
  const number = row ? `${(shown.indexOf(row) + 1).toLocaleString("en")} of ` : "No debate matches: 0 of ";
  const all = shown.length === rows.length ? "" : ` (${rows.length.toLocaleString("en")} in all)`;
  $("count").textContent = `${number}${shown.length.toLocaleString("en")} debate${shown.length === 1 ? "" : "s"}${all}`;
  scrollToCurrent();
  drawRows();
  $("debate").replaceChildren(...(row ? drawDebate(row) : [el("p", {}, "No debate matches these filters: clear or change them.")]));
  remember();
}

function drawDebate(row) {
  const { problem, turns, ...debate } = row.debate, run = runs[row.run];
  const about = [problem.task, problem.level === null ? "" : `level ${problem.level}`, problem.subject, run];
  const note = el("textarea", { id: "note", rows: 2, placeholder: "A note of your own on this debate", oninput: () => keep(row, note.value) });
  note.value = notes[noteKey(row)] ?? "";
  const cost = `${debate.num_calls} requests, ${debate.num_prompt_tokens.toLocaleString("en")} tokens read, `
    + `${debate.num_completion_tokens.toLocaleString("en")} written` + (debate.seconds ? `, ${debate.seconds.toFixed(2)} s` : "");
  return [
    el("p", { class: "meta" }, about.filter(Boolean).join(" · "), " ", permalink()),
    el("h2", {}, ...written(problem.question)),
    row.words.length ? el("p", { class: "meta" }, row.words.map((word) => el("span", { class: "chip plain" }, word))) : null,
    state.compare ? comparison(row) : null,
    ...turns[0].map((_, m) => drawRound(row, m)),
    el("dl", {},
      fact("vote", chip(debate.vote ?? "no answer could be read", row.vote), ` ${row.vote[2]}`),
      problem.answer.trim() ? fact("ground truth", chip(problem.answer, ["plain", ""])) : null,
      debate.num_calls ? fact("cost", cost) : null,
      fact(el("label", { for: "note" }, "note"), note)),
  ].filter(Boolean);
}

const fact = (term, ...text) => el("div", {}, el("dt", {}, term), el("dd", {}, ...text));

function drawRound(row, m) {
  const agents = row.debate.turns.map((turns, n) => drawTurn(turns[m], row.turns[n][m], n, m));
  return el("section", {},
    el("h3", {}, `round ${m + 1} `, el("small", {}, m ? "critics" : "generation agents")),
    el("div", { class: "agents", style: `--agents:${agents.length}` }, agents));
}

function drawTurn(turn, judged, n, m) {
  const [kind, letter, change, tone, summary, cost] = judged;
  const ended = turn.finish_reason === "length" ? "cut at the token limit" : turn.finish_reason === "stop" ? "" : turn.finish_reason;
  const fold = (title, text, hint) => text && el("details", { open: opened.has(`${title} ${n} ${m}`) && "", ontoggle: remembered },
    el("summary", { "data-fold": `${title} ${n} ${m}`, title: hint }, title), el("div", { class: "text" }, ...written(text)));
  return el("article", { "aria-label": `agent ${n + 1}, round ${m + 1}` },
    el("h4", {}, `agent ${n + 1}`), el("p", {}, chip(turn.answer ?? "no answer", [kind, letter]),
      change && el("span", { class: `change ${tone}` }, change), ended && el("span", { class: "change" }, ended)),
    fold("Summary this agent read", summary, "With each agent's own number; the message has the words as they were"),
    fold("Message asked", turn.asked), fold("Thoughts", turn.reasoning),
    el("div", { class: "text response", tabindex: 0, role: "region", "aria-label": `response of agent ${n + 1}, round ${m + 1}` }, ...written(turn.response)),
    cost && el("p", { class: "meta", title: "Tokens and seconds include the summary's" }, cost));
}

function remembered(event) {
  const { open, firstChild } = event.target;
  opened[open ? "add" : "delete"](firstChild.dataset.fold);
}

function chip(text, [kind, letter]) {
  return el("span", { class: `chip ${kind}` }, kind === "plain" ? null : [sign(kind), " "], ...answerText(text),
    letter && el("small", { class: "letter", title: "equivalent answers share a letter" }, letter));
}

const unlettered = (answer, [kind]) => chip(answer ?? "no answer", [kind, ""]); // letters are one debate's own

function permalink() {
  const hash = `#${address()}`, title = "Link to this debate in a saved page";
  return location.protocol === "about:" ? el("code", { title: `${title}: put it behind the file's name` }, hash) : el("a", { href: hash, title }, "link");
}

function keep(row, text) {
  if (text) notes[noteKey(row)] = text;
  else delete notes[noteKey(row)];
  try {
    localStorage.setItem(dataKey, JSON.stringify(notes));
  } catch { /* in memory */ }
  drawn = {};
  drawRows();
}

// --- formulas ---------------------------------------------------------------------------------------

const MATH = "http://www.w3.org/1998/Math/MathML";
const FORMULA = /\$\$([^$]{1,2000})\$\$|\\\[([\s\S]{1,2000}?)\\\]|\\\(([\s\S]{1,2000}?)\\\)|(?<![\\$\d])\$(?=\S)([^$\n]{1,500}?)(?<=\S)\$(?!\d)|(\\boxed\s*\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\})/g;
const SYMBOLS = Object.fromEntries(("cdot · times × div ÷ pm ± le ≤ leq ≤ ge ≥ geq ≥ ne ≠ neq ≠ lt < gt > infty ∞ to → rightarrow → Rightarrow ⇒ approx ≈ "
  + "equiv ≡ in ∈ cup ∪ cap ∩ circ ∘ degree ° angle ∠ ldots … dots … cdots ⋯ sum ∑ prod ∏ int ∫ alpha α beta β gamma γ delta δ theta θ lambda λ "
  + "mu μ pi π rho ρ sigma σ phi φ omega ω mid ∣ quad \u2003 , \u2009 ; \u2009 ! \u200b % % $ $ { { } } left \u200b right \u200b").match(/\S+ ./g).map((pair) => pair.split(" ")));

const ml = (tag, ...children) => {
  const node = document.createElementNS(MATH, tag);
  node.append(...children);
  return node;
};

/** LaTeX as MathML; null where there is a command that this reader lacks: then the source is shown. */
function mathml(latex, display) {
  const tokens = latex.match(/\\(?:[a-zA-Z]+|.)|\d+(?:\.\d+)?|\s+|[\s\S]/g) ?? [];
  let place = 0;
  const group = (end) => {
    const row = ml("mrow");
    for (;;) {
      while (/^\s/.test(tokens[place] ?? "")) place++;
      if (place >= tokens.length) {
        if (end) throw new SyntaxError(latex);
        return row;
      }
      if (tokens[place] === end) {
        place++;
        return row;
      }
      row.append(scripts(atom()));
    }
  };
  const argument = () => {
    while (/^\s/.test(tokens[place] ?? "")) place++;
    return atom();
  };
  const raw = () => { // the words in the braces of \text
    const end = tokens.indexOf("}", place);
    if (tokens[place] !== "{" || end < 0) throw new SyntaxError(latex);
    const words = tokens.slice(place + 1, end).join("");
    place = end + 1;
    return words;
  };
  const atom = () => {
    const token = tokens[place++];
    if (token === "{") return group("}");
    if (/^\d/.test(token ?? "")) return ml("mn", token);
    if (/^[a-zA-Z]$/.test(token ?? "")) return ml("mi", token);
    if (token !== undefined && !/^[\\}^_&]/.test(token)) return ml("mo", token === "-" ? "−" : token);
    const name = token?.slice(1);
    if (/^[dt]?frac$/.test(name)) return ml("mfrac", argument(), argument());
    if (name === "boxed") return ml("menclose", argument());
    if (/^(text|mathrm|mbox|operatorname|textbf)$/.test(name)) return ml("mtext", raw());
    if (/^(sin|cos|tan|log|ln|gcd|max|min)$/.test(name)) return ml("mi", name);
    if (name === "sqrt" && tokens[place] === "[") {
      place++;
      const degree = group("]");
      return ml("mroot", argument(), degree);
    }
    if (name === "sqrt") return ml("msqrt", argument());
    if (token?.[0] === "\\" && Object.hasOwn(SYMBOLS, name)) return ml(/[α-ω∞]/.test(SYMBOLS[name]) ? "mi" : "mo", SYMBOLS[name]);
    throw new SyntaxError(latex);
  };
  const scripts = (base) => {
    const found = {};
    while ("^_".includes(tokens[place] ?? " ")) found[tokens[place++]] = argument();
    if (found["^"] && found._) return ml("msubsup", base, found._, found["^"]);
    return found["^"] ? ml("msup", base, found["^"]) : found._ ? ml("msub", base, found._) : base;
  };
  try {
    const math = ml("math", group());
    if (display) math.setAttribute("display", "block");
    math.setAttribute("alttext", latex);
    return math;
  } catch { // also of braces too deep
    return null;
  }
}

/** A text as nodes, its formulas as MathML. */
function written(text) {
  const nodes = [];
  let end = 0;
  for (const found of text.matchAll(FORMULA)) {
    const [source, dollars, square, round, dollar, boxed] = found;
    const math = mathml(dollars ?? square ?? round ?? dollar ?? boxed, dollars !== undefined || square !== undefined);
    if (math) {
      nodes.push(text.slice(end, found.index), math);
      end = found.index + source.length;
    }
  }
  return [...nodes, text.slice(end)];
}

const answerText = (text) => [(/[\\^_]/.test(text) && mathml(text)) || text];

// --- two runs ---------------------------------------------------------------------------------------

/** The problem in two runs: agents below each other, runs side by side, how the votes moved in all. */
function comparison(row) {
  const other = compared(), there = counterpart(row, other), names = [runs[row.run], runs[other]];
  if (!there) return el("p", { class: "compare" }, el("b", {}, names[1]), ": no other debate of the problem.");
  const pairs = rows.filter((one) => one.run === row.run).map((one) => [one, counterpart(one, other)]).filter(([, two]) => two);
  const moved = (to) => pairs.filter(([a, b]) => a.vote_right !== b.vote_right && b.vote_right === to).length;
  const line = (title, cells) => el("div", { class: "line", role: "row" }, el("span", { role: "rowheader" }, title), cells.map((cell, k) => el("div", { role: "cell", "data-run": names[k] }, ...cell)));
  const path = (one, n) => one.debate.turns[n].flatMap((turn, m) => [m ? "→ " : "", unlettered(turn.answer, one.turns[n][m])]);
  const agents = [...Array(Math.min(row.agents, there.agents)).keys()].map((n) => {
    const [before, after] = difference(...[row, there].map((one) => one.debate.turns[n].at(-1).response));
    return line(`agent ${n + 1}`, [[el("p", {}, ...path(row, n)), before], [el("p", {}, ...path(there, n)), after]]);
  });
  const votes = [row, there].map((one) => [unlettered(one.debate.vote, one.vote), one.vote[2]]);
  return el("div", { class: "compare", role: "table", "aria-label": "Comparison of two runs" },
    el("p", {}, el("b", {}, `${moved(true)} improved, ${moved(false)} regressed`), ` of ${pairs.length} problem${pairs.length === 1 ? "" : "s"} from ${names[0]} to ${names[1]}. `,
      el("button", { type: "button", onclick: () => { state.run = ""; fill(); filter(); show(there); } }, `Open in ${names[1]}`)),
    line("", names.map((name) => [el("b", {}, name)])), ...agents, line("vote", votes));
}

/** Two texts as elements in which the words that only one of them has are marked. */
function difference(a, b) {
  const [x, y] = [a, b].map((text) => text.split(/(?<=\s)(?=\S)/));
  let start = 0, end = 0;
  while (start < x.length && start < y.length && x[start] === y[start]) start++;
  while (end < x.length - start && end < y.length - start && x.at(-1 - end) === y.at(-1 - end)) end++;
  const [p, q] = [x, y].map((words) => words.slice(start, words.length - end)), common = longest(p, q);
  const marked = (words, tag, middle, place) => el("div", { class: "text" }, words.slice(0, start).join(""),
    ...middle.map((word, i) => (common.has(`${place}${i}`) ? word : el(tag, {}, word))), words.slice(words.length - end).join(""));
  return [marked(x, "del", p, "a"), marked(y, "ins", q, "b")];
}

/** Places of the words in a longest common subsequence; of very long texts, none. */
function longest(p, q) {
  const common = new Set();
  if (p.length * q.length > 4e6) return common;
  const width = q.length + 1, best = new Uint16Array((p.length + 1) * width);
  for (let i = p.length - 1; i >= 0; i--) {
    for (let j = q.length - 1; j >= 0; j--) {
      best[i * width + j] = p[i] === q[j] ? 1 + best[(i + 1) * width + j + 1] : Math.max(best[(i + 1) * width + j], best[i * width + j + 1]);
    }
  }
  for (let i = 0, j = 0; i < p.length && j < q.length;) {
    if (p[i] === q[j]) common.add(`a${i++}`).add(`b${j++}`);
    else if (best[(i + 1) * width + j] >= best[i * width + j + 1]) i++;
    else j++;
  }
  return common;
}

// --- controls ---------------------------------------------------------------------------------------

function makeControls() {
  const values = (name) => [...new Set(rows.map((row) => row[name]).filter((value) => value !== null))].sort((a, b) => (a < b ? -1 : 1)).map(String);
  const outcomes = [...new Set(rows.flatMap((row) => row.outcomes))];
  const offered = { task: values("task"), level: values("level"), run: runs, compare: runs };
  offered.outcome = runs.length > 1 ? [...outcomes, ...Object.keys(BECAME)] : outcomes;
  for (const name of CHOICES) {
    const options = offered[name].map((value) => el("option", { value }, value || "this run"));
    const select = el("select", { id: name, onchange: () => { state[name] = select.value; filter(); } },
      el("option", { value: "" }, name === "compare" ? "nothing" : "all"), options);
    const title = { compare: "compare with" }[name] ?? name;
    if (offered[name].length > 1 || name === "outcome") $("filters").append(el("label", {}, title, " ", select));
  }
  $("search").oninput = () => {
    state.q = $("search").value;
    filter();
  };
  $("clear").onclick = () => {
    Object.assign(state, { q: "", task: "", level: "", run: "", outcome: "" });
    fill();
    filter();
  };
  $("export").onclick = () => download("debates.jsonl", shown.map((row) => JSON.stringify({
    run: runs[row.run], outcomes: row.outcomes, note: notes[noteKey(row)] ?? "", debate: row.debate,
  })).join("\n") + "\n");
  $("save").onclick = () => {
    const text = JSON.stringify(notes).replace(/</g, "\\u003c");
    download("debates.html", "<!doctype html>\n" + source.replace(/(id="notes">)[^<]*/, (_, begin) => begin + text));
  };
  $("list").onscroll = drawRows;
  new ResizeObserver(drawRows).observe($("list"));
}

/** Puts the state into the controls. */
function fill() {
  $("search").value = state.q;
  for (const name of CHOICES) if ($(name)) $(name).value = state[name];
}

function download(name, text) {
  const link = el("a", { download: name, href: URL.createObjectURL(new Blob([text])) });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** The state and the debate on screen, as the part of an address behind `#`. */
function address() {
  const all = { ...state, debate: current?.id ?? "", of: current ? runs[current.run] : "" };
  return new URLSearchParams(Object.entries(all).filter(([name, value]) => value && value !== "place")).toString();
}

function remember() {
  try {
    history.replaceState(null, "", `#${address()}`);
  } catch { /* inside a notebook there is no address */ }
}

/** Takes the state from the address; what it does not name is as at the start. */
function recall() {
  const asked = new URLSearchParams(location.hash.slice(1));
  for (const name in state) state[name] = asked.get(name) ?? (name === "sort" ? "place" : "");
  if (!columns.some(({ name }) => name === state.sort)) state.sort = "place";
  for (const name of CHOICES) if (state[name] && !$(name)?.querySelector(`option[value="${CSS.escape(state[name])}"]`)) state[name] = "";
  current = byProblem.get(asked.get("debate"))?.[runs.indexOf(asked.get("of") ?? "")] ?? null;
  fill();
  sort();
  filter();
}

function press(event) {
  const typing = event.target.closest("input, select, textarea"), list = $("list");
  if (event.key === "Escape") {
    list.focus();
    return;
  }
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const inTable = document.activeElement === list, page = Math.max(1, Math.floor(list.clientHeight / ROW) - 2);
  const steps = { j: 1, k: -1, ...(inTable && { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity }) };
  if (event.key in steps && shown.length) {
    const place = shown.indexOf(current) + steps[event.key];
    show(shown[Math.min(shown.length - 1, Math.max(0, place))]);
  } else if (event.key === "Enter" && inTable) $("debate").focus();
  else if (event.key === "/") $("search").focus();
  else if (event.key === "n" && $("note")) $("note").focus();
  else return;
  event.preventDefault();
}

load().then(() => {
  makeColumns();
  makeControls();
  recall();
  addEventListener("keydown", press);
  addEventListener("hashchange", recall);
  document.body.classList.add("ready");
});
