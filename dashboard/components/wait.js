// Says what a page waits for, on the browser's own clock; and draws the page, or the part of it that
// this stands in, anew once the server says that jobs have changed their states.
// data: {numbers: [label], text, times: [[seconds from now, text, share done or null]],
//        question: the address that answers then, or null}

const SLOWEST = 30000; // ms between two messages to Python that came to nothing
const APART = 60; // ms between messages of two elements: Streamlit's client puts nearer ones together
const QUIET = 600; // ms after a press that no run has followed until news may draw the page anew
const LATEST = 4000; // ms that news wait for that at most
const STATE = "data-test-script-state";

// When somebody last pressed or typed something, and when a run began last.
function stir() {
  const stirring = (window.__stirring = { pressed: -Infinity, began: -Infinity });
  const note = () => (stirring.pressed = performance.now());
  for (const kind of ["pointerup", "keyup", "change"]) {
    document.addEventListener(kind, note, { capture: true, passive: true });
  }
  const watch = new MutationObserver(() => drawing() && (stirring.began = performance.now()));
  watch.observe(document.body, { subtree: true, attributeFilter: [STATE] });
  return stirring;
}

function drawing() {
  const state = document.querySelector(`[${STATE}]`)?.getAttribute(STATE);
  return state !== undefined && state !== "notRunning";
}

// Streamlit's server forgets a press when another request comes before the press's run has called
// back: so news wait until what was pressed or typed last has had its run.
function quiet() {
  const { pressed, began } = (window.__stirring ??= stir());
  return !drawing() && (began > pressed || performance.now() - pressed > QUIET);
}

// Calls it once nothing is pressed or drawn.
function whenQuiet(then, until = performance.now() + LATEST) {
  if (quiet() || performance.now() > until) then();
  else setTimeout(() => whenQuiet(then, until), APART);
}

// A tab in the background asks nothing: browsers open few connections to one server.
function whenVisible(signal, then) {
  const look = () => {
    if (document.hidden && !signal.aborted) return;
    document.removeEventListener("visibilitychange", look);
    if (!signal.aborted) then();
  };
  document.addEventListener("visibilitychange", look);
  signal.addEventListener("abort", look);
  look();
}

// One question at a time, answered when something changed (200) or after a while (204). Where no
// answer comes, as behind a proxy that does not pass it on, Python is asked itself, ever more slowly.
function follow(question, signal, tell, tries = 0) {
  const again = () => {
    inTurn(() => signal.aborted || tell());
    const later = Math.min(SLOWEST, 1000 * 1.5 ** tries);
    setTimeout(() => signal.aborted || follow(question, signal, tell, tries + 1), later);
  };
  const answered = ({ status }) => {
    if (status === 204) follow(question, signal, tell);
    else again();
  };
  const failed = () => signal.aborted || again();
  whenVisible(signal, () => {
    fetch(question, { signal, cache: "no-store" }).then(answered, failed);
  });
}

// Each begins its pause when it has been, not when it was asked for: on a busy machine two timers
// are due at once.
function inTurn(then) {
  const turns = (window.__turns ??= []);
  turns.push(then);
  if (turns.length === 1) next(turns);
}

function next(turns) {
  whenQuiet(() => {
    try {
      turns[0]();
    } finally {
      setTimeout(() => {
        turns.shift();
        if (turns.length) next(turns);
      }, APART);
    }
  });
}

function ask(memory, question) {
  if (memory.question === question) return;
  memory.stop?.abort();
  memory.question = question;
  if (!question) return;
  memory.stop = new AbortController();
  follow(question, memory.stop.signal, () => memory.tell());
}

function say(memory, root, { text, times }) {
  const key = JSON.stringify([text, times]);
  if (memory.key !== key) Object.assign(memory, { key, began: performance.now() });
  clearTimeout(memory.timer);
  if (!times.length) return;
  const bar = root.querySelector(".bar");
  const tick = () => {
    const passed = (performance.now() - memory.began) / 1000;
    const next = times.findIndex(([at]) => at > passed);
    const [, time, share] = times.at(next < 0 ? -1 : Math.max(0, next - 1));
    root.querySelector(".said").textContent = `${text} ${time}`;
    bar.hidden = share === null;
    bar.setAttribute("aria-valuenow", String(Math.round(100 * (share ?? 0))));
    root.querySelector(".done").style.transform = `scaleX(${share ?? 0})`;
    if (next >= 0) memory.timer = setTimeout(tick, 1000 * (times[next][0] - passed));
  };
  tick();
}

export default function ({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector(".wait");
  const memory = (parentElement.__wait ??= {});
  window.__stirring ??= stir();
  memory.tell = () => setTriggerValue("changed", data.question);
  root.querySelector(".numbers").replaceChildren(
    ...data.numbers.map((label) => {
      const box = element("div", "number", label);
      box.append(element("div", "blank"));
      return box;
    }),
  );
  say(memory, root, data);
  ask(memory, data.question);
  return () => {
    clearTimeout(memory.timer);
    memory.stop?.abort();
    memory.question = undefined;
  };
}
