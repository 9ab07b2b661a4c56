// The page: what is asked stands in the address after "#", so that a link can be shared and no server logs it.
import { element, fill } from "./element.js";
import { showResults } from "./results.js";

const SLOW = 2500; // milliseconds until the page says that it still waits
const KEY = "amer-key"; // in the tab's own storage, never in the address
const AUTO = "0"; // m where the model chooses
const at = (id) => document.getElementById(id);
const controls = ["question", "m", "k", "fusion", "filter"].map(at);
const [question, m, k, fusion, filter] = controls;
let service; // what `explore/options` says
let asking; // the request under way

async function start() {
  listen();
  try {
    service = await ask("explore/options");
  } catch (error) {
    showProblem(error, start);
    return;
  }
  at("problem").hidden = true;
  describeService();
  readAddress();
}

function listen() {
  at("ask").onsubmit = (event) => { event.preventDefault(); begin(); };
  at("locked").onsubmit = (event) => { event.preventDefault(); unlock(); };
  for (const slider of [m, k]) slider.oninput = showChosen;
  for (const control of [m, k, fusion, filter]) control.onchange = () => { showChosen(); if (question.value.trim()) begin(); };
  question.oninput = showLimit;
  window.onhashchange = readAddress;
  document.onkeydown = (event) => {
    if (event.key !== "/" || event.target.matches("input, select, textarea")) return;
    event.preventDefault();
    question.focus();
  };
}

function describeService() {
  const count = service.documents.toLocaleString("en");
  at("served").textContent = `${service.model} · ${count} documents · ${service.encoder}`;
  m.min = service.num_query_vectors === null ? AUTO : "1";
  m.max = service.most_query_vectors;
  k.max = service.most_k;
  question.maxLength = service.most_question_characters;
  const fields = Object.entries(service.fields).map(([name, type]) => `${name} (${type})`);
  filter.disabled = !fields.length;
  filter.placeholder = fields.length ? `such as ${Object.keys(service.fields)[0]} == …` : "";
  at("fields").textContent = fields.join(", ") || "These documents have no metadata.";
  fill(at("examples"), service.examples.map((text) =>
    element("button", { type: "button", onclick: () => { question.value = text; begin(); } }, text)));
}

// ------------------------------------------------------------------------------------------------------- the address

function readAddress() {
  const said = new URLSearchParams(location.hash.slice(1));
  question.value = said.get("q") ?? "";
  m.value = said.get("m") ?? service.num_query_vectors ?? AUTO;
  k.value = said.get("k") ?? "10";
  fusion.value = said.get("fusion") ?? "";
  filter.value = said.get("filter") ?? "";
  at("options").open ||= ["m", "k", "fusion", "filter"].some((name) => said.has(name));
  showChosen();
  if (question.value.trim()) search();
  else showNothing();
}

/** Write what is asked into the address, and search. */
function begin() {
  const said = new URLSearchParams({ q: question.value.trim() });
  if (m.value !== String(service.num_query_vectors ?? AUTO)) said.set("m", m.value);
  if (k.value !== "10") said.set("k", k.value);
  if (fusion.value) said.set("fusion", fusion.value);
  if (filter.value.trim()) said.set("filter", filter.value.trim());
  if (location.hash === `#${said}`) search();
  else location.hash = said; // which calls readAddress
}

function showChosen() {
  const vectors = m.value === AUTO ? "as many as the model finds" : m.value;
  at("m-shown").textContent = vectors;
  at("k-shown").textContent = k.value;
  m.setAttribute("aria-valuetext", vectors);
  const others = [fusion.value && fusion.selectedOptions[0].text, filter.value.trim()].filter(Boolean);
  at("chosen").textContent = [`m ${m.value === AUTO ? "auto" : m.value}`, `k ${k.value}`, ...others].join(" · ");
}

function showLimit() {
  const left = question.maxLength - question.value.length;
  at("limit").hidden = left > 100;
  at("limit").textContent = left ? `${left} more characters fit.` : "No more characters fit.";
}

// --------------------------------------------------------------------------------------------------------- searching

async function search() {
  asking?.abort();
  const own = (asking = new AbortController());
  const body = {
    question: question.value.trim(),
    k: Number(k.value),
    num_query_vectors: m.value === AUTO ? null : Number(m.value),
    fusion: fusion.value || null,
    filter: filter.value.trim() || null,
  };
  const slow = setTimeout(() => say("Still searching. Others may be waiting too…", true), SLOW);
  say("Searching…", true);
  at("problem").hidden = true;
  at("results").classList.add("old");
  try {
    const answer = await ask("explore", body, own.signal);
    document.title = `${body.question} – AMER`;
    showResults(at("results"), body.question, answer);
    say(summary(answer));
  } catch (error) {
    if (error.name !== "AbortError") showProblem(error, search);
  } finally {
    clearTimeout(slow);
    if (own === asking) at("results").classList.remove("old");
  }
}

/** The JSON of an answer of the service. */
async function ask(path, body, signal) {
  const key = sessionStorage.getItem(KEY);
  const headers = { ...(body && { "Content-Type": "application/json" }), ...(key && { "X-API-Key": key }) };
  const answer = await fetch(path, { method: body ? "POST" : "GET", headers, signal, body: body && JSON.stringify(body) });
  const said = await answer.json().catch(() => ({}));
  signal?.throwIfAborted(); // a newer question may have come while this answer was read
  if (!answer.ok) throw Object.assign(new Error(said.detail ?? answer.statusText), { status: answer.status });
  return said;
}

function summary({ hits, vectors }) {
  const count = (number, what) => `${number} ${what}${number === 1 ? "" : "s"}`;
  return `${count(hits.length, "document")}, ${count(vectors.length, "query vector")}`;
}

// ------------------------------------------------------------------------------------------------------------ states

function say(text, busy = false) {
  at("status").textContent = text;
  at("status").classList.toggle("busy", busy);
}

function showNothing() {
  asking?.abort();
  document.title = "AMER";
  at("problem").hidden = true;
  const words = "Each part of a question gets a query vector of its own. Ask, and see what each of them finds.";
  fill(at("results"), [element("p", { className: "asked quiet" }, words)]);
  say("");
  question.focus();
}

const TITLES = {
  413: "This is too long",
  422: "This cannot be searched",
  503: "The service is busy",
  504: "This took too long",
};

function showProblem(error, again) {
  say("");
  const locked = error.status === 401;
  at("ask").hidden = locked;
  at("locked").hidden = !locked;
  if (locked) {
    at("key").focus();
    if (!sessionStorage.getItem(KEY)) return;
    sessionStorage.removeItem(KEY);
    error = { status: 401, message: "The key is wrong." };
  }
  const title = locked ? "That did not open it" : TITLES[error.status] ?? "This did not work";
  const message = error.status ? error.message : "The service cannot be reached. Is it running?";
  const retry = element("button", { type: "button", className: "again", onclick: again }, "Try again");
  fill(at("problem"), [element("h2", {}, title), element("p", {}, message), locked || error.status === 422 ? null : retry]);
  at("problem").hidden = false;
}

async function unlock() {
  sessionStorage.setItem(KEY, at("key").value.trim());
  at("key").value = "";
  at("locked").hidden = true;
  at("ask").hidden = false;
  await start();
}

start();
