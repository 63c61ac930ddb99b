// Live curves: small panels that share an x axis (epochs). The element stays; each batch of data
// only redraws its marks.
// data: {run, colour, dash, end, xlabel, alt, arrive, short, panels: [panel]}
// panel: {id, title, alt, kind: "percent" | "bytes" | "number", zero, dense: [y, label] | null,
//         lines: [{style: "line" | "train" | "test" | "dense" | "steps", name,
//                  points: [[x, y, low, high, text, shown, name]]}]}

const MARGIN = { top: 26, right: 70, bottom: 34, left: 52 };
const DIAMONDS = ["test", "dense"]; // styles of points that are no curve
const MANY = 40; // points beyond which intervals are a band, and marks give way to the line

function niceStep(span, wanted) {
  const raw = span / wanted;
  const power = 10 ** Math.floor(Math.log10(raw));
  return power * [1, 2, 5, 10].find((factor) => factor * power >= raw * 0.999);
}

function ticks(low, high, wanted) {
  const step = niceStep(high - low, wanted);
  const places = [];
  for (let at = Math.ceil(low / step - 1e-9) * step; at <= high + step * 1e-9; at += step)
    places.push(Math.abs(at) < step * 1e-9 ? 0 : at);
  return [places, step];
}

function label(kind, value, step) {
  const digits = Math.min(4, Math.max(0, -Math.floor(Math.log10(step) + 1e-9)));
  if (kind === "percent") return `${value.toFixed(digits)} %`;
  if (kind === "bytes")
    return value >= 1e6 ? `${+(value / 1e6).toFixed(2)} MB` : `${+(value / 1e3).toFixed(1)} kB`;
  return value.toFixed(digits);
}

// The range of a panel only grows while one run is watched, so that nothing jumps.
function range(panel, before) {
  const values = panel.lines.flatMap((line) =>
    line.points.flatMap(([, y, low, high]) => [y, low ?? y, high ?? y]),
  );
  if (panel.dense) values.push(panel.dense[0]);
  if (!values.length) return before ?? (panel.kind === "percent" ? [0, 100] : [0, 1]);
  if (panel.zero) values.push(0);
  let low = Math.min(...values),
    high = Math.max(...values);
  if (before) {
    low = Math.min(low, before[0]);
    high = Math.max(high, before[1]);
  }
  if (high - low < 1e-9) {
    high += panel.kind === "percent" ? 1 : Math.abs(high) || 1;
  }
  const step = niceStep(high - low, 4);
  const top =
    panel.kind === "percent"
      ? Math.min(100, Math.ceil(high / step - 1e-9) * step)
      : Math.ceil(high / step - 1e-9) * step;
  return [Math.floor(low / step + 1e-9) * step, Math.max(top, high)];
}

function axes(root, panel, data, box, x, y, [low, high]) {
  const [marks, step] = ticks(low, high, 4);
  for (const at of marks) {
    root.append(svg("line", { class: "grid", x1: box.left, x2: box.right, y1: y(at), y2: y(at) }));
    root.append(
      svg(
        "text",
        { x: box.left - 8, y: y(at) + 4, "text-anchor": "end" },
        label(panel.kind, at, step),
      ),
    );
  }
  const whole = Math.max(
    1,
    niceStep(data.end, Math.max(2, Math.floor((box.right - box.left) / 55))),
  );
  for (let at = 0; at <= data.end + 1e-9; at += whole) {
    root.append(svg("text", { x: x(at), y: box.bottom + 16, "text-anchor": "middle" }, String(at)));
  }
  root.append(svg("text", { x: box.right, y: box.bottom + 31, "text-anchor": "end" }, data.xlabel));
}

function lineColour(line, data) {
  if (line.style === "dense") return "var(--st-text-color)";
  return line.style === "train" ? "var(--quiet)" : data.colour;
}

