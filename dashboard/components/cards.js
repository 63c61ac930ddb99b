// A choice as cards: radio buttons in groups, each with a drawing, a name and a sentence. Arrows move, as in any radio group.
// data: {label, chosen, short, groups: [{title, cards: [{id, name, text, more, swatch, drawing: {kind, values} | null}]}]}

const NS = "http://www.w3.org/2000/svg";
const SIDE = 44;

function element(tag, name, text) {
  const made = document.createElement(tag);
  if (name) made.className = name;
  if (text) made.textContent = text;
  return made;
}

function mark(tag, attributes) {
  const made = document.createElementNS(NS, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

// values: rows of 1 (stays) and 0 (goes)
function grid(root, rows) {
  const cell = SIDE / rows.length;
  rows.forEach((row, y) => row.forEach((stays, x) => {
    root.append(mark("rect", { x: x * cell + 1, y: y * cell + 1, width: cell - 2, height: cell - 2, rx: 1, class: stays ? "on" : "off" }));
  }));
}

// values: [height in 0..1, share of it that stays]
function bars(root, values) {
  const wide = SIDE / values.length;
  values.forEach(([high, stays], i) => {
    const tall = (SIDE - 3) * high, filled = tall * stays, box = { x: i * wide + 1, width: wide - 2, rx: 1 };
    if (stays < 1) root.append(mark("rect", { ...box, y: SIDE - 1 - tall, height: tall, class: "off" }));
    if (stays > 0) root.append(mark("rect", { ...box, y: SIDE - 1 - filled, height: filled, class: "on" }));
  });
}

// values: shares at evenly spaced moments
function curve(root, values) {
  const at = (v, i) => `${2 + (i * (SIDE - 4)) / (values.length - 1)},${SIDE - 3 - v * (SIDE - 8)}`;
  root.append(mark("line", { class: "axis", x1: 1, x2: SIDE, y1: SIDE - 1, y2: SIDE - 1 }));
  root.append(mark("polyline", { class: "curve", points: values.map(at).join(" ") }));
}

const DRAW = { grid, bars, curve };

function draw(drawing) {
  const root = mark("svg", { viewBox: `0 0 ${SIDE} ${SIDE}`, "aria-hidden": "true" });
  DRAW[drawing.kind](root, drawing.values);
  return root;
}

function card(held, group) {
  const label = element("label");
  const input = element("input");
  Object.assign(input, { type: "radio", name: group, value: held.id });
  input.setAttribute("aria-label", `${held.name}: ${held.text} ${held.more}`.trim());
  const name = element("span", "name");
  if (held.swatch) {
    const dot = element("i");
    dot.style.setProperty("--swatch", held.swatch);
    name.append(dot);
  }
  name.append(held.name);
  const text = element("span", "text", held.text);
  if (held.more) text.append(element("span", "more", held.more));
  label.append(input, ...(held.drawing ? [draw(held.drawing)] : []), name, text);
  if (!held.drawing) for (const part of [name, text]) part.style.gridColumn = "1 / -1";
  return label;
}

// Side by side there is room for one sentence: that of the chosen card.
function tell(root, data) {
  const chosen = data.groups.flatMap(({ cards }) => cards).find(({ id }) => id === data.chosen);
  root.querySelector(".said").textContent = chosen ? `${chosen.text} ${chosen.more}`.trim() : "";
}

function build(root, data) {
  root.setAttribute("aria-label", data.label);
  root.replaceChildren(...data.groups.map(({ title, cards }) => {
    const group = element("fieldset");
    if (title) group.append(element("legend", "", title));
    const deck = element("div", data.short ? "deck short" : "deck");
    deck.append(...cards.map((held) => card(held, data.label)));
    group.append(deck);
    if (data.short) group.append(element("p", "said"));
    return group;
  }));
}

export default function ({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector(".cards");
  const held = (parentElement.__cards ??= {});
  const built = JSON.stringify([data.groups, data.label, data.short]);
  if (held.built !== built) {
    build(root, data);
    held.built = built;
  }
  for (const input of root.querySelectorAll("input")) input.checked = input.value === data.chosen;
  if (data.short) tell(root, data);
  root.onchange = ({ target }) => { // taken out now: an event forgets its target once it is over
    clearTimeout(held.timer);
    held.timer = setTimeout(() => setTriggerValue("picked", target.value), held.keyboard ? 250 : 0);
  };
  root.onkeydown = () => { held.keyboard = true; };
  root.onpointerdown = () => { held.keyboard = false; };
}
