// The list of conversations, and the menu of each.

import { element, iconButton } from "./elements.js";

const narrow = matchMedia("(max-width: 50rem)");
const OPEN = "sidebar";

/** `actions`, each with the conversation: `open`, `rename(conversation, title)`, `download`, `remove`. */
export class Sidebar {
  #list = document.getElementById("conversations");
  #nav = document.getElementById("sidebar");
  #toggle = document.getElementById("toggle-sidebar");
  #backdrop = document.getElementById("backdrop");
  #menu = document.getElementById("menu");
  #main = document.querySelector("main");
  #actions;
  #isOpen;

  constructor(actions) {
    this.#actions = actions;
    this.#toggle.addEventListener("click", () => this.#set(!this.#isOpen));
    this.#backdrop.addEventListener("click", () => this.close());
    document.getElementById("close-sidebar").addEventListener("click", () => this.close());
    narrow.addEventListener("change", () => this.#set(!narrow.matches && wasOpen()));
    this.#set(!narrow.matches && wasOpen());
  }

  /** Closes the list where it lies over the messages. Returns whether it was open there. */
  close() {
    if (!narrow.matches || !this.#isOpen) return false;
    this.#set(false);
    this.#toggle.focus();
    return true;
  }

  #set(open) {
    this.#isOpen = open;
    document.body.classList.toggle("with-sidebar", open);
    this.#toggle.setAttribute("aria-expanded", String(open));
    this.#backdrop.hidden = !(open && narrow.matches);
    this.#nav.inert = !open;
    this.#main.inert = open && narrow.matches; // what lies below the list cannot be reached
    if (!narrow.matches) keep(open);
    else if (open) document.getElementById("close-sidebar").focus();
  }

  /** `current`: the one that is shown; `running`: ids of those whose answer is being written. */
  draw(conversations, current, running) {
    const focused = this.#list.contains(document.activeElement) ? document.activeElement.closest("li").dataset.id : null;
    if (this.#list.querySelector("input")) return; // a title is being written
    const items = conversations.map((one) => this.#item(one, one === current, running.has(one.id)));
    this.#list.replaceChildren(...items);
    if (focused) items.find(({ dataset }) => dataset.id === focused)?.firstChild.focus();
  }

  #item(conversation, isCurrent, isRunning) {
    const title = conversation.title || "New conversation";
    const attributes = { type: "button", class: "row-button", "aria-current": isCurrent ? "true" : null };
    const open = element("button", attributes, element("span", { class: "row-title" }, title));
    if (isRunning) open.append(element("span", { class: "running" }, element("span", { class: "visually-hidden" }, "answering")));
    open.addEventListener("click", () => {
      this.close();
      this.#actions.open(conversation);
    });
    const label = `More about “${title}”`;
    const more = iconButton("more", label, () => this.#openMenu(conversation, more, item), { "aria-haspopup": "true" });
    const item = element("li", { "data-id": conversation.id, class: isCurrent ? "current" : null }, open, more);
    return item;
  }

  #openMenu(conversation, button, item) {
    const entry = (label, act) => {
      const made = element("button", { type: "button", class: "row-button" }, label);
      made.addEventListener("click", () => {
        this.#menu.hidePopover();
        act();
      });
      return made;
    };
    this.#menu.replaceChildren(
      entry("Rename", () => this.#rename(conversation, item)),
      entry("Export", () => this.#actions.download(conversation)),
      entry("Delete", () => this.#actions.remove(conversation)),
    );
    this.#menu.showPopover({ source: button });
    const { bottom, top, right } = button.getBoundingClientRect();
    const { offsetHeight: height, offsetWidth: width } = this.#menu;
    this.#menu.style.top = `${bottom + height + 8 < innerHeight ? bottom + 4 : top - height - 4}px`;
    this.#menu.style.left = `${Math.max(8, right - width)}px`;
    this.#menu.firstChild.focus();
  }

  #rename(conversation, item) {
    const field = element("input", { type: "text", "aria-label": "Title", maxlength: 200 });
    field.value = conversation.title;
    let open = true;
    const close = (title) => {
      if (!open) return;
      open = false;
      field.remove();
      this.#actions.rename(conversation, title.trim() || conversation.title);
      this.#list.querySelector(`[data-id="${CSS.escape(conversation.id)}"] button`)?.focus();
    };
    field.addEventListener("keydown", (event) => {
      if (event.isComposing) return;
      if (event.key !== "Enter" && event.key !== "Escape") return;
      event.preventDefault(); // else Enter presses the button that gets the focus
      close(event.key === "Enter" ? field.value : conversation.title);
    });
    field.addEventListener("blur", () => close(field.value));
    item.replaceChildren(field);
    field.select();
  }
}

function wasOpen() {
  try {
    return localStorage.getItem(OPEN) !== "closed";
  } catch {
    return true;
  }
}

function keep(open) {
  try {
    localStorage.setItem(OPEN, open ? "open" : "closed");
  } catch {
    // It is open when the page is opened again.
  }
}
