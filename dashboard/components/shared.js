// What several components use. It stands in front of each one's script (see base.py).

function element(tag, name, text) {
  const made = document.createElement(tag);
  if (name) made.className = name;
  if (text !== undefined) made.textContent = text;
  return made;
}

function svg(tag, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined) made.setAttribute(name, value);
  }
  if (text !== undefined) made.textContent = text;
  return made;
}

// Width and height in the element's own pixels: the projector's view enlarges what is around it.
function extent(element) {
  const zoom = element.currentCSSZoom ?? 1;
  const { width, height } = element.getBoundingClientRect();
  return { width: width / zoom, height: height / zoom };
}

// Draw anew whenever the element's size changes. memory: of the component, with its draw().
// Returns what Streamlit calls when the component leaves the page.
function redrawOnResize(memory, watched) {
  if (!memory.observer) {
    memory.observer = new ResizeObserver(() => memory.draw());
    memory.observer.observe(watched);
  }
  return () => {
    memory.observer?.disconnect();
    memory.observer = undefined;
  };
}

// The places nearest to those wanted that are at least `gap` apart and between the limits, as
// charts/base.py has it.
function spread(wanted, gap, low, high) {
  const order = [...wanted.keys()].sort((a, b) => wanted[a] - wanted[b]);
  if (wanted.length > 1) gap = Math.min(gap, (high - low) / (wanted.length - 1));
  const places = [];
  let least = low;
  for (const i of order) {
    places[i] = Math.max(wanted[i], least);
    least = places[i] + gap;
  }
  let most = high;
  for (const i of order.reverse()) {
    places[i] = Math.min(places[i], most);
    most = places[i] - gap;
  }
  return places;
}

const SAVED_STYLES = [
  "fill",
  "stroke",
  "stroke-width",
  "stroke-dasharray",
  "font",
  "opacity",
  "paint-order",
];

// The picture as it is shown: styles are written into a copy, because a file has no theme to ask.
function savePng(root, name) {
  const { width, height } = root.getBoundingClientRect();
  const copy = root.cloneNode(true);
  const shown = [root, ...root.querySelectorAll("*")];
  const copied = [copy, ...copy.querySelectorAll("*")];
  shown.forEach((from, i) => {
    const style = getComputedStyle(from);
    for (const key of SAVED_STYLES) {
      copied[i].style.setProperty(key, style.getPropertyValue(key));
    }
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
  const text = new XMLSerializer().serializeToString(copy);
  picture.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
}
