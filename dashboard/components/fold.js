// Folds the sidebar where the window is too narrow for it and the page together (a projector, a
// tablet), and unfolds it when the window grows again. Streamlit itself does so only on phones.
// Whoever opens it themselves keeps it open until the window crosses the limit once more.
// data: {narrow: the media query of such windows}

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

export default function ({ data }) {
  // Streamlit mounts a component again at its leisure: one listener for a tab is enough.
  const before = window.followsWidth;
  if (before?.media === data.narrow) return;
  before?.query.removeEventListener("change", before.listener);
  const query = matchMedia(data.narrow);
  const listener = (event) => follow(event.matches);
  window.followsWidth = { media: data.narrow, query, listener };
  follow(query.matches);
  query.addEventListener("change", listener);
}
