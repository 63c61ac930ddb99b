// A choice as cards: radio buttons in groups, each with a drawing, a name and a sentence. Arrows
// move, as in any radio group.
// data: {label, chosen, look, groups: [{title, cards:
//        [{id, name, text, more, off, swatch, mark, drawing: {kind, values} | null}]}]}
// look: "long", a sentence on each; "short", drawings side by side; "chips", names side by side.
// The sentence of the chosen one, or of the one that is pointed at, then stands below.
// off: why it cannot be chosen.

const SIDE = 44;

// values: rows of 1 (kept) and 0 (removed)
function grid(root, rows) {
  const cell = SIDE / rows.length;
  rows.forEach((row, y) =>
    row.forEach((kept, x) => {
      root.append(
        svg("rect", {
          x: x * cell + 1,
          y: y * cell + 1,
          width: cell - 2,
          height: cell - 2,
          rx: 1,
          class: kept ? "on" : "off",
        }),
      );
    }),
  );
}

// values: [height in 0..1, share of it that is kept]
function bars(root, values) {
  const wide = SIDE / values.length;
  values.forEach(([high, kept], i) => {
    const tall = (SIDE - 3) * high;
    const filled = tall * kept;
    const box = { x: i * wide + 1, width: wide - 2, rx: 1 };
    if (kept < 1)
      root.append(svg("rect", { ...box, y: SIDE - 1 - tall, height: tall, class: "off" }));
    if (kept > 0)
      root.append(svg("rect", { ...box, y: SIDE - 1 - filled, height: filled, class: "on" }));
  });
}

// values: shares at evenly spaced moments
function curve(root, values) {
  const at = (v, i) => `${2 + (i * (SIDE - 4)) / (values.length - 1)},${SIDE - 3 - v * (SIDE - 8)}`;
  root.append(svg("line", { class: "axis", x1: 1, x2: SIDE, y1: SIDE - 1, y2: SIDE - 1 }));
  root.append(svg("polyline", { class: "curve", points: values.map(at).join(" ") }));
}

const DRAW = { grid, bars, curve };

function draw(drawing) {
  const root = svg("svg", { viewBox: `0 0 ${SIDE} ${SIDE}`, "aria-hidden": "true" });
  DRAW[drawing.kind](root, drawing.values);
  return root;
}

// plotly's markers, in a box from -6 to 6
const MARKS = {
  circle: "M-4.5,0a4.5,4.5 0 1 0 9,0a4.5,4.5 0 1 0 -9,0Z",
  square: "M-4.2,-4.2H4.2V4.2H-4.2Z",
  diamond: "M0,-5.8L5.8,0L0,5.8L-5.8,0Z",
  cross: "M-5.4,-1.8H-1.8V-5.4H1.8V-1.8H5.4V1.8H1.8V5.4H-1.8V1.8H-5.4Z",
  x: "M0,-2.5L3,-5.5L5.5,-3L2.5,0L5.5,3L3,5.5L0,2.5L-3,5.5L-5.5,3L-2.5,0L-5.5,-3L-3,-5.5Z",
  "triangle-up": "M0,-5.5L5.6,4.2H-5.6Z",
  "triangle-down": "M0,5.5L5.6,-4.2H-5.6Z",
  pentagon: "M0,-5.4L5.1,-1.7L3.2,4.4H-3.2L-5.1,-1.7Z",
  star: "M0,-6L1.4,-1.9H5.7L2.3,0.7L3.5,4.9L0,2.4L-3.5,4.9L-2.3,0.7L-5.7,-1.9H-1.4Z",
};

// How the technique is drawn in every chart.
function drawMark(card) {
  const root = svg("svg", { viewBox: "-6 -6 12 12", class: "mark", "aria-hidden": "true" });
  root.append(svg("path", { d: MARKS[card.mark] ?? MARKS.circle, fill: card.swatch }));
  return root;
}

function drawCard(card, group, look) {
  const label = element("label", card.off ? "out" : "");
  const input = element("input");
  Object.assign(input, { type: "radio", name: group, value: card.id, disabled: Boolean(card.off) });
  input.setAttribute("aria-label", `${card.name}: ${card.text} ${card.off || card.more}`.trim());
  const name = element("span", "name");
  if (card.mark) name.append(drawMark(card));
  name.append(card.name);
  label.append(input);
  if (card.drawing && look !== "chips") label.append(draw(card.drawing));
  label.append(name);
  if (look === "long") label.append(sentences(card, element("span", "text")));
  if (look === "long" && !card.drawing)
    for (const part of label.querySelectorAll(".name, .text")) part.style.gridColumn = "1 / -1";
  return label;
}

function sentences(card, into) {
  into.replaceChildren(card.text);
  const more = card.off || card.more;
  if (more) into.append(element("span", card.off ? "more why" : "more", more));
  return into;
}

// Side by side there is room for one sentence: that of the chosen card, or of the one pointed at.
function showSentence(root, data, id) {
  const all = data.groups.flatMap(({ cards }) => cards);
  const shown = all.find((card) => card.id === id) ?? all.find((card) => card.id === data.chosen);
  const line = root.querySelector(".sentence");
  if (!line) return;
  line.replaceChildren();
  if (!shown) return;
  if (shown.drawing && data.look === "chips") line.append(draw(shown.drawing));
  line.append(sentences(shown, element("span", "text")));
}

function build(root, data) {
  root.setAttribute("aria-label", data.label);
  root.replaceChildren(
    ...data.groups.map(({ title, cards }) => {
      const group = element("fieldset");
      if (title) group.append(element("legend", "", title));
      const deck = element("div", `deck ${data.look}`);
      deck.append(...cards.map((card) => drawCard(card, data.label, data.look)));
      group.append(deck);
      return group;
    }),
  );
  if (data.look !== "long") root.append(element("div", "sentence"));
}

export default function ({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector(".cards");
  const memory = (parentElement.__cards ??= {});
  const built = JSON.stringify([data.groups, data.label, data.look]);
  if (memory.built !== built) {
    build(root, data);
    memory.built = built;
  }
  for (const input of root.querySelectorAll("input")) input.checked = input.value === data.chosen;
  showSentence(root, data);
  root.onpointerover = ({ target }) =>
    showSentence(root, data, target.closest("label")?.querySelector("input").value);
  root.onpointerleave = () => showSentence(root, data);
  root.onchange = ({ target }) => {
    // An event forgets its target once it is over: the value is read now. Arrow keys pass over
    // cards on their way, so they get a moment before the choice is sent.
    const { value } = target;
    clearTimeout(memory.timer);
    memory.timer = setTimeout(() => setTriggerValue("picked", value), memory.keyboard ? 250 : 0);
  };
  root.onkeydown = () => {
    memory.keyboard = true;
  };
  root.onpointerdown = () => {
    memory.keyboard = false;
  };
}
