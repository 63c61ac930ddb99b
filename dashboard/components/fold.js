// Folds the sidebar where the window is too narrow for it and the page together (a projector, a
// tablet), and unfolds it when the window grows again. Streamlit itself does so only on phones.
// Whoever opens it themselves keeps it open until the window crosses the limit once more.

const NARROW = "(max-width: 1199px)";
const FOLDED = "folded-by-width"; // in this browser: we folded it, so we may unfold it

const button = (test) => document.querySelector(`[data-testid="${test}"]`);

function follow(narrow) {
  const collapse = button("stSidebarCollapseButton")?.querySelector("button");
  const expand = button("stExpandSidebarButton");
  if (narrow && collapse && !expand) {
    collapse.click();
    localStorage.setItem(FOLDED, "yes");
  } else if (!narrow && expand && localStorage.getItem(FOLDED)) {
    expand.click();
    localStorage.removeItem(FOLDED);
  }
}

export default function () {
  // Streamlit mounts a component again at its leisure: one listener for a tab is enough.
  if (window.followsWidth) return;
  window.followsWidth = true;
  const query = matchMedia(NARROW);
  follow(query.matches);
  query.addEventListener("change", (event) => follow(event.matches));
}
