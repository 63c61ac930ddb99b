// A layer's weights as a histogram, with the threshold as a handle. All that moves with it is looked
// up in a table that Python computed, for each stop of the recipe's share: dragging asks nobody.
// data: {name, edges: [low, high], counts, log, thresholds: [stop], at: the layer's row, index,
//        stops: [share], names: [[id, label]], totals, kept: [stop][layer], low: [count],
//        labels: {stops, weights, bytes}, beside: {weights, bytes}}

const RIM = { left: 60, right: 8, top: 24, bottom: 42 };
const WHOLE = new Intl.NumberFormat("en-GB");
const SHORT = new Intl.NumberFormat("en-GB", { notation: "compact", maximumFractionDigits: 1 });
const KEYS = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10 };
const NUMBERS = [
  ["weights", "Weights kept"],
  ["bytes", "Sparse file"],
];
const TYPING = 250; // ms after the last key until it counts as let go

const digits = (value) => String(Number(value.toPrecision(3)));

// Two to six round numbers between the limits.
function ticks(low, high) {
  const rough = (high - low) / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((each) => each * power >= rough);
  const first = Math.ceil(low / step);
  const count = Math.floor(high / step) - first + 1;
  return Array.from({ length: count }, (_, i) => (first + i) * step);
}

// Where values lie in the picture, in pixels.
function scales(data, width, height) {
  const [low, high] = data.edges;
  const inner = width - RIM.left - RIM.right;
  const floor = height - RIM.bottom;
  const top = Math.max(1, ...data.counts);
  const part = data.log
    ? (count) => (count < 0.5 ? 0 : Math.log10(count / 0.5) / Math.log10((1.03 * top) / 0.5))
    : (count) => count / (1.05 * top);
  return {
    x: (weight) => RIM.left + ((weight - low) / (high - low)) * inner,
    weight: (x) => low + ((x - RIM.left) / inner) * (high - low),
    y: (count) => floor - part(count) * (floor - RIM.top),
    floor,
    top,
  };
}

function drawBars(root, data, scale) {
  const [low, high] = data.edges;
  const wide = (high - low) / data.counts.length;
  const steps = data.counts.map((count, i) => {
    const [left, right] = [scale.x(low + i * wide), scale.x(low + (i + 1) * wide)];
    return count ? `M${left} ${scale.floor}V${scale.y(count)}H${right}V${scale.floor}Z` : "";
  });
  for (const path of root.querySelectorAll("path")) path.setAttribute("d", steps.join(""));
}

function drawAxes(axes, data, scale, width) {
  const counts = data.log
    ? Array.from({ length: Math.floor(Math.log10(scale.top)) + 1 }, (_, i) => 10 ** i)
    : ticks(0, scale.top);
  const across = ticks(...data.edges).map((weight) =>
    svg("text", { x: scale.x(weight), y: scale.floor + 17, "text-anchor": "middle" }, digits(weight)),
  );
  const upright = counts.flatMap((count) => {
    const y = scale.y(count);
    return [
      svg("line", { x1: RIM.left, x2: width - RIM.right, y1: y, y2: y }),
      svg("text", { x: RIM.left - 6, y: y + 4, "text-anchor": "end" }, SHORT.format(count)),
    ];
  });
  const middle = { x: (RIM.left + width - RIM.right) / 2, y: (RIM.top + scale.floor) / 2 };
  const below = { x: middle.x, y: scale.floor + 36, "text-anchor": "middle" };
  const turned = `translate(14 ${middle.y}) rotate(-90)`;
  const beside = `weights in each bin${data.log ? " (log)" : ""}`;
  axes.replaceChildren(
    ...upright,
    ...across,
    svg("text", below, "weight"),
    svg("text", { transform: turned, "text-anchor": "middle" }, beside),
  );
}

function place(parts, data, scale, index) {
  const threshold = data.thresholds[index];
  const reach = Math.min(threshold, data.edges[1]);
  const [left, right] = [scale.x(-reach), scale.x(reach)];
  const within = parts.root.querySelector("clipPath rect");
  within.setAttribute("x", left);
  within.setAttribute("y", RIM.top - 6);
  within.setAttribute("width", right - left);
  within.setAttribute("height", scale.floor - RIM.top + 6);
  const sides = [
    ["low", left, "−", -4],
    ["high", right, "+", 4],
  ];
  for (const [name, x, sign, gap] of sides) {
    const line = parts.root.querySelector(`.edge.${name}`);
    const ends = { x1: x, x2: x, y1: RIM.top - 6, y2: scale.floor };
    for (const [key, value] of Object.entries(ends)) line.setAttribute(key, value);
    const text = parts.root.querySelector(`.value.${name}`);
    text.setAttribute("x", Math.min(Math.max(x + gap, 40), parts.width - 40));
    text.setAttribute("y", RIM.top - 8);
    text.textContent = `${sign}${digits(threshold)}`;
  }
  parts.knob.setAttribute("cx", right);
  parts.knob.setAttribute("cy", (RIM.top + scale.floor) / 2);
}

