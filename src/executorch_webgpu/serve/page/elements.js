// Making elements, icons, and buttons that copy.

const SVG = "http://www.w3.org/2000/svg";
const COPIED_MS = 1500;

/** Returns a new element. Attributes that are null or false are left out; children are nodes or text. */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

/** Returns one of the icons that index.html defines. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#icon-${name}`);
  svg.append(use);
  return svg;
}

/** Returns a button that shows an icon and is named by its label. */
export function iconButton(name, label, onClick, attributes = {}) {
  const button = element("button", { type: "button", class: "icon-button", "aria-label": label, title: label, ...attributes });
  button.append(icon(name));
  button.addEventListener("click", onClick);
  return button;
}

/** Returns a button that copies what `text()` returns, and shows that it has. */
export function copyButton(label, text) {
  const button = iconButton("copy", label, async () => {
    const done = await copy(text());
    const named = (title, shown) => {
      button.setAttribute("aria-label", title);
      button.title = title;
      button.replaceChildren(icon(shown));
    };
    named(done ? "Copied" : "Copying failed", done ? "check" : "cross");
    setTimeout(() => named(label, "copy"), COPIED_MS);
  });
  return button;
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyFromField(text);
  }
}

// Pages of a local network, without TLS, have no navigator.clipboard.
function copyFromField(text) {
  const focused = document.activeElement;
  const field = element("textarea", { class: "visually-hidden", "aria-hidden": "true", tabindex: "-1" });
  field.value = text;
  document.body.append(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  focused?.focus();
  return done;
}
