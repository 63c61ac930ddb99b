// The name of the page, for windows whose navigation has no room for it. data: {name}

export default function ({ data, parentElement }) {
  parentElement.querySelector(".here").textContent = data.name;
}
