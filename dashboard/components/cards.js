// A choice as cards: radio buttons in groups, each with a drawing, a name and a sentence. Arrows move, as in any radio group.
// data: {label, chosen, look, groups: [{title, cards: [{id, name, text, more, off, swatch, drawing: {kind, values} | null}]}]}
// look: "long", a sentence on each; "short", drawings side by side; "chips", names side by side. The sentence of the chosen one, or of
// the one that is pointed at, then stands below. off: why it cannot be chosen.

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

function card(held, group, look) {
  const label = element("label", held.off ? "out" : "");
  const input = element("input");
  Object.assign(input, { type: "radio", name: group, value: held.id, disabled: Boolean(held.off) });
  input.setAttribute("aria-label", `${held.name}: ${held.text} ${held.off || held.more}`.trim());
  const name = element("span", "name");
  if (held.swatch) {
    const dot = element("i");
    dot.style.setProperty("--swatch", held.swatch);
    name.append(dot);
  }
  name.append(held.name);
  label.append(input);
  if (held.drawing && look !== "chips") label.append(draw(held.drawing));
  label.append(name);
  if (look === "long") label.append(sentences(held, element("span", "text")));
  if (look === "long" && !held.drawing) for (const part of label.querySelectorAll(".name, .text")) part.style.gridColumn = "1 / -1";
  return label;
}

function sentences(held, into) {
  into.replaceChildren(held.text);
  const more = held.off || held.more;
  if (more) into.append(element("span", held.off ? "more why" : "more", more));
  return into;
}

// Side by side there is room for one sentence: that of the chosen card, or of the one pointed at.
function tell(root, data, id) {
  const all = data.groups.flatMap(({ cards }) => cards);
  const shown = all.find((held) => held.id === id) ?? all.find((held) => held.id === data.chosen);
  const said = root.querySelector(".said");
  if (!said) return;
  said.replaceChildren();
  if (!shown) return;
  if (shown.drawing && data.look === "chips") said.append(draw(shown.drawing));
  said.append(sentences(shown, element("span", "text")));
}

function build(root, data) {
  root.setAttribute("aria-label", data.label);
  root.replaceChildren(...data.groups.map(({ title, cards }) => {
    const group = element("fieldset");
    if (title) group.append(element("legend", "", title));
    const deck = element("div", `deck ${data.look}`);
    deck.append(...cards.map((held) => card(held, data.label, data.look)));
    group.append(deck);
    return group;
  }));
  if (data.look !== "long") root.append(element("div", "said"));
}

export default function ({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector(".cards");
  const held = (parentElement.__cards ??= {});
  const built = JSON.stringify([data.groups, data.label, data.look]);
  if (held.built !== built) {
    build(root, data);
    held.built = built;
  }
  for (const input of root.querySelectorAll("input")) input.checked = input.value === data.chosen;
  tell(root, data);
  root.onpointerover = ({ target }) => tell(root, data, target.closest("label")?.querySelector("input").value);
  root.onpointerleave = () => tell(root, data);
  root.onchange = ({ target }) => { // taken out now: an event forgets its target once it is over
    clearTimeout(held.timer);
    held.timer = setTimeout(() => setTriggerValue("picked", target.value), held.keyboard ? 250 : 0);
  };
  root.onkeydown = () => { held.keyboard = true; };
  root.onpointerdown = () => { held.keyboard = false; };
}
