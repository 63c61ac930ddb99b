// The button that leaves the projector's view; Esc does the same, unless it closes something else.
// It also says how high the window is: letters are to be as large as a room needs them.
// data: {height}, that the page was drawn for

const NEAR = 60; // pixels
const OPEN = '[role="dialog"], [role="listbox"], [aria-expanded="true"]';

export default function ({ data, parentElement, setTriggerValue }) {
  const leave = () => setTriggerValue("leave", true);
  const pressed = (event) => {
    if (event.key === "Escape" && !document.querySelector(OPEN)) leave();
  };
  parentElement.querySelector(".leave").onclick = leave;
  const height = window.innerHeight;
  if (Math.abs(height - data.height) > NEAR) setTriggerValue("height", height);
  // This function runs at each drawing, and the page listens once.
  const memory = (parentElement.__leave ??= {});
  memory.stop?.();
  // Before a list closes: afterwards nothing would be open any more.
  document.addEventListener("keydown", pressed, true);
  memory.stop = () => document.removeEventListener("keydown", pressed, true);
  return memory.stop;
}
