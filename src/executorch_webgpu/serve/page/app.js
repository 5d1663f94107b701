// The page: which conversation is shown, which answers are being written, and what buttons and keys do.

import { hasKey, models, setKey } from "./api.js";
import * as talk from "./conversation.js";
import * as drafts from "./drafts.js";
import { element } from "./elements.js";
import { download, fromFile } from "./files.js";
import { announce, notify, ServerWatch } from "./notices.js";
import { Run } from "./run.js";
import { Follow } from "./scroll.js";
import { lastSettings, SettingsDialog } from "./settings.js";
import { Sidebar } from "./sidebar.js";
import { Store } from "./store.js";
import { count, sends, Transcript } from "./transcript.js";

const SAVE_MS = 1000; // while an answer is written, it is saved this often
const EXAMPLES = ["Explain what a GPU is good at", "Write a short poem about rain", "Plan a quiet weekend"];

const touched = matchMedia("(hover: none)");
const part = (id) => document.getElementById(id);
const field = part("message");
const store = await Store.open();
const conversations = new Map((await store.all()).map((one) => [one.id, one]));
const runs = new Map(); // conversation's id -> Run
const saves = new Map(); // conversation's id -> timer
let served = []; // models
let current = conversations.get(location.hash.slice(1)) ?? talk.newConversation(lastSettings());

const follow = new Follow(part("scroller"), part("to-end"));
const transcript = new Transcript(
  part("transcript"),
  { edit, retry, goOn, remove: removeMessage, show: showVersion, enterKey: (message) => askForKey(() => retry(message)) },
  () => follow.keep(),
);
const sidebar = new Sidebar({ open, rename, download: (one) => download([one], one.title), remove: removeConversation });
const settings = new SettingsDialog((chosen) => {
  current.settings = chosen;
  save(current);
});

// --- Showing ---------------------------------------------------------------------------------------------------

function draw() {
  const listed = [...conversations.values()].sort((a, b) => b.updated - a.updated);
  sidebar.draw(listed, current, runs);
  const title = current.title || "New conversation";
  part("title").textContent = title;
  document.title = current.title ? `${title} – Chat` : "Chat";
  part("greeting").hidden = current.leaf !== null;
  transcript.show(current, runs.get(current.id));
  drawModel();
  drawState();
}

/** The parts that change with a run, and with each answer. */
function drawState() {
  const running = runs.has(current.id);
  const send = part("send");
  const label = running ? "Stop" : "Send";
  if (send.title !== label) {
    send.title = label;
    send.setAttribute("aria-label", label);
    send.querySelector("use").setAttribute("href", running ? "#icon-stop" : "#icon-send");
  }
  send.setAttribute("aria-disabled", String(!running && !field.value.trim()));
  part("context").textContent = contextUse();
}

function contextUse() {
  const usage = talk.path(current).findLast((message) => message.usage)?.usage;
  if (!usage) return "";
  const limit = contextLength(served.find(({ id }) => id === modelOf(current)));
  const used = count(usage.prompt + usage.completion);
  const reused = usage.cached ? `, ${count(usage.cached)} reused` : "";
  return `Context: ${used}${limit ? ` of ${count(limit)}` : ""} tokens${reused}`;
}

const contextLength = (model) => model?.max_model_len ?? model?.context_length ?? model?.meta?.n_ctx ?? null;
const modelOf = ({ settings: { model } }) => (served.some(({ id }) => id === model) ? model : (served[0]?.id ?? null));

function drawModel() {
  const select = part("model");
  select.hidden = served.length < 2;
  select.replaceChildren(...served.map(({ id }) => element("option", { value: id }, id)));
  select.value = modelOf(current) ?? "";
  part("model-name").textContent = served.length === 1 ? served[0].id : "";
}

function open(conversation, { fromHistory = false } = {}) {
  drafts.keep(draftOf(current), field.value);
  current = conversation;
  if (!fromHistory) history.pushState(null, "", `#${conversation.id}`);
  field.value = drafts.of(draftOf(current));
  fit();
  draw();
  follow.toEnd();
  if (!touched.matches) field.focus(); // else the keyboard would cover what was opened
}

function openFromAddress() {
  const wanted = conversations.get(location.hash.slice(1));
  if (wanted !== current) open(wanted ?? talk.newConversation(lastSettings()), { fromHistory: true });
}

