// The strip of layers: a block for each, as wide as its weights. Click or Enter selects; arrows
// move.
// data: {blocks: [{id, short, weights, kept: share or null, colour, sentence}], chosen,
//        height: of the blocks, in pixels, legend: [[text, colour]], tones: {pale, paler, ink, muted, ground}}

const UPRIGHT = 17; // pixels of a block that an upright name fits

function draw(block, data, choose) {
  const button = element("button", "block");
  button.type = "button";
  button.title = block.sentence;
  button.setAttribute("aria-label", block.sentence);
  button.setAttribute("aria-pressed", String(block.id === data.chosen));
  button.style.setProperty("--colour", block.colour);
  button.style.flexGrow = Math.max(block.weights, 1);
  button.style.flexBasis = 0;
  const kept = block.kept ?? 1;
  button.classList.toggle("part", kept < 1);
  const fill = element("span", "fill");
  fill.style.height = `${100 * kept}%`;
  const name = element("span", kept < 0.6 ? "name on-pale" : "name");
  name.append(element("span", "text", block.short));
  button.append(fill, name);
  button.onclick = () => choose(block.id);
  return button;
}

// A name lies along its block where it fits, stands upright where the block is narrow, and gives way
// to the sentence below where it is narrower still.
function fitNames(row) {
  const names = [...row.children].map((button) => button.querySelector(".name"));
  for (const name of names) name.classList.remove("upright", "none");
  const narrow = names.filter((name) => name.scrollWidth > name.parentElement.clientWidth + 1);
  const upright = narrow.filter((name) => name.parentElement.clientWidth >= UPRIGHT);
  for (const name of narrow) name.classList.add(upright.includes(name) ? "upright" : "none");
}

export default function (component) {
  const { data, parentElement, setTriggerValue } = component;
  const root = parentElement.querySelector(".strip");
  const row = root.querySelector(".blocks");
  const line = root.querySelector(".sentence");
  const legend = root.querySelector(".legend");
  for (const [tone, value] of Object.entries(data.tones))
    root.style.setProperty(`--${tone}`, value);
  root.style.setProperty("--blocks", `${data.height}px`);
  root.classList.toggle("dense", data.blocks.length > 24);

  const sentence = (id) =>
    (data.blocks.find((block) => block.id === id) ?? data.blocks[0])?.sentence ?? "";
  const choose = (id) => {
    for (const [i, button] of [...row.children].entries())
      button.setAttribute("aria-pressed", String(data.blocks[i].id === id));
    line.textContent = sentence(id);
    setTriggerValue("picked", id);
  };
  const focused = [...row.children].indexOf(parentElement.activeElement);
  row.replaceChildren(...data.blocks.map((block) => draw(block, data, choose)));
  if (focused >= 0) row.children[focused]?.focus();
  line.textContent = sentence(data.chosen);
  legend.replaceChildren(
    ...data.legend.map(([text, colour]) => {
      const entry = element("span", colour ? "" : "removed", text);
      if (colour) entry.style.setProperty("--swatch", colour);
      return entry;
    }),
  );
  row.onkeydown = (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const at = [...row.children].indexOf(parentElement.activeElement);
    row.children[Math.min(Math.max(at + step, 0), row.children.length - 1)]?.focus();
  };
  fitNames(row);
  return redrawOnResize({ draw: () => fitNames(row) }, row);
}