function tell(parts, data, index) {
  const kept = data.kept[index];
  const total = data.totals[data.at];
  const removed = total - kept[data.at];
  const share = ((100 * removed) / total).toFixed(1);
  const of = `${WHOLE.format(removed)} of ${WHOLE.format(total)} weights (${share} %)`;
  parts.title.textContent = removed
    ? `${data.name}: ${of} removed, within ±${digits(data.thresholds[index])}`
    : `${data.name}: nothing is pruned, ${WHOLE.format(total)} weights kept`;
  parts.numbers.replaceChildren(
    ...NUMBERS.map(([kind, label]) => {
      const box = element("div", "number", `${label} `);
      box.append(element("b", "", data.labels[kind][index]));
      box.append(element("span", "", ` ${data.beside[kind][index]}`));
      return box;
    }),
  );
  [...parts.bars.children].forEach((row, i) => {
    const part = kept[i] / data.totals[i];
    row.querySelector(".share-kept").style.transform = `scaleX(${part})`;
    row.querySelector(".count").textContent = WHOLE.format(kept[i]);
    row.querySelector(".share").textContent = `${(100 * part).toFixed(1)} %`;
  });
  parts.knob.setAttribute("aria-valuemin", 0);
  parts.knob.setAttribute("aria-valuemax", data.stops.length - 1);
  parts.knob.setAttribute("aria-valuenow", index);
  const recipe = `${data.labels.stops[index]} by the recipe`;
  parts.knob.setAttribute("aria-valuetext", `${parts.title.textContent}; ${recipe}`);
}

function rows(data) {
  return data.names.map(([id, label], i) => {
    const row = element("div", i === data.at ? "row chosen" : "row");
    row.setAttribute("role", "listitem");
    const name = element("div", "layer", label);
    name.title = id;
    const track = element("div", "track");
    track.append(element("div", "share-kept"));
    row.append(name, track, element("div", "count"), element("div", "share"));
    return row;
  });
}

// The stop whose threshold is nearest; of equal ones the nearest to the present.
function nearest(data, weight, present) {
  let best = present;
  const off = (i) => Math.abs(data.thresholds[i] - weight);
  data.thresholds.forEach((_, i) => {
    const closer = Math.abs(i - present) < Math.abs(best - present);
    if (off(i) < off(best) || (off(i) === off(best) && closer)) best = i;
  });
  return best;
}

export default function ({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector(".threshold");
  const picture = root.querySelector(".picture");
  const parts = {
    root,
    title: root.querySelector(".title"),
    numbers: root.querySelector(".numbers"),
    bars: root.querySelector(".bars"),
    knob: root.querySelector(".knob"),
  };
  const memory = (parentElement.__threshold ??= { dragging: false });
  if (!memory.dragging) memory.index = data.index;
  parts.bars.replaceChildren(...rows(data));

  memory.draw = () => {
    const { width, height } = extent(picture);
    if (!width) return;
    parts.width = width;
    memory.scale = scales(data, width, height);
    drawBars(root, data, memory.scale);
    drawAxes(root.querySelector(".axes"), data, memory.scale, width);
    show();
  };
  const show = () => {
    place(parts, data, memory.scale, memory.index);
    tell(parts, data, memory.index);
  };
  const move = (index) => {
    memory.index = Math.min(Math.max(index, 0), data.stops.length - 1);
    cancelAnimationFrame(memory.frame);
    memory.frame = requestAnimationFrame(show);
  };
  const release = () => {
    memory.dragging = false;
    if (memory.index !== data.index) setTriggerValue("ratio", data.stops[memory.index]);
  };
  const weightAt = (event) =>
    memory.scale.weight(event.clientX - picture.getBoundingClientRect().left);
  // On the side of zero on which it was taken: beyond zero nothing is pruned.
  const follow = (event) => {
    const weight = Math.max(0, memory.side * weightAt(event));
    move(nearest(data, weight, memory.index));
  };

  picture.onpointerdown = (event) => {
    if (event.button) return;
    picture.setPointerCapture(event.pointerId);
    memory.dragging = true;
    memory.side = weightAt(event) < 0 ? -1 : 1;
    follow(event);
  };
  picture.onpointermove = (event) => {
    if (memory.dragging) follow(event);
  };
  picture.onpointerup = release;
  picture.onpointercancel = () => {
    memory.dragging = false; // the page scrolls: nothing was meant
    move(data.index);
  };
  parts.knob.onkeydown = (event) => {
    const ends = { Home: 0, End: data.stops.length - 1 };
    const index = ends[event.key] ?? memory.index + (KEYS[event.key] ?? NaN);
    if (Number.isNaN(index)) return;
    event.preventDefault();
    move(index);
    clearTimeout(memory.timer);
    memory.timer = setTimeout(release, TYPING);
  };
  root.querySelector(".save").onclick = () => savePng(picture, `weights-${data.name}`);
  memory.draw();
  return redrawOnResize(memory, picture);
}