const draftOf = (conversation) => (conversations.has(conversation.id) ? conversation.id : "new");

// The height of the message box, where CSS cannot do it.
function fit() {
  if (CSS.supports("field-sizing", "content")) return;
  field.style.height = "auto";
  field.style.height = `${field.scrollHeight}px`;
}

// --- Keeping ---------------------------------------------------------------------------------------------------

async function save(conversation) {
  clearTimeout(saves.get(conversation.id));
  saves.delete(conversation.id);
  if (conversation.leaf === null && !conversations.has(conversation.id)) return; // nothing was said yet
  conversations.set(conversation.id, conversation);
  try {
    await store.put(conversation);
  } catch {
    notify("This browser has no room to keep this conversation; export it before you leave.");
  }
}

function saveSoon(conversation) {
  if (!saves.has(conversation.id)) saves.set(conversation.id, setTimeout(() => save(conversation), SAVE_MS));
}

// --- Asking and answering --------------------------------------------------------------------------------------

function send() {
  const text = field.value;
  if (!text.trim() || runs.has(current.id)) return;
  const question = talk.newMessage("user", text);
  talk.add(current, current.leaf, question);
  if (!conversations.has(current.id)) history.replaceState(null, "", `#${current.id}`);
  drafts.keep(draftOf(current), "");
  field.value = "";
  fit();
  answer(current, question);
}

function answer(conversation, question) {
  const message = talk.newMessage("assistant", "");
  talk.add(conversation, question.id, message);
  return write(conversation, message);
}

async function write(conversation, message) {
  const run = new Run(conversation, message, modelOf(conversation));
  runs.set(conversation.id, run);
  const shown = () => current === conversation;
  save(conversation);
  if (shown()) {
    draw();
    follow.toEnd();
  }
  await run.go(() => {
    if (conversations.has(conversation.id)) saveSoon(conversation);
    if (shown()) transcript.changed(message);
  });
  runs.delete(conversation.id);
  talk.touch(conversation);
  if (conversations.has(conversation.id)) save(conversation); // else it was deleted meanwhile
  draw();
  if (shown()) announceEnd(message);
  if (message.error?.kind && message.error.kind !== "http") watch.look();
  if (message.error?.status === 401) askForKey(() => retry(message));
}

function announceEnd({ content, error, finish }) {
  if (error) return; // it is an alert
  announce(finish === "stopped" ? "Stopped." : content || "The answer is empty.");
}

function retry(message) {
  if (runs.has(current.id)) return;
  const question = message.role === "user" ? message : current.messages[message.parent];
  if (!question) return;
  // What failed before it said anything is no version to come back to.
  if (message.error && !message.content && !message.reasoning) talk.remove(current, message);
  answer(current, question);
}

function goOn(message) {
  if (!runs.has(current.id)) write(current, message);
}

function edit(message, text) {
  if (runs.has(current.id)) return;
  if (text === message.content) return answer(current, message);
  const question = talk.newMessage("user", text);
  talk.add(current, message.parent, question);
  return answer(current, question);
}

function removeMessage(message) {
  if (runs.has(current.id)) return;
  const conversation = current;
  const undo = talk.remove(conversation, message);
  save(conversation);
  draw();
  notify("Deleted.", () => {
    undo();
    save(conversation);
    draw();
  });
}

function showVersion(message) {
  if (runs.has(current.id)) return;
  talk.show(current, message);
  save(current);
  draw();
}

// --- Conversations ---------------------------------------------------------------------------------------------

function rename(conversation, title) {
  conversation.title = title;
  save(conversation);
  draw();
}

function removeConversation(conversation) {
  runs.get(conversation.id)?.stop();
  clearTimeout(saves.get(conversation.id));
  saves.delete(conversation.id);
  conversations.delete(conversation.id);
  store.remove(conversation.id);
  if (conversation === current) open(talk.newConversation(lastSettings()));
  else draw();
  notify(`Deleted “${conversation.title}”.`, () => {
    save(conversation);
    open(conversation);
  });
}

async function importFile(file) {
  let given;
  try {
    given = fromFile(await file.text());
  } catch (error) {
    notify(error.message);
    return;
  }
  const known = ({ id, updated }) => conversations.get(id)?.updated === updated;
  const fresh = given.filter((one) => !known(one));
  for (const one of fresh) {
    if (conversations.has(one.id)) one.id = talk.newId(); // another state of it is here
    await save(one);
  }
  draw();
  const skipped = given.length - fresh.length;
  notify(`Imported ${fresh.length}${skipped ? `; ${skipped} ${skipped === 1 ? "was" : "were"} here already` : ""}.`);
}

