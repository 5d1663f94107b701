// What the page says about itself: short notices with an undo, the state of the server, and texts for screen readers.

import { health } from "./api.js";
import { element } from "./elements.js";

const NOTICE_MS = 10000;
const ANNOUNCED_LENGTH = 2000;
const UP_MS = 15000; // between looks at a server that answers
const DOWN_MS = 2000;

let timer = null;

/** Shows a notice above the message box, for a while. `undo`, if given, is what its button does. */
export function notify(text, undo = null) {
  const place = document.getElementById("notice");
  const hide = () => {
    const hadFocus = place.contains(document.activeElement);
    place.replaceChildren();
    if (hadFocus) document.getElementById("message").focus();
  };
  clearTimeout(timer);
  timer = setTimeout(hide, NOTICE_MS);
  place.replaceChildren(element("span", {}, text));
  if (!undo) return;
  const button = element("button", { type: "button", class: "quiet" }, "Undo");
  button.addEventListener("click", () => {
    hide();
    undo();
  });
  place.append(button);
  button.focus(); // what was deleted had it
}

/** Has a screen reader say a text, at its next pause. */
export function announce(text) {
  const place = document.getElementById("announcer");
  const spoken = text.length > ANNOUNCED_LENGTH ? `${text.slice(0, ANNOUNCED_LENGTH)}… The message has more.` : text;
  place.textContent = spoken;
}

const STATES = {
  starting: "The server is not ready. This page goes on when it is.",
  down: "The server does not answer. This page tries again, and keeps what you wrote.",
};

/** Looks now and then whether the server is there, and says so when it is not. */
export class ServerWatch {
  #state = "up";
  #timer = null;
  #onReturn;

  /** `onReturn()` is called when the server is there again. */
  constructor(onReturn) {
    this.#onReturn = onReturn;
    document.addEventListener("visibilitychange", () => this.look());
    this.look();
  }

  async look() {
    clearTimeout(this.#timer);
    if (document.hidden) return;
    const state = await health();
    if (state !== this.#state) this.#say(state);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.look(), state === "up" ? UP_MS : DOWN_MS);
  }

  #say(state) {
    this.#state = state;
    const banner = document.getElementById("banner");
    banner.textContent = STATES[state] ?? "";
    banner.hidden = state === "up";
    if (state !== "up") return;
    announce("The server is back.");
    this.#onReturn();
  }
}
