// How nodes are made: text is always text, so that no document can bring markup along.
const SVG = "http://www.w3.org/2000/svg";

/** An HTML element with properties and children: nodes, texts, null for none. */
export function element(name, properties, ...children) {
  const { data = {}, aria = {}, ...own } = properties;
  const node = Object.assign(document.createElement(name), own);
  Object.assign(node.dataset, data);
  for (const [key, value] of Object.entries(aria)) node.setAttribute(`aria-${key}`, value);
  return fill(node, children);
}

/** An SVG element with attributes and children. */
export function drawn(name, attributes, ...children) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) if (value !== null) node.setAttribute(key, value);
  return fill(node, children);
}

/** Put children in place of those a node has. */
export function fill(node, children) {
  node.replaceChildren(...children.flat().filter((child) => child !== null));
  return node;
}

/** The colour of a query vector, counted from 0: those beyond the eighth take the colours again. */
export const colour = (vector) => ({ vector: vector % 8 });
