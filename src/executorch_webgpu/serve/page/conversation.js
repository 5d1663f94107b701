// A conversation is a tree of messages: a second answer, or an edited question, stands beside the first one.
// What is shown is the path from the root to `leaf`.
//
//   conversation: { id, title, created, updated, settings, messages: { [id]: message }, leaf }
//   message:      { id, parent, role, content, reasoning, toolCalls, created, model, usage, timing, finish, error }

const FORMAT = "executorch-webgpu-chat";
const VERSION = 1;
const TITLE_LENGTH = 60;

// crypto.randomUUID exists in secure contexts only, and a server in a local network is none.
export function newId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function newConversation(settings) {
  const now = Date.now();
  return { id: newId(), title: "", created: now, updated: now, settings, messages: {}, leaf: null };
}

export function newMessage(role, content) {
  const empty = { reasoning: "", toolCalls: [], model: null, usage: null, timing: null, finish: null, error: null };
  return { id: newId(), parent: null, role, content, created: Date.now(), ...empty };
}

/** Returns what is shown, first message first. */
export function path(conversation) {
  const found = [];
  for (let id = conversation.leaf; id !== null; id = conversation.messages[id].parent) {
    found.push(conversation.messages[id]);
  }
  return found.reverse();
}

const children = (conversation, parent) =>
  Object.values(conversation.messages)
    .filter((message) => message.parent === parent)
    .sort((a, b) => a.created - b.created);

/** Returns the versions of a message, itself included, oldest first. */
export const versions = (conversation, message) => children(conversation, message.parent);

/** Adds a message after `parent` (null: as the first) and shows it. */
export function add(conversation, parent, message) {
  message.parent = parent;
  // Versions are told apart by their time.
  const siblings = children(conversation, parent);
  if (siblings.length) message.created = Math.max(message.created, siblings.at(-1).created + 1);
  conversation.messages[message.id] = message;
  conversation.leaf = message.id;
  if (!conversation.title && message.role === "user") conversation.title = titleOf(message.content);
  return touch(conversation);
}

export function touch(conversation) {
  conversation.updated = Date.now();
  return conversation;
}

/** Shows this version of a message, and the newest of what follows it. */
export function show(conversation, message) {
  let id = message.id;
  for (let next = children(conversation, id); next.length; next = children(conversation, id)) id = next.at(-1).id;
  conversation.leaf = id;
}

/** Removes a message and what follows it. Returns a function that undoes this. */
export function remove(conversation, message) {
  const { messages, leaf } = conversation;
  const gone = new Set([message.id]);
  for (let size = 0; size !== gone.size; ) {
    size = gone.size;
    for (const { id, parent } of Object.values(messages)) if (gone.has(parent)) gone.add(id);
  }
  conversation.messages = Object.fromEntries(Object.entries(messages).filter(([id]) => !gone.has(id)));
  const left = children(conversation, message.parent);
  if (left.length) show(conversation, left.at(-1));
  else conversation.leaf = message.parent;
  touch(conversation);
  return () => {
    conversation.messages = { ...conversation.messages, ...messages };
    conversation.leaf = leaf;
    touch(conversation);
  };
}

/** Returns the messages of a request whose answer follows `last`. */
export function requestMessages(conversation, last) {
  const sent = [];
  for (let id = last; id !== null; id = conversation.messages[id].parent) {
    const { role, content } = conversation.messages[id];
    if (!content) continue;
    // Where an answer failed, two questions are neighbours, which many chat templates refuse.
    if (sent[0]?.role === role) sent[0].content = `${content}\n\n${sent[0].content}`;
    else sent.unshift({ role, content });
  }
  const system = conversation.settings.system?.trim();
  return system ? [{ role: "system", content: system }, ...sent] : sent;
}

export function titleOf(text) {
  const line = text.trim().replace(/\s+/g, " ");
  return line.length > TITLE_LENGTH ? `${Array.from(line).slice(0, TITLE_LENGTH).join("")}…` : line;
}

export function toFile(conversations) {
  return JSON.stringify({ format: FORMAT, version: VERSION, conversations }, null, 1);
}

/** Returns the conversations of an exported file. Throws an Error whose message says what is wrong with it. */
export function fromFile(text) {
  let file;
  try {
    file = JSON.parse(text);
  } catch {
    throw new Error("This file is no JSON.");
  }
  if (file?.format !== FORMAT) throw new Error("This file holds no conversations of this page.");
  if (file.version !== VERSION) throw new Error(`This file has version ${file.version}; this page reads ${VERSION}.`);
  if (!Array.isArray(file.conversations)) throw new Error("This file has no list of conversations.");
  return file.conversations.map(checked);
}

const string = (value, otherwise = "") => (typeof value === "string" ? value : otherwise);
const number = (value, otherwise) => (Number.isFinite(value) ? value : otherwise);
const object = (value) => (value !== null && typeof value === "object" && !Array.isArray(value) ? value : null);

// Takes known fields of the right types only: a file may come from anywhere.
function checked(given, index) {
  const wrong = (what) => new Error(`Conversation ${index + 1} of this file ${what}.`);
  const listed = object(object(given)?.messages);
  if (!listed) throw wrong("has no messages");
  const messages = {};
  for (const message of Object.values(listed)) {
    const isMessage = typeof message?.id === "string" && ["user", "assistant"].includes(message.role);
    if (!isMessage || typeof message.content !== "string") throw wrong("has a message without id, role or content");
    messages[message.id] = checkedMessage(message);
  }
  const ids = new Set(Object.keys(messages));
  if (Object.values(messages).some(({ parent }) => parent !== null && !ids.has(parent)))
    throw wrong("has a message whose parent is missing");
  if (given.leaf !== null && !ids.has(given.leaf)) throw wrong("does not say which message is the last");
  if (hasCycle(messages)) throw wrong("has messages that follow each other in a circle");
  const now = Date.now();
  return {
    id: string(given.id, newId()),
    title: string(given.title),
    created: number(given.created, now),
    updated: number(given.updated, now),
    settings: checkedSettings(object(given.settings) ?? {}),
    messages,
    leaf: given.leaf,
  };
}

function checkedMessage(message) {
  const toolCalls = Array.isArray(message.toolCalls) ? message.toolCalls.filter(object) : [];
  return {
    id: message.id,
    parent: typeof message.parent === "string" ? message.parent : null,
    role: message.role,
    content: message.content,
    reasoning: string(message.reasoning),
    toolCalls: toolCalls.map((call) => ({ name: string(call.name), arguments: string(call.arguments) })),
    created: number(message.created, Date.now()),
    model: string(message.model, null),
    usage: numbers(message.usage),
    timing: numbers(message.timing),
    finish: string(message.finish, null),
    error: object(message.error) ? { message: string(message.error.message) } : null,
  };
}

const numbers = (value) =>
  object(value) ? Object.fromEntries(Object.entries(value).filter(([, one]) => Number.isFinite(one))) : null;

const checkedSettings = (settings) => ({
  ...numbers(settings),
  ...Object.fromEntries(Object.entries(settings).filter(([, one]) => typeof one === "string")),
});

function hasCycle(messages) {
  const ends = new Set([null]);
  for (const start of Object.keys(messages)) {
    const walked = new Set();
    let id = start;
    for (; !ends.has(id); id = messages[id].parent) {
      if (walked.has(id)) return true;
      walked.add(id);
    }
    for (const one of walked) ends.add(one);
  }
  return false;
}
