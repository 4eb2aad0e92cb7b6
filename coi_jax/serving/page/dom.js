/** Elements of the page. Text from people, models and links becomes text nodes, never HTML. */

export const $ = (id) => document.getElementById(id);

/** Make an element; attributes that begin with "on" are listeners, null and false leave one out. */
export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Make a button with a text for people who see it and a longer name for those who hear it. */
export function button(text, name, onclick, attributes = {}) {
  return make("button", { type: "button", "aria-label": name, title: name === text ? null : name, onclick, ...attributes }, text);
}

/** Fill a select with [value, text] pairs and keep its choice where it is still there. */
export function fill(select, choices) {
  const chosen = select.value;
  select.replaceChildren(...choices.map(([value, text]) => make("option", { value }, text)));
  if (choices.some(([value]) => value === chosen)) select.value = chosen;
}

/** Make a text area as high as its text. */
export function fit(area) {
  area.style.height = "auto";
  area.style.height = `${area.scrollHeight + 2}px`;
}

/** Copy a text; return whether the browser allowed it. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}
