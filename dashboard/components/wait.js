// Says what a page waits for, on the browser's own clock; and draws the page, or the part of it that
// this stands in, anew once the server says that jobs have changed their states.
// data: {numbers: [label], text, times: [[seconds from now, text, share done or null]],
//        question: the address that answers then, or null}

const SLOWEST = 30000; // ms between two messages to Python that came to nothing
const APART = 60; // ms between messages of two elements: Streamlit's client puts nearer ones together

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
  try {
    turns[0]();
  } finally {
    setTimeout(() => {
      turns.shift();
      if (turns.length) next(turns);
    }, APART);
  }
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