async function changedElsewhere(id) {
  const stored = await store.get(id);
  if (runs.has(id)) return; // what is written here counts
  if (stored) conversations.set(id, stored);
  else conversations.delete(id);
  if (current.id === id && stored) current = stored;
  draw();
}

// --- The server ------------------------------------------------------------------------------------------------

async function loadModels() {
  try {
    served = (await models()).filter(({ capabilities }) => capabilities?.includes("chat") ?? true);
  } catch (error) {
    if (error.status === 401) askForKey(() => {});
    return;
  }
  if (!served.length) notify("This server has no model to talk with.");
  drawModel();
  drawState();
}

const watch = new ServerWatch(loadModels);

function askForKey(then) {
  const dialog = part("key-dialog");
  if (dialog.open) return;
  part("key-text").textContent = hasKey()
    ? "The server does not accept this key. Enter another one."
    : "This server asks for an API key. It is kept until you close this tab.";
  part("key").value = "";
  part("key-error").textContent = "";
  dialog.querySelector("form").onsubmit = async (event) => {
    event.preventDefault();
    const key = part("key").value.trim();
    if (!/^[\x21-\x7e]+$/.test(key)) {
      part("key-error").textContent = "A key has letters, digits and signs, without spaces.";
      part("key").focus();
      return;
    }
    setKey(key);
    dialog.close();
    await loadModels();
    if (!dialog.open) then();
  };
  dialog.showModal();
}

// --- Events ----------------------------------------------------------------------------------------------------

part("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const run = runs.get(current.id);
  if (run) run.stop();
  else send();
});
field.addEventListener("input", () => {
  fit();
  drawState();
});
field.addEventListener("keydown", (event) => {
  if (!sends(event)) return;
  event.preventDefault();
  send();
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.defaultPrevented || event.isComposing) return;
  if (document.querySelector("dialog[open], :popover-open") || sidebar.close()) return;
  runs.get(current.id)?.stop();
});
part("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address names the conversation
  field.focus();
});
part("to-end").addEventListener("click", () => field.focus());
part("new").addEventListener("click", () => {
  sidebar.close();
  if (current.leaf === null) field.focus();
  else open(talk.newConversation(lastSettings()));
});
part("open-settings").addEventListener("click", () => {
  part("forget-key").hidden = !hasKey();
  settings.open(current.settings);
});
part("forget-key").addEventListener("click", () => {
  setKey("");
  part("settings").close();
  notify("The API key is forgotten.");
});
part("key-dialog").querySelector("[data-close]").addEventListener("click", () => part("key-dialog").close());
part("model").addEventListener("change", ({ target }) => {
  current.settings = { ...current.settings, model: target.value };
  save(current);
  drawState();
});
part("import").addEventListener("click", () => part("import-file").click());
part("import-file").addEventListener("change", async ({ target }) => {
  for (const file of target.files) await importFile(file);
  target.value = "";
});
part("export").addEventListener("click", () => download([...conversations.values()], "Conversations"));
part("theme").addEventListener("change", ({ target }) => setTheme(target.value));
addEventListener("popstate", openFromAddress);
addEventListener("pagehide", () => {
  drafts.keep(draftOf(current), field.value);
  for (const { conversation } of runs.values()) save(conversation);
});
store.onChange(changedElsewhere);

function setTheme(theme) {
  const root = document.documentElement;
  if (theme === "auto") delete root.dataset.theme;
  else root.dataset.theme = theme;
  try {
    localStorage.setItem("theme", theme);
  } catch {
    // It holds until the page is left.
  }
}

part("theme").querySelector(`[value="${document.documentElement.dataset.theme ?? "auto"}"]`).checked = true;
part("examples").append(
  ...EXAMPLES.map((text) => {
    const button = element("button", { type: "button", class: "quiet" }, text);
    button.addEventListener("click", () => {
      field.value = text;
      fit();
      drawState();
      field.focus();
    });
    return element("li", {}, button);
  }),
);
field.value = drafts.of(draftOf(current));
fit();
draw();
follow.toEnd();
field.focus();
if (!store.lasting) notify("This browser keeps nothing for this page: conversations end with this tab.");
loadModels();
