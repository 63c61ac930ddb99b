// Comes into view when `data.shown` changes, not when it is first drawn.

export default function ({ data, parentElement }) {
  const memory = (parentElement.__top ??= { shown: data.shown });
  if (memory.shown === data.shown) return;
  memory.shown = data.shown;
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  parentElement
    .querySelector(".top")
    .scrollIntoView({ block: "start", behavior: still ? "instant" : "smooth" });
}
