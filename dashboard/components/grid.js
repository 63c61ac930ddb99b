// The sensitivity map, as a map (layers by ratios, coloured by accuracy) or as curves (a line for
// each layer). The element stays; each batch of data only redraws its marks. Point to read, click
// or Enter to pick, arrows to move, Backspace to take a row's ratio back.
// data: {name, title, mode: "map" | "curves", pick, selected, levels: [text], shares: [0..1],
//        stops: [colour], ticks: [[place, text]], rows: [row], dense, tolerated: accuracy | null,
//        alt, tones}
// row: {id, label, short, side, fixed, at, colour,
//       cells: [{place, size, guess, text, y, low, high, say} | null]}

const HEAD = 26;
const FOOT = 46;
const NAME_LINE = 16; // pixels of a name beside the curves
const TALLEST = 900; // pixels of the curves

function mix(stops, place) {
  const at = Math.min(1, Math.max(0, place)) * (stops.length - 1);
  const low = Math.floor(at);
  const part = at - low;
  const rgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
  const a = rgb(stops[low]);
  const b = rgb(stops[Math.min(low + 1, stops.length - 1)]);
  return a.map((v, i) => Math.round(v + (b[i] - v) * part));
}

const css = (rgb) => `rgb(${rgb.join(",")})`;

// Black or white, whichever is read better: with a contrast of 4.58 at least (as colours.ink).
function ink(rgb) {
  const [red, green, blue] = rgb.map((value) => {
    const part = value / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.1791 ? "#000000" : "#ffffff";
}

function shorten(text, most) {
  return text.length <= most
    ? text
    : `${text.slice(0, Math.ceil(most / 2) - 1)}…${text.slice(-Math.floor(most / 2))}`;
}

// ---------------------------------------------------------------- the map

function shape(data, width) {
  const many = data.rows.length;
  const tall = many > 60 ? 15 : many > 16 ? 22 : 30;
  const longest = Math.max(...data.rows.map((row) => row.short.length), 4);
  const side = width > 620 && tall > 15 ? 104 : 0;
  const left = Math.min(Math.max(60, 7.6 * longest + 14), width * 0.32);
  return {
    tall,
    left,
    side,
    wide: (width - left - side - 8) / data.shares.length,
    letters: Math.floor((left - 14) / 7.4),
  };
}

function defs(root, data) {
  const made = svg("defs", {});
  const off = svg("pattern", {
    id: "off",
    width: 7,
    height: 7,
    patternUnits: "userSpaceOnUse",
    patternTransform: "rotate(45)",
  });
  off.append(
    svg("rect", { width: 7, height: 7, fill: "transparent" }),
    svg("line", { x1: 0, x2: 0, y1: 0, y2: 7, stroke: data.tones.grid, "stroke-width": 4 }),
  );
  const guess = svg("pattern", {
    id: "guess",
    width: 6,
    height: 6,
    patternUnits: "userSpaceOnUse",
    patternTransform: "rotate(45)",
  });
  guess.append(svg("line", { class: "hatch", x1: 0, x2: 0, y1: 0, y2: 6 }));
  const scale = svg("linearGradient", { id: "scale" });
  data.stops.forEach((colour, i) =>
    scale.append(svg("stop", { offset: i / (data.stops.length - 1), "stop-color": colour })),
  );
  made.append(off, guess, scale);
  root.append(made);
}

function drawCell(root, cell, box, open) {
  const { x, y, wide, tall } = box;
  root.append(svg("rect", { class: "empty", x, y, width: wide, height: tall, rx: 2 }));
  if (!cell) return;
  const rgb = mix(cell.stops, cell.place);
  const inset = ((1 - cell.size) * Math.min(wide, tall)) / 2;
  const at = {
    x: x + inset,
    y: y + inset,
    width: wide - 2 * inset,
    height: tall - 2 * inset,
    rx: 2,
  };
  root.append(svg("rect", { class: open ? "cell open" : "cell", ...at, fill: css(rgb) }));
  if (cell.guess)
    root.append(svg("rect", { ...at, fill: "url(#guess)", "pointer-events": "none" }));
  if (cell.text && tall >= 20 && wide >= 34 && cell.size > 0.5) {
    root.append(
      svg(
        "text",
        {
          class: "value",
          x: x + wide / 2,
          y: y + tall / 2 + 4,
          "text-anchor": "middle",
          style: `fill:${ink(rgb)}`,
        },
        cell.text,
      ),
    );
  }
}

// Where a share lies on the axis of columns: a column stands for one ratio, and a share between two
// ratios lies between their columns.
function along(shares, share) {
  const after = shares.findIndex((one) => one >= share - 1e-9);
  if (after < 0) return shares.length - 0.5;
  const low = after ? shares[after - 1] : 0;
  const high = shares[after];
  return after - 0.5 + (high > low ? (share - low) / (high - low) : 1);
}

function drawMap(root, data, width, memory) {
  const box = shape(data, width);
  const height = HEAD + data.rows.length * box.tall + FOOT;
  root.setAttribute("viewBox", `0 0 ${width} ${height}`);
  root.setAttribute("height", height);
  defs(root, data);
  data.levels.forEach((text, j) =>
    root.append(
      svg(
        "text",
        {
          class: "quiet",
          x: box.left + (j + 0.5) * box.wide,
          y: HEAD - 9,
          "text-anchor": "middle",
        },
        text,
      ),
    ),
  );
  data.rows.forEach((row, i) => {
    const y = HEAD + i * box.tall;
    const name = svg(
      "text",
      {
        x: box.left - 8,
        y: y + box.tall / 2 + 4,
        "text-anchor": "end",
        class: row.fixed ? "quiet" : "",
      },
      shorten(row.short, box.letters),
    );
    if (row.id === data.selected) name.setAttribute("font-weight", 700);
    if (box.tall < 18) name.setAttribute("style", "font-size:11px");
    root.append(name);
    if (box.side)
      root.append(
        svg("text", { class: "quiet", x: width - box.side + 6, y: y + box.tall / 2 + 4 }, row.side),
      );
    if (row.fixed) {
      root.append(
        svg("rect", {
          class: "fixed",
          x: box.left,
          y: y + 1,
          width: box.wide * data.shares.length - 2,
          height: box.tall - 2,
          rx: 2,
        }),
      );
      return;
    }
    row.cells.forEach((cell, j) => {
      const place = {
        x: box.left + j * box.wide + 1,
        y: y + 1,
        wide: box.wide - 2,
        tall: box.tall - 2,
      };
      drawCell(root, cell && { ...cell, stops: data.stops }, place, data.pick);
    });
  });
  data.rows.forEach((row, i) => drawMark(root, data, row, i, box));
  legend(root, data, box, height, width);
  if (memory.at) cursor(root, box, memory.at);
  memory.box = box;
}

// The ratio that the recipe takes: a ring around its cell, or a pin where it lies between two.
function drawMark(root, data, row, i, box) {
  if (!row.at || row.fixed) return;
  const y = HEAD + i * box.tall;
  const exact = data.shares.findIndex((share) => Math.abs(share - row.at) < 5e-4);
  if (exact < 0) {
    const x = box.left + (along(data.shares, row.at) + 0.5) * box.wide;
    const foot = y + box.tall - 1;
    root.append(
      svg("path", {
        class: "pin",
        d: `M${x - 6},${foot}L${x},${foot - 9}L${x + 6},${foot}Z`,
        "data-at": row.id,
      }),
    );
    return;
  }
  const at = {
    x: box.left + exact * box.wide + 2,
    width: box.wide - 4,
    y: y + 2,
    height: box.tall - 4,
    rx: 2,
    "data-at": row.id,
  };
  for (const name of ["under", "ring"]) root.append(svg("rect", { class: name, ...at }));
}

function cursor(root, box, [i, j]) {
  root.append(
    svg("rect", {
      class: "cursor",
      x: box.left + j * box.wide,
      y: HEAD + i * box.tall,
      width: box.wide,
      height: box.tall,
      rx: 3,
    }),
  );
}

function legend(root, data, box, height, width) {
  const y = height - FOOT + 12;
  const left = box.left;
  const long = Math.min(240, width - left - 60);
  root.append(svg("rect", { x: left, y, width: long, height: 9, rx: 2, fill: "url(#scale)" }));
  for (const [place, text] of data.ticks) {
    const at =
      place > 0.99
        ? { x: left + long + 6, y: y + 9 }
        : { x: left + place * long, y: y + 23, "text-anchor": "middle" };
    root.append(svg("text", { class: "quiet", ...at }, text));
  }
  root.append(
    svg("text", { class: "quiet", x: left - 8, y: y + 9, "text-anchor": "end" }, "accuracy"),
  );
  if (width - left - long < 300) return;
  const more = [
    ["url(#guess)", "estimate"],
    [null, "in the recipe"],
  ];
  let x = left + long + 92;
  for (const [fill, text] of more) {
    if (fill)
      root.append(svg("rect", { x, y: y - 2, width: 13, height: 13, rx: 2, fill: data.stops[6] }));
    root.append(
      svg(
        "rect",
        fill
          ? { x, y: y - 2, width: 13, height: 13, rx: 2, fill }
          : { class: "ring", x: x + 1, y: y - 1, width: 11, height: 11, rx: 2 },
      ),
    );
    root.append(svg("text", { class: "quiet", x: x + 20, y: y + 9 }, text));
    x += 40 + 6.6 * text.length;
  }
}

// ---------------------------------------------------------------- curves

function drawCurves(root, data, width, memory) {
  const rows = data.rows.filter((row) => !row.fixed);
  // A line of text for each name at the right, two more for dense and tolerated.
  const height = Math.min(TALLEST, Math.max(440, NAME_LINE * (rows.length + 2) + 58));
  const names = Math.min(0.3 * width, 7.4 * Math.max(...rows.map((row) => row.short.length), 9) + 30);
  const box = { left: 54, right: width - names, top: 14, bottom: height - 44 };
  root.setAttribute("viewBox", `0 0 ${width} ${height}`);
  root.setAttribute("height", height);
  const x = (share) => box.left + (box.right - box.left) * share;
  const y = (value) => box.bottom - (box.bottom - box.top) * Math.max(0, value);
  for (let at = 0; at <= 1.001; at += 0.2) {
    root.append(svg("line", { class: "rule", x1: box.left, x2: box.right, y1: y(at), y2: y(at) }));
    root.append(
      svg(
        "text",
        { class: "quiet", x: box.left - 8, y: y(at) + 4, "text-anchor": "end" },
        `${Math.round(at * 100)} %`,
      ),
    );
    root.append(
      svg(
        "text",
        { class: "quiet", x: x(at), y: box.bottom + 18, "text-anchor": "middle" },
        `${Math.round(at * 100)} %`,
      ),
    );
  }
  root.append(
    svg(
      "text",
      { class: "quiet", x: box.right, y: box.bottom + 36, "text-anchor": "end" },
      "removed from this layer alone",
    ),
  );
  memory.dots = [];
  const chosen = memory.at ? data.rows[memory.at[0]]?.id : data.selected;
  const ends = [];
  for (const row of [
    ...rows.filter((one) => one.id !== chosen),
    ...rows.filter((one) => one.id === chosen),
  ]) {
    const end = drawLine(root, row, data, x, y, chosen, memory);
    if (end) ends.push({ ...end, text: row.short, colour: row.colour, bold: row.id === chosen });
  }
  for (const [name, value] of [
    ["dense", data.dense],
    ["tolerated", data.tolerated],
  ]) {
    if (value === null) continue;
    root.append(
      svg("line", { class: name, x1: box.left, x2: box.right, y1: y(value), y2: y(value) }),
    );
    ends.push({ x: box.right, y: y(value), text: name, quiet: true });
  }
  nameEnds(root, ends, box, Math.floor((names - 26) / 7.2));
}

// Each line's name at its end, moved up or down where two would lie on each other; a thin line
// joins the two. Names without room are read by pointing: the chosen one always has room.
function nameEnds(root, ends, box, letters) {
  const most = Math.floor((box.bottom - box.top) / NAME_LINE) + 1;
  const first = [...ends].sort((a, b) => Boolean(b.bold || b.quiet) - Boolean(a.bold || a.quiet));
  const shown = first.slice(0, most);
  const places = spread(
    shown.map((end) => end.y),
    NAME_LINE,
    box.top,
    box.bottom,
  );
  shown.forEach((end, i) => {
    const level = places[i];
    const left = box.right + 18;
    if (!end.quiet || Math.abs(level - end.y) > 2)
      root.append(
        svg("polyline", {
          class: "leader",
          points: `${end.x + 4},${end.y} ${box.right + 4},${end.y} ${left - 3},${level}`,
          stroke: end.colour ?? "currentColor",
        }),
      );
    const text = shorten(end.text, letters);
    const at = { x: left, y: level + 4, class: end.quiet ? "quiet" : "" };
    root.append(svg("text", end.bold ? { ...at, "font-weight": 700 } : at, text));
  });
}

function drawLine(root, row, data, x, y, chosen, memory) {
  const known = row.cells.map((cell, j) => cell && !cell.guess && { ...cell, j }).filter(Boolean);
  if (data.dense === null || !known.length) return null;
  const mine = row.id === chosen;
  const style = chosen ? (mine ? "chosen" : "other") : "";
  const path = [[0, data.dense], ...known.map((cell) => [data.shares[cell.j], cell.y])];
  root.append(
    svg("path", {
      class: `line ${style}`,
      d: path.map(([a, b], i) => `${i ? "L" : "M"}${x(a).toFixed(1)},${y(b).toFixed(1)}`).join(""),
      stroke: row.colour,
    }),
  );
  for (const cell of known) {
    const at = { x: x(data.shares[cell.j]), y: y(cell.y) };
    memory.dots.push({ ...at, i: data.rows.indexOf(row), j: cell.j });
    if (mine)
      root.append(
        svg("line", {
          class: "whisker",
          x1: at.x,
          x2: at.x,
          y1: y(cell.low),
          y2: y(cell.high),
          stroke: row.colour,
        }),
      );
    if (mine || !chosen)
      root.append(svg("circle", { cx: at.x, cy: at.y, r: mine ? 4 : 2.5, fill: row.colour }));
  }
  const last = path[path.length - 1];
  return { x: x(last[0]), y: y(last[1]) };
}

// ---------------------------------------------------------------- reading and picking

function nearest(root, data, memory, event) {
  const { left, top, width } = root.getBoundingClientRect();
  const px = event.clientX - left;
  const py = event.clientY - top;
  if (data.mode === "curves") {
    const far = (dot) => Math.hypot(dot.x - px, dot.y - py);
    const best = memory.dots?.length
      ? memory.dots.reduce((a, b) => (far(a) <= far(b) ? a : b))
      : null;
    return best && far(best) < 60 ? [best.i, best.j] : null;
  }
  const box = memory.box ?? shape(data, width);
  const i = Math.floor((py - HEAD) / box.tall);
  const j = Math.floor((px - box.left) / box.wide);
  if (i < 0 || i >= data.rows.length) return null;
  return data.rows[i].fixed ? [i, 0] : j >= 0 && j < data.shares.length ? [i, j] : null;
}

function sentence(data, at) {
  if (!at) return "";
  const row = data.rows[at[0]];
  if (!row) return "";
  if (row.fixed) return `${row.label} stays dense: ${row.fixed}`;
  return row.cells[at[1]]?.say ?? `${row.label} at ${data.levels[at[1]]}: not known yet.`;
}

function place(tip, grid, event) {
  const outer = grid.getBoundingClientRect();
  const left = event.clientX - outer.left + 14;
  tip.style.left = `${Math.max(0, Math.min(left, outer.width - tip.offsetWidth - 4))}px`;
  tip.style.top = `${event.clientY - outer.top + 18}px`;
}

function listen(memory) {
  const { root, grid, tip, line } = memory;
  // aloud: in the line below, which a screen reader follows; otherwise beside the pointer.
  const read = (at, aloud) => {
    const text = sentence(memory.data, at);
    if (aloud) line.textContent = text || hint(memory.data);
    tip.hidden = aloud || !text;
    tip.textContent = text;
  };
  const pick = (at) => {
    const row = memory.data.rows[at[0]];
    if (!memory.data.pick || !row || row.fixed) return;
    const share = memory.data.shares[at[1]];
    memory.send({
      layer: row.id,
      share: row.at !== null && Math.abs(row.at - share) < 5e-4 ? 0 : share,
    });
  };
  root.onpointermove = (event) => {
    const at = nearest(root, memory.data, memory, event);
    if (String(at) !== String(memory.at)) {
      memory.at = at;
      memory.draw();
    }
    read(at, false);
    place(tip, grid, event);
  };
  root.onpointerleave = () => {
    memory.at = null;
    memory.draw();
    read(null, false);
  };
  root.onclick = (event) => {
    const at = nearest(root, memory.data, memory, event);
    if (at) {
      read(at, true);
      pick(at);
    }
  };
  root.onblur = () => {
    memory.at = null;
    memory.draw();
    read(null, true);
  };
  root.onkeydown = (event) => {
    const step = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[
      event.key
    ];
    if (step) {
      event.preventDefault();
      const [i, j] = memory.at ?? [0, -1];
      memory.at = [
        Math.min(Math.max(i + step[0], 0), memory.data.rows.length - 1),
        Math.min(Math.max(j + step[1], 0), memory.data.shares.length - 1),
      ];
      memory.draw();
      read(memory.at, true);
    } else if (memory.at && (event.key === "Enter" || event.key === " ")) {
      event.preventDefault();
      pick(memory.at);
    } else if (memory.at && (event.key === "Backspace" || event.key === "Delete")) {
      event.preventDefault();
      const row = memory.data.rows[memory.at[0]];
      if (memory.data.pick && row && !row.fixed && row.at) memory.send({ layer: row.id, share: 0 });
    }
  };
}

function hint(data) {
  const what = data.mode === "curves" ? "point of a curve" : "cell";
  return data.pick
    ? `Point at a ${what} to read it; click it, or use arrows and Enter, to set that ratio.`
    : `Point at a ${what} to read it.`;
}

export default function ({ data, parentElement, setTriggerValue }) {
  const grid = parentElement.querySelector(".grid");
  const memory = (parentElement.__grid ??= {});
  const first = !memory.root;
  Object.assign(memory, {
    data,
    grid,
    root: grid.querySelector("svg"),
    tip: grid.querySelector(".tip"),
    line: grid.querySelector(".sentence"),
  });
  memory.send = (cell) => setTriggerValue("picked", cell);
  grid.style.setProperty("--mark", data.tones.mark);
  grid.querySelector(".alt").textContent = data.alt;
  grid.querySelector(".title").textContent = data.title;
  grid.querySelector(".save").setAttribute("aria-label", `Save the picture: ${data.title}`);
  grid.querySelector(".save").onclick = () => savePng(memory.root, data.name);
  memory.root.setAttribute("role", "application");
  memory.root.setAttribute("aria-label", `${data.alt} ${hint(data)}`);
  memory.draw = () => {
    const { width } = extent(memory.root);
    if (!width) return;
    memory.root.replaceChildren();
    (memory.data.mode === "curves" ? drawCurves : drawMap)(memory.root, memory.data, width, memory);
  };
  memory.draw();
  listen(memory);
  if (first) memory.line.textContent = hint(data);
  return redrawOnResize(memory, grid);
}
