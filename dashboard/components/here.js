// The name of the page, for windows whose navigation has no room for it, and word to the server when
// the theme turns. It also lets the browser keep the layout that somebody chose, in a cookie: the
// server knows it before the first page is drawn. data: {name, cookie: a cookie or ""}

export default function ({ data, parentElement, setTriggerValue }) {
  parentElement.querySelector(".here").textContent = data.name;
  if (data.cookie) document.cookie = `${data.cookie}; path=/; max-age=31536000; samesite=lax`;
  const theme = parentElement.querySelector(".theme");
  // Its colour is the theme's, and changes in a transition of no length: that says when, whether the
  // system or the page's own menu turned it.
  theme.ontransitionend = () => setTriggerValue("theme", getComputedStyle(theme).backgroundColor);
}
