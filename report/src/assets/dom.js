// Elements. All text goes in as text nodes, so nothing that a recording holds is ever markup.

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") Object.assign(element.style, value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  const flat = children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);
  element.append(...flat);
  return element;
}

function h(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function s(tag, attributes, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function byId(id) {
  return document.getElementById(id);
}

// Bytes, with the exact number on hover.
function bytesText(n) {
  return h("span", { title: Format.exactBytes(n) }, Format.bytes(n));
}

// A type's name that may be broken between its parts, not inside of a word.
function breakable(name) {
  return name.split(/(?<=::|[<,&(])/).flatMap((part, at) => (at > 0 ? [h("wbr"), part] : [part]));
}

// A length of time, with the exact number on hover.
function durationText(ns) {
  return h("span", { title: `${Format.count(ns)} ns` }, Format.duration(ns));
}

// A row of buttons of which one is chosen.
function choice(label, options, chosen, choose) {
  const button = ([key, text]) =>
    h("button", { type: "button", "data-key": `${label} ${key}`, "aria-pressed": String(key === chosen), onclick: () => choose(key) }, text);
  return h("div", { class: "choice", role: "group", "aria-label": label }, options.map(button));
}

// A horizontal bar for a share from 0 to 1.
function bar(share, kind = "") {
  const width = `${Math.min(100, Math.max(0.6, share * 100))}%`;
  return h("span", { class: `bar ${kind}`, "aria-hidden": "true" }, share > 0 && h("span", { style: { width } }));
}

// A table that may be wider than its place: it scrolls sideways in a box whose edge shows that there is more.
const edges = new ResizeObserver((entries) => entries.forEach(({ target }) => showEdge(target.closest(".scroll"))));

function showEdge(box) {
  box?.parentElement?.classList.toggle("more-right", box.scrollWidth - box.clientWidth - box.scrollLeft > 2);
}

function sideways(table, kind = "") {
  const box = h("div", { class: `scroll ${kind}`, onscroll: () => showEdge(box) }, table);
  edges.observe(box);
  edges.observe(table);
  return h("div", { class: "sideways" }, box);
}

// The rows of a long list in steps: the first ones, then as many more as are asked for.
function inSteps(items, first, render, place, button) {
  let shown = 0;
  const more = h("button", { type: "button", class: "more" });
  const step = (n) => {
    const end = Math.min(items.length, shown + n);
    const rows = document.createDocumentFragment();
    for (; shown < end; shown++) rows.append(...[render(items[shown], shown)].flat());
    place.append(rows);
    const rest = items.length - shown;
    more.hidden = rest === 0;
    more.textContent = `Show ${Format.count(Math.min(rest, first * 4))} more of ${Format.count(rest)}`;
  };
  more.addEventListener("click", () => step(first * 4));
  step(first);
  button.append(more);
}

// Draws anew and leaves the keyboard's focus on the button that has it.
function keepingFocus(place, draw) {
  const key = place.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  draw();
  if (key) place.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus({ preventScroll: true });
}
