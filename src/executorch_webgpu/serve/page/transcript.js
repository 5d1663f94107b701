// Shows the messages of a conversation, and keeps up with an answer while it is written.

import { versions, path } from "./conversation.js";
import { copyButton, element, iconButton } from "./elements.js";
import { render } from "./markdown.js";

const ENDS = {
  length: "Stopped at the limit of tokens.",
  stopped: "Stopped.",
  content_filter: "Stopped by a filter of the server.",
};
const SLOW_MS = 8; // a drawing that takes longer is followed by a pause, so that the page answers to its reader

export const count = (number) => number.toLocaleString("en");
export const tokens = (number) => `${count(number)} ${number === 1 ? "token" : "tokens"}`;

/**
 * `actions`: what the buttons do, each with the message: `edit(message, text)`, `retry`, `goOn` (with an answer that was
 * cut off), `remove`, `show` (a version), `enterKey`.
 */
export class Transcript {
  #container;
  #actions;
  #onDraw;
  #views = new Map();
  #changed = new Set();
  #frame = null;
  #pausedUntil = 0;

  constructor(container, actions, onDraw) {
    this.#container = container;
    this.#actions = actions;
    this.#onDraw = onDraw;
  }

  /** Shows a conversation; `run` is its answer that is being written, if any. */
  show(conversation, run) {
    const messages = path(conversation);
    const views = messages.map((message) => {
      const known = this.#views.get(message.id);
      const view = known?.message === message ? known : new MessageView(message, this.#actions);
      view.place(versions(conversation, message), message === messages.at(-1), run?.message === message ? run : null);
      return view;
    });
    this.#views = new Map(views.map((view) => [view.message.id, view]));
    views.forEach(({ node }, index) => {
      const there = this.#container.children[index];
      if (there !== node) this.#container.insertBefore(node, there ?? null);
    });
    while (this.#container.children.length > views.length) this.#container.lastElementChild.remove();
    this.#onDraw();
  }

  /** Draws a message again, once, before the next frame. */
  changed(message) {
    this.#changed.add(message.id);
    this.#frame ??= requestAnimationFrame(this.#draw);
  }

  #draw = (now) => {
    this.#frame = null;
    if (now < this.#pausedUntil) {
      this.#frame = requestAnimationFrame(this.#draw);
      return;
    }
    for (const id of this.#changed) this.#views.get(id)?.draw();
    this.#changed.clear();
    this.#onDraw();
    const end = performance.now();
    this.#pausedUntil = end - now > SLOW_MS ? end + 2 * (end - now) : 0;
  };
}

class MessageView {
  #actions;
  #run = null;
  #body = element("div", { class: "body" });
  #foot = element("div", { class: "foot" });
  #placed = "";

  constructor(message, actions) {
    this.message = message;
    this.#actions = actions;
    this.node = element("article", { class: `message ${message.role}`, "data-id": message.id });
    this.#begin();
    this.draw();
  }

  get #isAnswer() {
    return this.message.role === "assistant";
  }

  /** Whether the answer has a beginning, and would go on. */
  get #isCutOff() {
    const { content, toolCalls, finish, error } = this.message;
    return content !== "" && !toolCalls.length && (error !== null || finish === null || ["length", "stopped"].includes(finish));
  }

