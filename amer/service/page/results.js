// What a question found: its words, the fused list beside the encoder's, the list of each query vector, the map.
import { colour, element, fill } from "./element.js";
import { drawMap } from "./map.js";

export function showResults(place, question, answer) {
  if (!answer.hits.length) {
    fill(place, [element("p", { className: "asked" }, "No document was found. A filter may leave none.")]);
    return;
  }
  const map = drawMap(answer);
  const first = [fusedList(answer), encoderList(answer), map.section];
  const vectors = answer.vectors.map((vector, number) => vectorList(vector, number, answer.hits));
  fill(place, [
    tintedQuestion(question, answer.vectors),
    element("p", { className: "gain quiet" }, gain(answer)),
    element("div", { className: "columns first" }, first),
    element("div", { className: "columns vectors" }, vectors),
  ]);
  for (const item of place.querySelectorAll(".hit")) item.onpointerenter = () => map.show(item.dataset.id);
}

/** The question, the words of each query vector in its colour and with its number. */
function tintedQuestion(question, vectors) {
  const spans = vectors.flatMap((vector, number) => vector.spans.map(([start, end]) => ({ start, end, number })));
  const characters = [...question]; // Python counts code points
  const children = [];
  let done = 0;
  for (const { start, end, number } of spans.sort((one, other) => one.start - other.start)) {
    children.push(characters.slice(done, start).join(""));
    const words = characters.slice(start, end).join("");
    children.push(element("mark", { data: colour(number) }, words, element("sup", { aria: { hidden: "true" } }, String(number + 1))));
    done = end;
  }
  return element("h2", { className: "asked" }, children, characters.slice(done).join(""));
}

function gain({ hits, encoder }) {
  if (!encoder) return "The document encoder is not open in this service, so its own list is not shown.";
  const missed = hits.filter((_, place) => isNew(encoder, place)).length;
  if (!missed) return "The encoder alone finds the same documents, in another order.";
  const those = missed === 1 ? "1 document, marked new, is" : `${missed} documents, marked new, are`;
  return `${those} not among the first ${encoder.hits.length} that the encoder alone finds with the whole question.`;
}

const isNew = (encoder, place) => encoder.ranks[place] === null || encoder.ranks[place] >= encoder.hits.length;

function fusedList({ hits, encoder, vectors }) {
  const items = hits.map((hit, place) => {
    const words = vectors[hit.found_by].part;
    const by = `query vector ${hit.found_by + 1}${words ? `, “${words}”` : ""}, place ${hit.found_at + 1}`;
    return listItem(hit, place, badge(hit.found_by, `found by ${by}`), {
      side: encoder && isNew(encoder, place) ? element("span", { className: "new" }, "new") : null,
      more: `Found by ${by}. ${encoder ? encoderPlace(encoder, place) : ""}`,
    });
  });
  return list("AMER", "The lists of all query vectors, fused", items);
}

function encoderPlace({ ranks, depth }, place) {
  const rank = ranks[place];
  return `The encoder alone ${rank === null ? `does not have it among its first ${depth}` : `has it at place ${rank + 1}`}.`;
}

function encoderList({ encoder, hits }) {
  if (!encoder) return null;
  const found = new Map(hits.map((hit) => [hit.id, hit.found_by]));
  const items = encoder.hits.map((hit, place) =>
    listItem(hit, place, badge(found.get(hit.id), found.has(hit.id) ? "in AMER's list too" : "not in AMER's list"), {}));
  return list("The encoder alone", "The whole question as one vector", items);
}

function vectorList(vector, number, fused) {
  const kept = new Set(fused.map((hit) => hit.id));
  const items = vector.hits.map((hit, place) =>
    listItem(hit, place, kept.has(hit.id) ? badge(number, "in the fused list") : badge(undefined, "not in the fused list"), {}));
  const heading = [badge(number, ""), `Query vector ${number + 1}`];
  return list(heading, vector.part ? `“${vector.part}”` : "What it finds by itself", items);
}

function list(heading, about, items) {
  return element("section", {},
    element("h2", {}, heading), element("p", { className: "quiet" }, about), element("ol", {}, items));
}

/** A document of a list; its title opens and closes the whole text. */
function listItem(hit, place, mark, { side = null, more = "" }) {
  const metadata = Object.entries(hit.metadata).map(([name, value]) => `${name}: ${value}`).join(" · ");
  const details = [more, `Score ${hit.score.toFixed(3)}.`, metadata].filter(Boolean).join(" ");
  const about = element("p", { className: "more", hidden: true }, details);
  const title = element("button", { type: "button", className: "title", aria: { expanded: "false" } }, breakable(hit.title || hit.id));
  title.onclick = () => {
    about.hidden = !about.hidden;
    title.setAttribute("aria-expanded", String(!about.hidden));
  };
  return element("li", { className: "hit", data: { id: hit.id } },
    element("span", { className: "rank", aria: { hidden: "true" } }, String(place + 1)),
    mark, title, side ?? element("span", {}), element("p", { className: "text" }, hit.text), about);
}

/** A name such as numpy.linalg.norm, which may go on in the next line after a dot, a slash or an underscore. */
const breakable = (name) => name.split(/(?<=[._/])/).flatMap((part) => [part, element("wbr", {})]);

/** The number of a query vector in its colour; undefined for none. */
function badge(vector, meaning) {
  const none = vector === undefined;
  const data = none ? {} : colour(vector);
  const said = element("span", { className: "unseen" }, meaning);
  const shown = element("span", { aria: { hidden: "true" } }, none ? "–" : String(vector + 1));
  return element("span", { className: none ? "badge none" : "badge", data, title: meaning }, shown, meaning ? said : null);
}
