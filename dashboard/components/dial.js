// The slider of the share to remove. Every number shown comes from a table that Python computed:
// dragging looks rows up and asks nobody.
// A release does not draw it anew: what it shows then is kept here, and counts until the page is drawn
// after that release. Both count them: it is the page's turn while its number is the newer one.
// data: {index, turn, stops: [share], labels: {stops, weights, macs, bytes}, beside: {weights, macs,
//        bytes}, names: [[id, label]], notes, totals, kept: [stop][layer], low: [count], chosen,
//        fixed: no slider, locked: why it cannot be moved, or ""}

const KINDS = [
  ["weights", "Weights kept"],
  ["macs", "MACs kept"],
  ["bytes", "Sparse file"],
];
const whole = new Intl.NumberFormat("en-GB");

function buildNumbers(root) {
  root.replaceChildren(
    ...KINDS.map(([kind, title]) => {
      const box = element("div", "number");
      const large = element("div", "large");
      large.dataset.kind = kind;
      const beside = element("div", "dense");
      beside.dataset.beside = kind;
      box.append(element("div", "name", title), large, beside);
      return box;
    }),
  );
}

function buildRows(root, data, choose) {
  root.replaceChildren(
    ...data.names.map(([id, label], i) => {
      const row = element("div", "row");
      row.setAttribute("role", "listitem");
      row.classList.toggle("chosen", id === data.chosen);
      const name = element("button", "", label);
      name.type = "button";
      name.title = data.notes[i] || id;
      name.setAttribute("aria-pressed", String(id === data.chosen));
      name.onclick = () => choose(id);
      const track = element("div", "track");
      track.append(element("div", "kept"));
      row.append(name, track, element("div", "count"), element("div", "share"));
      return row;
    }),
  );
}

function buildTicks(root, stops) {
  const marks = [0, 0.25, 0.5, 0.75, 0.9, 0.99].map((share) => [
    share,
    stops.findIndex((s) => Math.abs(s - share) < 1e-9),
  ]);
  root.replaceChildren(
    ...marks
      .filter(([, at]) => at >= 0)
      .map(([share, at]) => {
        const mark = element("span", "", `${Math.round(share * 100)} %`);
        mark.style.left = `${(100 * at) / Math.max(1, stops.length - 1)}%`;
        return mark;
      }),
  );
}

function show(parts, data, index) {
  const kept = data.kept[index];
  const end = Math.max(1, data.stops.length - 1);
  parts.range.value = String(index);
  parts.range.style.setProperty("--at", `calc(0.6875rem + (100% - 1.375rem) * ${index / end})`);
  parts.range.setAttribute(
    "aria-valuetext",
    `${data.labels.stops[index]} removed, ${data.labels.weights[index]} weights kept`,
  );
  for (const large of parts.numbers.querySelectorAll(".large"))
    large.textContent = data.labels[large.dataset.kind][index];
  for (const beside of parts.numbers.querySelectorAll(".dense"))
    beside.textContent = data.beside[beside.dataset.beside][index];
  [...parts.bars.children].forEach((row, i) => {
    const share = kept[i] / data.totals[i];
    row.querySelector(".kept").style.transform = `scaleX(${share})`;
    row.querySelector(".count").textContent = whole.format(kept[i]);
    row.querySelector(".share").textContent = `${(100 * share).toFixed(1)} %`;
    row.classList.toggle("low", kept[i] <= data.low[i] && kept[i] < data.totals[i]);
  });
}

export default function ({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector(".dial");
  const parts = {
    slide: root.querySelector(".slide"),
    range: root.querySelector("input"),
    numbers: root.querySelector(".numbers"),
    bars: root.querySelector(".bars"),
  };
  const memory = (parentElement.__dial ??= { dragging: false });
  const built = JSON.stringify([data.names, data.chosen, data.notes]);
  if (memory.built !== built) {
    buildNumbers(parts.numbers);
    buildRows(parts.bars, data, (id) => setTriggerValue("layer", id));
    memory.built = built;
  }
  buildTicks(root.querySelector(".ticks"), data.stops);
  parts.slide.hidden = data.fixed;
  parts.range.disabled = Boolean(data.locked);
  parts.range.title = data.locked;
  parts.range.max = String(data.stops.length - 1);
  // On the window: React may take the element away and bring it back with the data that it had.
  const own = (window.__dial ??= { turn: data.turn });
  if (own.turn <= data.turn) Object.assign(own, { turn: data.turn, index: data.index });
  const release = () => {
    memory.dragging = false;
    const index = Number(parts.range.value);
    if (index === own.index) return;
    Object.assign(own, { index, turn: own.turn + 1 });
    setTriggerValue("ratio", { share: data.stops[index], turn: own.turn });
  };
  parts.range.oninput = () => {
    memory.dragging = true;
    cancelAnimationFrame(memory.frame);
    memory.frame = requestAnimationFrame(() => show(parts, data, Number(parts.range.value)));
  };
  parts.range.onchange = () => {
    clearTimeout(memory.timer);
    memory.timer = setTimeout(release, memory.keyboard ? 250 : 0);
  };
  parts.range.onkeydown = () => {
    memory.keyboard = true;
  };
  parts.range.onpointerdown = () => {
    memory.keyboard = false;
  }; // in braces: a handler that returns false forbids the drag
  if (!memory.dragging) show(parts, data, own.index);
}
