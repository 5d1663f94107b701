// The settings of a conversation: the system prompt, and what is sent about sampling.

import { element } from "./elements.js";

const LAST = "settings";
/** Fields of the request; an empty one is not sent, so that the server's default holds. */
export const SAMPLING = [
  { name: "temperature", label: "Temperature", hint: "0 takes the likeliest token", min: 0, max: 2, step: 0.1 },
  { name: "max_tokens", label: "Most tokens", hint: "of an answer", min: 1, integer: true },
  { name: "top_p", label: "Top p", hint: "likeliest tokens up to this sum", min: 0, max: 1, step: 0.05 },
  { name: "top_k", label: "Top k", hint: "so many likeliest tokens", min: 0, integer: true },
  { name: "min_p", label: "Min p", hint: "relative to the likeliest token", min: 0, max: 1, step: 0.05 },
  { name: "seed", label: "Seed", hint: "the same text each time", min: 0, integer: true },
  { name: "presence_penalty", label: "Presence penalty", hint: "against used tokens", min: -2, max: 2, step: 0.1 },
  { name: "frequency_penalty", label: "Frequency penalty", hint: "by how often used", min: -2, max: 2, step: 0.1 },
];

/** Returns the settings that a new conversation begins with: those that were chosen last. */
export function lastSettings() {
  try {
    return JSON.parse(localStorage.getItem(LAST)) ?? {};
  } catch {
    return {};
  }
}

function remember(settings) {
  try {
    localStorage.setItem(LAST, JSON.stringify(settings));
  } catch {
    // The next conversation begins with the server's defaults.
  }
}

/** Returns the fields of a request that say how to sample. */
export function samplingFields(settings) {
  return Object.fromEntries(SAMPLING.map(({ name }) => [name, settings[name]]).filter(([, value]) => value !== undefined));
}

// Returns what is wrong with a field's text, or "".
function mistake({ integer, min, max }, input) {
  if (input.validity.badInput) return "Not a number";
  if (input.value === "") return "";
  const value = Number(input.value);
  if (integer && !Number.isInteger(value)) return "A whole number, please";
  if (value < min || value > (max ?? Infinity)) {
    return max === undefined ? `At least ${min}` : `From ${min} to ${max}`;
  }
  return "";
}

function samplingField(field) {
  const id = `sampling-${field.name}`;
  const input = element("input", {
    id,
    type: "number",
    inputmode: field.integer ? "numeric" : "decimal",
    min: field.min,
    max: field.max ?? null,
    step: field.step ?? 1,
    placeholder: "default",
    autocomplete: "off",
    "aria-describedby": `${id}-hint ${id}-error`,
  });
  const error = element("p", { class: "field-error", id: `${id}-error`, role: "alert" });
  const show = () => {
    const text = mistake(field, input);
    if (error.textContent !== text) error.textContent = text;
    input.toggleAttribute("aria-invalid", text !== "");
    return text === "";
  };
  input.addEventListener("input", show);
  const node = element(
    "div",
    { class: "field" },
    element("label", { for: id }, field.label),
    input,
    error,
    element("span", { class: "hint", id: `${id}-hint` }, field.hint),
  );
  return { field, input, show, node };
}

/** The dialog. `onChange(settings)` gets what was entered when it is closed by "Done". */
export class SettingsDialog {
  #dialog = document.getElementById("settings");
  #system = document.getElementById("system");
  #fields = SAMPLING.map(samplingField);
  #given = {};

  constructor(onChange) {
    document.getElementById("sampling").append(...this.#fields.map(({ node }) => node));
    document.getElementById("reset-settings").addEventListener("click", () => this.#fill({}));
    this.#dialog.querySelector("[data-close]").addEventListener("click", () => this.#dialog.close());
    this.#dialog.querySelector("form").addEventListener("submit", (event) => {
      event.preventDefault();
      const wrong = this.#fields.filter(({ show }) => !show());
      if (wrong.length) return wrong[0].input.focus();
      const settings = this.#read();
      remember(settings);
      this.#dialog.close();
      return onChange(settings);
    });
  }

  open(settings) {
    this.#given = settings;
    this.#fill(settings);
    this.#dialog.showModal();
  }

  #fill(settings) {
    this.#system.value = settings.system ?? "";
    for (const { field, input, show } of this.#fields) {
      input.value = settings[field.name] ?? "";
      show();
    }
  }

  #read() {
    const entered = this.#fields.filter(({ input }) => input.value !== "");
    const settings = Object.fromEntries(entered.map(({ field, input }) => [field.name, Number(input.value)]));
    if (this.#given.model) settings.model = this.#given.model;
    if (this.#system.value.trim()) settings.system = this.#system.value;
    return settings;
  }
}
