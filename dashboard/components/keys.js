// The button for the list of keyboard shortcuts; "?" anywhere on the page does the same.

// Whoever is writing means the character.
function isWriting(event) {
  return event.composedPath().some((at) => at.isContentEditable || at.matches?.("input, textarea"));
}

export default function ({ parentElement, setTriggerValue }) {
  const ask = () => setTriggerValue("help", true);
  const pressed = (event) => {
    if (event.key === "?" && !event.ctrlKey && !event.metaKey && !isWriting(event)) ask();
  };
  parentElement.querySelector(".keys").onclick = ask;
  // This function runs at each drawing, and the page listens once.
  const memory = (parentElement.__keys ??= {});
  memory.stop?.();
  document.addEventListener("keydown", pressed);
  memory.stop = () => document.removeEventListener("keydown", pressed);
  return memory.stop;
}
