// The map: query vectors, the documents they found and those around, projected on a plane by the service.
import { colour, drawn, element, fill } from "./element.js";

const SIZE = { width: 440, height: 400, margin: 26 };
const ORDER = ["neighbour", "hit", "encoder", "query"]; // the last is on top
const MOVES = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };

/** The map's section, and a function that shows the document of an id on it. */
export function drawMap({ map, vectors }) {
  const caption = element("div", { className: "caption", aria: { live: "polite" } });
  const inOrder = [...map].sort((one, other) => ORDER.indexOf(one.kind) - ORDER.indexOf(other.kind));
  const points = inOrder.map((place) => ({ place, mark: markOf(place, scale(map)) }));
  const svg = drawn("svg", {
    viewBox: `0 0 ${SIZE.width} ${SIZE.height}`, role: "img", tabindex: "0",
    "aria-label": "Map of query vectors and documents. The arrow keys walk through the query vectors and what they found.",
  }, points.map(({ mark }) => mark));
  const choose = (chosen) => {
    for (const { mark } of points) mark.classList.toggle("chosen", mark === chosen?.mark);
    fill(caption, chosen ? describe(chosen.place, vectors) : []);
  };
  for (const point of points) point.mark.onpointerenter = () => choose(point);
  walk(svg, points, choose);
  const section = element("section", { className: "map" },
    element("h2", {}, "Map"), element("p", { className: "quiet" }, "What lies close is alike"), svg, legend(), caption);
  return { section, show: (id) => choose(points.find(({ place }) => place.id === id)) };
}

/** Arrow keys go through the question's vectors and the hits, from left to right; Escape leaves. */
function walk(svg, points, choose) {
  const stops = points.filter(({ place }) => place.kind !== "neighbour").sort((one, other) => one.place.x - other.place.x);
  let current = -1;
  svg.onkeydown = (event) => {
    if (event.key === "Escape") choose(null);
    if (!(event.key in MOVES)) return;
    event.preventDefault();
    const from = current < 0 && MOVES[event.key] < 0 ? 0 : current;
    current = (from + MOVES[event.key] + stops.length) % stops.length;
    choose(stops[current]);
  };
}

/** From the plane to the picture: as large as both axes allow. */
function scale(map) {
  const axis = (values, size, flip) => {
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const room = size - 2 * SIZE.margin;
    return (value) => SIZE.margin + room * (high === low ? 0.5 : flip ? (high - value) / (high - low) : (value - low) / (high - low));
  };
  const x = axis(map.map((place) => place.x), SIZE.width, false);
  const y = axis(map.map((place) => place.y), SIZE.height, true);
  return (place) => [x(place.x), y(place.y)];
}

function markOf(place, where) {
  const [cx, cy] = where(place).map((value) => value.toFixed(1));
  const own = place.vector === null ? null : colour(place.vector).vector;
  if (place.kind === "encoder") {
    return drawn("path", { class: "encoder", d: `M${cx} ${cy}m-7 0h14m-7 -7v14`, "stroke-linecap": "round" });
  }
  if (place.kind !== "query") {
    const [name, r] = place.kind === "hit" ? ["hit-point", 5.5] : ["neighbour", 3.5];
    return drawn("circle", { class: name, cx, cy, r, "data-vector": own });
  }
  return drawn("g", { "data-vector": own },
    drawn("path", { class: "query", d: `M${cx} ${cy - 14}l14 14l-14 14l-14 -14z` }),
    drawn("text", { x: cx, y: cy }, String(place.vector + 1)));
}

function describe({ kind, vector, id, title, text }, vectors) {
  if (kind === "encoder") return [element("b", {}, "The encoder alone"), "The whole question as one vector"];
  const words = vector === null ? "" : vectors[vector].part;
  if (kind === "query") return [element("b", {}, `Query vector ${vector + 1}`), words];
  return [element("b", {}, title || id), text];
}

function legend() {
  const key = (shape, meaning) => element("span", {}, drawn("svg", { viewBox: "0 0 16 16", "aria-hidden": "true" }, shape), meaning);
  const dot = (name, r) => drawn("circle", { class: name, cx: 8, cy: 8, r });
  return element("p", { className: "legend" },
    key(drawn("path", { class: "query", d: "M8 0l8 8l-8 8l-8 -8z" }), "query vector"),
    key(dot("hit-point", 6), "found"), key(dot("neighbour", 5), "nearby"),
    key(drawn("path", { class: "encoder", d: "M8 1v14M1 8h14" }), "the encoder alone"));
}
