// Units as a matrix of sparklines: a button each, bars by class. Click or Enter picks; arrows move.
// data: {label, units: [{id, label, note, values, removed, sentence}], chosen: id or null,
//        tones: {bar, below, pale, ground, panel, muted}}

const TALL = 26; // of a sparkline, in pixels; its width is 100 units

// One scale for all, so that units compare; zero lies where the lowest and the highest leave it.
function scale(units) {
  const values = units.flatMap((unit) => unit.values);
  const high = Math.max(0, ...values);
  const low = Math.min(0, ...values);
  const span = high - low || 1;
  return (value) => ((high - value) / span) * (TALL - 2) + 1;
}

function picture(unit, y) {
  const root = svg("svg", { viewBox: `0 0 100 ${TALL}`, preserveAspectRatio: "none", "aria-hidden": "true" });
  const wide = 100 / unit.values.length;
  unit.values.forEach((value, i) => {
    const top = Math.min(y(value), y(0));
    const height = Math.max(Math.abs(y(value) - y(0)), 0.5);
    const name = value < 0 ? "bar under" : "bar";
    root.append(svg("rect", { class: name, x: i * wide + 1, y: top, width: wide - 2, height }));
  });
  root.append(svg("line", { class: "zero", x1: 0, x2: 100, y1: y(0), y2: y(0) }));
  return root;
}

function draw(unit, data, y, choose) {
  const button = element("button", unit.removed ? "unit removed" : "unit");
  button.type = "button";
  button.title = unit.sentence;
  button.setAttribute("aria-label", unit.sentence);
  button.setAttribute("aria-pressed", String(unit.id === data.chosen));
  const head = element("span", "head");
  head.append(element("span", "name", unit.label), element("span", "note", unit.note));
  button.append(head);
  if (unit.values.length) button.append(picture(unit, y));
  button.onclick = () => choose(unit.id);
  return button;
}

export default function ({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector(".sparks");
  for (const [tone, value] of Object.entries(data.tones)) root.style.setProperty(`--${tone}`, value);
  root.setAttribute("aria-label", data.label);
  const y = scale(data.units);
  const choose = (id) => {
    for (const [i, button] of [...root.children].entries())
      button.setAttribute("aria-pressed", String(data.units[i].id === id));
    setTriggerValue("picked", id);
  };
  const focused = [...root.children].indexOf(parentElement.activeElement);
  root.replaceChildren(...data.units.map((unit) => draw(unit, data, y, choose)));
  if (focused >= 0) root.children[focused]?.focus();
  root.onkeydown = (event) => {
    const across = getComputedStyle(root).gridTemplateColumns.split(" ").length;
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: across, ArrowUp: -across }[event.key];
    if (!step) return;
    event.preventDefault();
    const at = [...root.children].indexOf(parentElement.activeElement) + step;
    root.children[Math.min(Math.max(at, 0), root.children.length - 1)]?.focus();
  };
}