  #begin() {
    const title = element("h2", { class: "who", id: `who-${this.message.id}` }, this.#isAnswer ? "Assistant" : "You");
    this.node.setAttribute("aria-labelledby", title.id);
    this.node.replaceChildren(title, this.#body, this.#foot);
    if (!this.#isAnswer) return;
    this.thinking = element("details", { class: "reasoning", hidden: true }, element("summary"), element("div"));
    this.thinking.addEventListener("toggle", () => this.draw());
    this.answer = element("div", { class: "answer" });
    this.calls = element("div", { class: "calls" });
    this.waiting = element("p", { class: "waiting", hidden: true }, element("span", { class: "visually-hidden" }, "Waiting"));
    this.waiting.append(element("i"), element("i"), element("i"));
    this.error = element("div", { class: "error", role: "alert" });
    this.#body.append(this.thinking, this.answer, this.calls, this.waiting, this.error);
  }

  /** Says where the message stands: its versions, whether it is the last one, and its run while it is written. */
  place(siblings, isLast, run) {
    this.#run = run;
    this.node.classList.toggle("last", isLast);
    this.node.setAttribute("aria-busy", String(run !== null));
    const index = siblings.indexOf(this.message);
    const placed = JSON.stringify([index, siblings.length, isLast, run !== null]);
    if (placed !== this.#placed) this.#drawFoot(siblings, index, isLast);
    this.#placed = placed;
    this.draw();
  }

  draw() {
    if (this.#isAnswer) this.#drawAnswer();
    else if (!this.#body.querySelector("form")) {
      const text = element("div", { class: "bubble" }, this.message.content);
      if (this.#body.textContent !== this.message.content || !this.#body.firstChild) this.#body.replaceChildren(text);
    }
  }

  #drawAnswer() {
    const { content, reasoning, toolCalls } = this.message;
    this.thinking.hidden = reasoning === "";
    const stillThinks = this.#run && !content && !toolCalls.length;
    setText(this.thinking.firstChild, stillThinks ? "Thinking…" : "Thoughts");
    if (this.thinking.open) render(this.thinking.lastChild, reasoning);
    render(this.answer, content);
    this.#drawCalls(toolCalls);
    this.waiting.hidden = !this.#run || content !== "" || toolCalls.length > 0;
    this.#drawError();
    setText(this.stats, this.#statistics());
  }

  #drawCalls(calls) {
    calls.forEach((call, index) => {
      this.calls.children[index] ?? this.calls.append(toolCall());
      const [name, text] = this.calls.children[index].children;
      setText(name.lastChild, call.name);
      setText(text, call.arguments);
    });
    while (this.calls.children.length > calls.length) this.calls.lastChild.remove();
  }

  #drawError() {
    const { error } = this.message;
    const text = error ? [error.message, error.retryAfter ? `Try again in ${error.retryAfter} s.` : ""].join(" ").trim() : "";
    if (this.error.dataset.text === text) return;
    this.error.dataset.text = text;
    this.error.replaceChildren();
    if (!error) return;
    const needsKey = error.status === 401;
    const act = needsKey ? this.#actions.enterKey : this.#actions.retry;
    const button = element("button", { type: "button", class: "quiet" }, needsKey ? "Enter the API key" : "Try again");
    button.addEventListener("click", () => act(this.message));
    this.error.append(element("p", {}, text), button);
  }

  #statistics() {
    const { usage, timing, finish, error } = this.message;
    if (this.#run) {
      const { pieces, rate } = this.#run;
      const parts = pieces ? [`about ${tokens(pieces)}`] : [];
      if (rate !== null) parts.push(`${rate.toFixed(rate < 10 ? 1 : 0)} tokens/s`);
      return parts.join(" · ");
    }
    const parts = [];
    if (finish === null && !error) parts.push("Not complete: the page was left.");
    if (ENDS[finish]) parts.push(ENDS[finish]);
    const written = usage?.completion ?? timing?.pieces;
    if (written) {
      // The server does not count what is stopped.
      parts.push(usage ? tokens(written) : `about ${tokens(written)}`);
      const rate = ((written - 1) * 1000) / (timing?.writing ?? 0);
      if (Number.isFinite(rate) && rate > 0) parts.push(`${rate.toFixed(1)} tokens/s`);
    }
    if (timing) parts.push(`first after ${(timing.first / 1000).toFixed(2)} s`);
    return parts.join(" · ");
  }

  #drawFoot(siblings, index, isLast) {
    const focused = this.#foot.contains(document.activeElement) ? document.activeElement.getAttribute("aria-label") : null;
    this.stats = element("span", { class: "stats" });
    this.#foot.replaceChildren(this.stats, this.#tools(siblings, index, isLast));
    if (focused) this.#foot.querySelector(`[aria-label="${CSS.escape(focused)}"]`)?.focus();
  }

  #tools(siblings, index, isLast) {
    const { message } = this;
    const tools = element("div", { class: "tools" });
    if (this.#run) return tools;
    if (siblings.length > 1) {
      const step = (name, label, to) =>
        iconButton(name, label, () => this.#actions.show(siblings[to]), { disabled: !siblings[to] });
      const position = element("span", { class: "version" }, `${index + 1}/${siblings.length}`);
      position.prepend(element("span", { class: "visually-hidden" }, "Version "));
      tools.append(step("left", "Previous version", index - 1), position, step("right", "Next version", index + 1));
    }
    if (message.content) tools.append(copyButton("Copy message", () => message.content));
    if (!this.#isAnswer) tools.append(iconButton("edit", "Edit and retry", () => this.#edit()));
    if (this.#isAnswer && isLast && this.#isCutOff) {
      tools.append(iconButton("go-on", "Go on with this answer", () => this.#actions.goOn(message)));
    }
    if (this.#isAnswer || isLast) {
      const label = this.#isAnswer ? "Write another answer" : "Answer this";
      tools.append(iconButton("retry", label, () => this.#actions.retry(message)));
    }
    tools.append(iconButton("delete", "Delete from here", () => this.#actions.remove(message)));
    return tools;
  }

  #edit() {
    const field = element("textarea", { rows: 3, "aria-label": "Edited message" });
    field.value = this.message.content;
    const cancel = element("button", { type: "button", class: "quiet" }, "Cancel");
    const send = element("button", { type: "submit", class: "primary" }, "Send");
    const form = element("form", { class: "edit" }, field, element("div", { class: "dialog-foot" }, cancel, send));
    const close = () => {
      this.#body.replaceChildren();
      this.node.classList.remove("editing");
      this.draw();
      this.#foot.querySelector('[aria-label="Edit and retry"]')?.focus();
    };
    cancel.addEventListener("click", close);
    field.addEventListener("keydown", (event) => {
      if (event.key === "Escape") {
        event.preventDefault();
        close();
      } else if (sends(event)) {
        event.preventDefault();
        form.requestSubmit();
      }
    });
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (!field.value.trim()) return;
      close();
      this.#actions.edit(this.message, field.value);
    });
    this.node.classList.add("editing");
    this.#body.replaceChildren(form);
    field.focus();
    field.setSelectionRange(field.value.length, field.value.length);
  }
}

/** Whether a key press sends what was written: Enter alone, and not the one that ends a word of an input method. */
export const sends = (event) => event.key === "Enter" && !event.shiftKey && !event.isComposing && event.keyCode !== 229;

function setText(node, text) {
  if (node && node.textContent !== text) node.textContent = text;
}

function toolCall() {
  const name = element("code");
  const head = element("div", { class: "code-head" }, element("span", {}, "Calls the tool "), name);
  const text = element("pre", { tabindex: "0", role: "group", "aria-label": "Arguments" });
  return element("div", { class: "code" }, head, text);
}

