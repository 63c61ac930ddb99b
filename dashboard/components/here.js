// The name of the page, for windows whose navigation has no room for it, and word to the server when
// the theme turns. data: {name}

export default function ({ data, parentElement, setTriggerValue }) {
  parentElement.querySelector(".here").textContent = data.name;
  const theme = parentElement.querySelector(".theme");
  // Its colour is the theme's, and changes in a transition of no length: that says when, whether the
  // system or the page's own menu turned it.
  theme.ontransitionend = () => setTriggerValue("theme", getComputedStyle(theme).backgroundColor);
}
