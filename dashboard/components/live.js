// Live curves: small panels that share an x axis (epochs). The element stays; each batch of data only redraws its marks.
// data: {run, colour, dash, end, xlabel, alt, arrive, panels: [{id, title, alt, kind: "percent" | "bytes" | "number", zero, dense: [y, label] | null,
//        lines: [{style: "line" | "train" | "test" | "steps", name, points: [[x, y, low, high, text, shown, name]]}]}]}

const NS = "http://www.w3.org/2000/svg";
const MARGIN = { top: 26, right: 44, bottom: 34, left: 52 };
const MANY = 40; // points beyond which intervals are a band, and marks give way to the line

function svg(tag, attributes, text) {
  const made = document.createElementNS(NS, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function niceStep(span, wanted) {
  const raw = span / wanted;
  const power = 10 ** Math.floor(Math.log10(raw));
  return power * [1, 2, 5, 10].find((factor) => factor * power >= raw * 0.999);
}

function ticks(low, high, wanted) {
  const step = niceStep(high - low, wanted);
  const found = [];
  for (let at = Math.ceil(low / step - 1e-9) * step; at <= high + step * 1e-9; at += step) found.push(Math.abs(at) < step * 1e-9 ? 0 : at);
  return [found, step];
}

function label(kind, value, step) {
  const digits = Math.min(4, Math.max(0, -Math.floor(Math.log10(step) + 1e-9)));
  if (kind === "percent") return `${value.toFixed(digits)} %`;
  if (kind === "bytes") return value >= 1e6 ? `${+(value / 1e6).toFixed(2)} MB` : `${+(value / 1e3).toFixed(1)} kB`;
  return value.toFixed(digits);
}

// The range of a panel only grows while one run is watched, so that nothing jumps.
function range(panel, held) {
  const values = panel.lines.flatMap((line) => line.points.flatMap(([, y, low, high]) => [y, low ?? y, high ?? y]));
  if (panel.dense) values.push(panel.dense[0]);
  if (!values.length) return held ?? (panel.kind === "percent" ? [0, 100] : [0, 1]);
  if (panel.zero) values.push(0);
  let low = Math.min(...values), high = Math.max(...values);
  if (held) { low = Math.min(low, held[0]); high = Math.max(high, held[1]); }
  if (high - low < 1e-9) { high += panel.kind === "percent" ? 1 : Math.abs(high) || 1; }
  const step = niceStep(high - low, 4);
  const top = panel.kind === "percent" ? Math.min(100, Math.ceil(high / step - 1e-9) * step) : Math.ceil(high / step - 1e-9) * step;
  return [Math.floor(low / step + 1e-9) * step, Math.max(top, high)];
}

function axes(root, panel, data, box, x, y, [low, high]) {
  const [marks, step] = ticks(low, high, 4);
  for (const at of marks) {
    root.append(svg("line", { class: "grid", x1: box.left, x2: box.right, y1: y(at), y2: y(at) }));
    root.append(svg("text", { x: box.left - 8, y: y(at) + 4, "text-anchor": "end" }, label(panel.kind, at, step)));
  }
  const whole = Math.max(1, niceStep(data.end, Math.max(2, Math.floor((box.right - box.left) / 55))));
  for (let at = 0; at <= data.end + 1e-9; at += whole) {
    root.append(svg("text", { x: x(at), y: box.bottom + 16, "text-anchor": "middle" }, String(at)));
  }
  root.append(svg("text", { x: box.right, y: box.bottom + 31, "text-anchor": "end" }, data.xlabel));
}

function drawLine(root, line, data, x, y) {
  const colour = line.style === "train" ? "var(--quiet)" : data.colour;
  const path = line.points.map(([at, value], i) => `${i ? "L" : "M"}${x(at).toFixed(1)},${y(value).toFixed(1)}`).join("");
  if (line.style !== "test") {
    const more = line.style === "train" ? {} : { "stroke-dasharray": data.dash };
    root.append(svg("path", { class: `line ${line.style}`, d: path, stroke: colour, ...more }));
  }
  const many = line.style !== "test" && line.points.length > MANY;
  if (many) drawBand(root, line, colour, x, y);
  const named = []; // heights of names: one on the other could not be read
  for (const [at, value, low, high, , shown, name] of many ? [] : line.points) {
    if (low !== null && low !== undefined) root.append(svg("line", { class: "whisker", x1: x(at), x2: x(at), y1: y(low), y2: y(high), stroke: colour }));
    if (line.style === "test") {
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
  const held = line.points.filter(([, , low]) => low !== null && low !== undefined);
  if (!held.length) return;
  const edge = (points, i) => points.map((p) => `${x(p[0]).toFixed(1)},${y(p[i]).toFixed(1)}`).join("L");
  root.prepend(svg("path", { class: "band", d: `M${edge(held, 2)}L${edge([...held].reverse(), 3)}Z`, fill: colour }));
}

function diamond(px, py, r, colour) {
  const d = `M${px - r},${py}L${px},${py - r}L${px + r},${py}L${px},${py + r}Z`;
  return svg("path", { class: "diamond", d, fill: "var(--st-background-color)", stroke: colour });
}

// What the marks stand for, where a panel has more than one kind.
function drawKey(root, panel, data, box) {
  const named = panel.lines.filter((line) => line.name && line.points.length);
  if (named.length < 2) return;
  let at = box.left;
  for (const { style, name } of named) {
    if (style === "test") root.append(diamond(at + 10, 8, 5, data.colour));
    else root.append(svg("path", { class: `line ${style}`, d: `M${at},8h20`, stroke: style === "train" ? "var(--quiet)" : data.colour }));
    const text = svg("text", { x: at + 26, y: 12 }, name);
    root.append(text);
    at += 42 + (text.getComputedTextLength() || 7 * name.length);
  }
}

function drawDense(root, panel, box, y) {
  if (!panel.dense) return;
  const [value, text] = panel.dense;
  root.append(svg("line", { class: "dense", x1: box.left, x2: box.right, y1: y(value), y2: y(value) }));
  root.append(svg("text", { class: "dense", x: box.right + 6, y: y(value) + 4 }, text));
}

function drawPanel(root, panel, data, held, say) {
  const { width, height } = root.getBoundingClientRect();
  if (!width) return;
  const box = { left: MARGIN.left, right: width - MARGIN.right, top: MARGIN.top, bottom: height - MARGIN.bottom };
  const span = range(panel, held.ranges[panel.id]);
  if (panel.dense || panel.lines.some((line) => line.points.length)) held.ranges[panel.id] = span;
  const x = (at) => box.left + ((box.right - box.left) * at) / Math.max(1, data.end);
  const y = (at) => box.bottom - ((box.bottom - box.top) * (at - span[0])) / (span[1] - span[0]);
  root.setAttribute("viewBox", `0 0 ${width} ${height}`);
  root.setAttribute("aria-label", panel.alt);
  root.replaceChildren();
  axes(root, panel, data, box, x, y, span);
  for (const line of panel.lines) drawLine(root, line, data, x, y);
  drawDense(root, panel, box, y);
  drawKey(root, panel, data, box);
  const points = panel.lines.flatMap((line) => line.points.filter((p) => p[4]).map((p) => ({ x: x(p[0]), y: y(p[1]), text: p[4] }))).sort((a, b) => a.x - b.x);
  listen(root, points, say);
}

function listen(root, points, say) {
  const pick = (point) => {
    root.__at = points.indexOf(point);
    say(root, point);
  };
  root.onpointermove = (event) => {
    const { left, top } = root.getBoundingClientRect();
    const far = (p) => Math.hypot(p.x - (event.clientX - left), (p.y - (event.clientY - top)) / 2);
    if (points.length) pick(points.reduce((a, b) => (far(a) <= far(b) ? a : b)));
  };
  root.onpointerleave = root.onblur = () => say(root, null);
  root.onkeydown = (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (event.key === "Escape") return say(root, null);
    if (!step || !points.length) return;
    event.preventDefault();
    pick(points[Math.min(points.length - 1, Math.max(0, (root.__at ?? -1) + step))]);
  };
}

function teller(live) {
  const tip = live.querySelector(".tip");
  return (root, point) => {
    tip.hidden = !point;
    if (!point) return;
    tip.textContent = point.text;
    const outer = live.getBoundingClientRect(), inner = root.getBoundingClientRect();
    const left = inner.left - outer.left + point.x + 12;
    tip.style.left = `${Math.max(0, Math.min(left, outer.width - tip.offsetWidth - 4))}px`;
    tip.style.top = `${inner.top - outer.top + point.y + 14}px`;
  };
}

// The picture as it is shown: styles are written into a copy, because a file has no theme to ask.
function savePng(root, name) {
  const { width, height } = root.getBoundingClientRect();
  const copy = root.cloneNode(true);
  const seen = [root, ...root.querySelectorAll("*")], made = [copy, ...copy.querySelectorAll("*")];
  seen.forEach((from, i) => {
    const style = getComputedStyle(from);
    for (const key of ["fill", "stroke", "stroke-width", "stroke-dasharray", "font", "opacity", "paint-order"]) made[i].style.setProperty(key, style.getPropertyValue(key));
  });
  copy.setAttribute("width", width);
  copy.setAttribute("height", height);
  const picture = new Image();
  picture.onload = () => {
    const canvas = document.createElement("canvas");
    canvas.width = 2 * width;
    canvas.height = 2 * height;
    const pen = canvas.getContext("2d");
    pen.fillStyle = getComputedStyle(root).getPropertyValue("--st-background-color") || "white";
    pen.fillRect(0, 0, canvas.width, canvas.height);
    pen.drawImage(picture, 0, 0, canvas.width, canvas.height);
    const link = document.createElement("a");
    link.href = canvas.toDataURL("image/png");
    link.download = `${name}.png`;
    link.click();
  };
  picture.src = "data:image/svg+xml;charset=utf-8," + encodeURIComponent(new XMLSerializer().serializeToString(copy));
}

function build(panels, data) {
  panels.replaceChildren(...data.panels.map((panel) => {
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
  }));
}

export default function ({ data, parentElement }) {
  const live = parentElement.querySelector(".live");
  const panels = live.querySelector(".panels");
  const held = (parentElement.__live ??= {});
  const shape = `${data.run}|${data.panels.map((p) => p.id)}`;
  if (held.shape !== shape) {
    Object.assign(held, { shape, ranges: {} });
    build(panels, data);
    if (data.arrive) live.scrollIntoView({ block: "start", behavior: "smooth" });
  }
  live.querySelector(".alt").textContent = data.alt;
  panels.querySelectorAll("figcaption span").forEach((title, i) => (title.textContent = data.panels[i].title));
  const say = teller(live);
  held.draw = () => [...panels.querySelectorAll("svg")].forEach((root, i) => data.panels[i] && drawPanel(root, data.panels[i], data, held, say));
  held.draw();
  if (!held.watch) {
    held.watch = new ResizeObserver(() => held.draw());
    held.watch.observe(panels);
  }
  return () => {
    held.watch?.disconnect();
    held.watch = undefined;
  };
}