function drawLine(root, line, data, x, y) {
  const colour = lineColour(line, data);
  const diamonds = DIAMONDS.includes(line.style);
  const path = line.points
    .map(([at, value], i) => `${i ? "L" : "M"}${x(at).toFixed(1)},${y(value).toFixed(1)}`)
    .join("");
  if (!diamonds) {
    const more = line.style === "train" ? {} : { "stroke-dasharray": data.dash };
    // A first point is a dot: nothing leads to it yet.
    const only = line.points.length === 1;
    const d = only ? `${path}h0` : path;
    const name = `line ${line.style}${only ? " only" : ""}`;
    root.append(svg("path", { class: name, d, stroke: colour, ...more }));
  }
  const many = !diamonds && line.points.length > MANY;
  if (many) drawBand(root, line, colour, x, y);
  const named = []; // heights of names: two on one another could not be read
  for (const [at, value, low, high, , shown, name] of many ? [] : line.points) {
    if (low !== null && low !== undefined)
      root.append(
        svg("line", {
          class: "whisker",
          x1: x(at),
          x2: x(at),
          y1: y(low),
          y2: y(high),
          stroke: colour,
        }),
      );
    if (diamonds) {
      root.append(diamond(x(at), y(value), 6, colour));
      if (name && !named.some((py) => Math.abs(py - y(value)) < 14)) {
        root.append(svg("text", { class: "name", x: x(at) + 11, y: y(value) + 4 }, name));
        named.push(y(value));
      }
    } else if (line.style !== "train" && shown !== false) {
      root.append(svg("circle", { cx: x(at), cy: y(value), r: 3.5, fill: colour }));
    }
  }
}

function drawBand(root, line, colour, x, y) {
  const bounded = line.points.filter(([, , low]) => low !== null && low !== undefined);
  if (!bounded.length) return;
  const edge = (points, i) =>
    points.map((p) => `${x(p[0]).toFixed(1)},${y(p[i]).toFixed(1)}`).join("L");
  root.prepend(
    svg("path", {
      class: "band",
      d: `M${edge(bounded, 2)}L${edge([...bounded].reverse(), 3)}Z`,
      fill: colour,
    }),
  );
}

function diamond(px, py, r, colour) {
  const d = `M${px - r},${py}L${px},${py - r}L${px + r},${py}L${px},${py + r}Z`;
  return svg("path", { class: "diamond", d, fill: "var(--st-background-color)", stroke: colour });
}

// What the marks stand for, where a panel has more than one kind.
function drawKey(root, panel, data, box) {
  const named = panel.lines.filter((line) => line.name && line.points.length);
  if (named.length < 2) return;
  const texts = named.map(({ name }) => svg("text", { y: 12 }, name));
  root.append(...texts);
  const widths = texts.map((text) => 40 + (text.getComputedTextLength() || 7 * text.textContent.length));
  const whole = widths.reduce((a, b) => a + b);
  // In a narrow panel the key starts left of the curves rather than end outside.
  let at = Math.max(0, Math.min(box.left, box.right + MARGIN.right - whole));
  named.forEach((line, i) => {
    const stroke = lineColour(line, data);
    if (DIAMONDS.includes(line.style)) root.append(diamond(at + 10, 8, 5, stroke));
    else root.append(svg("path", { class: `line ${line.style}`, d: `M${at},8h20`, stroke }));
    texts[i].setAttribute("x", at + 26);
    at += widths[i];
  });
}

function drawDense(root, panel, box, y) {
  if (!panel.dense) return;
  const [value, text] = panel.dense;
  root.append(
    svg("line", { class: "dense", x1: box.left, x2: box.right, y1: y(value), y2: y(value) }),
  );
  const rows = text.split("\n");
  const top = Math.min(y(value) + 4, box.bottom - 14 * (rows.length - 1));
  rows.forEach((row, i) =>
    root.append(svg("text", { class: "dense", x: box.right + 10, y: top + 14 * i }, row)),
  );
}

