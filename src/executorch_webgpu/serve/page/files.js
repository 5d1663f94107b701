// Conversations as files: written by this page, and read whoever wrote them.

import { newId } from "./conversation.js";
import { element } from "./elements.js";

const FORMAT = "executorch-webgpu-chat";
const VERSION = 1;
const ID = /^[0-9a-f]{24}$/; // as newId makes them

/** Offers conversations as a file. */
export function download(conversations, name) {
  const text = JSON.stringify({ format: FORMAT, version: VERSION, conversations }, null, 1);
  const safe = name.replace(/[^\p{L}\p{N} _-]+/gu, "").trim().slice(0, 60) || "conversation";
  const file = new Blob([text], { type: "application/json" });
  const link = element("a", { href: URL.createObjectURL(file), download: `${safe}.json` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
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
    const isMessage = ID.test(message?.id) && ["user", "assistant"].includes(message.role);
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
    id: ID.test(given.id) ? given.id : newId(),
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