function drawPanel(root, panel, data, memory, showTip) {
  const { width, height } = extent(root);
  if (!width) return;
  const box = {
    left: MARGIN.left,
    right: width - MARGIN.right,
    top: MARGIN.top,
    bottom: height - MARGIN.bottom,
  };
  const span = range(panel, memory.ranges[panel.id]);
  if (panel.dense || panel.lines.some((line) => line.points.length)) memory.ranges[panel.id] = span;
  const x = (at) => box.left + ((box.right - box.left) * at) / Math.max(1, data.end);
  const y = (at) => box.bottom - ((box.bottom - box.top) * (at - span[0])) / (span[1] - span[0]);
  root.setAttribute("viewBox", `0 0 ${width} ${height}`);
  root.setAttribute("aria-label", panel.alt);
  root.replaceChildren();
  axes(root, panel, data, box, x, y, span);
  for (const line of panel.lines) drawLine(root, line, data, x, y);
  drawDense(root, panel, box, y);
  drawKey(root, panel, data, box);
  const points = panel.lines
    .flatMap((line) =>
      line.points.filter((p) => p[4]).map((p) => ({ x: x(p[0]), y: y(p[1]), text: p[4] })),
    )
    .sort((a, b) => a.x - b.x);
  listen(root, points, showTip);
}

function listen(root, points, showTip) {
  const pick = (point) => {
    root.__at = points.indexOf(point);
    showTip(root, point);
  };
  root.onpointermove = (event) => {
    const { left, top } = root.getBoundingClientRect();
    const far = (p) => Math.hypot(p.x - (event.clientX - left), (p.y - (event.clientY - top)) / 2);
    if (points.length) pick(points.reduce((a, b) => (far(a) <= far(b) ? a : b)));
  };
  root.onpointerleave = root.onblur = () => showTip(root, null);
  root.onkeydown = (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (event.key === "Escape") return showTip(root, null);
    if (!step || !points.length) return;
    event.preventDefault();
    pick(points[Math.min(points.length - 1, Math.max(0, (root.__at ?? -1) + step))]);
  };
}

function tooltip(live) {
  const tip = live.querySelector(".tip");
  return (root, point) => {
    tip.hidden = !point;
    if (!point) return;
    tip.textContent = point.text;
    const outer = live.getBoundingClientRect();
    const inner = root.getBoundingClientRect();
    const left = inner.left - outer.left + point.x + 12;
    tip.style.left = `${Math.max(0, Math.min(left, outer.width - tip.offsetWidth - 4))}px`;
    tip.style.top = `${inner.top - outer.top + point.y + 14}px`;
  };
}

function build(panels, data) {
  panels.replaceChildren(
    ...data.panels.map((panel) => {
      const figure = document.createElement("figure");
      const caption = document.createElement("figcaption");
      const title = document.createElement("span");
      const save = document.createElement("button");
      save.type = "button";
      save.textContent = "PNG";
      save.setAttribute("aria-label", `Save the picture: ${panel.id}`);
      const picture = svg("svg", { role: "img", tabindex: 0 });
      save.onclick = () => savePng(picture, panel.id);
      caption.append(title, save);
      figure.append(caption, picture);
      return figure;
    }),
  );
}

export default function ({ data, parentElement }) {
  const live = parentElement.querySelector(".live");
  const panels = live.querySelector(".panels");
  panels.classList.toggle("short", Boolean(data.short));
  const memory = (parentElement.__live ??= {});
  const shape = `${data.run}|${data.panels.map((p) => p.id)}`;
  if (memory.shape !== shape) {
    Object.assign(memory, { shape, ranges: {} });
    build(panels, data);
    if (data.arrive) live.scrollIntoView({ block: "start", behavior: "smooth" });
  }
  live.querySelector(".alt").textContent = data.alt;
  panels
    .querySelectorAll("figcaption span")
    .forEach((title, i) => (title.textContent = data.panels[i].title));
  const showTip = tooltip(live);
  memory.draw = () =>
    [...panels.querySelectorAll("svg")].forEach(
      (root, i) => data.panels[i] && drawPanel(root, data.panels[i], data, memory, showTip),
    );
  memory.draw();
  return redrawOnResize(memory, panels);
}
