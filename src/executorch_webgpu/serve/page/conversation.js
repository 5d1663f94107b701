// A conversation is a tree of messages: a second answer, or an edited question, stands beside the first one.
// What is shown is the path from the root to `leaf`.
//
//   conversation: { id, title, created, updated, settings, messages: { [id]: message }, leaf }
//   message:      { id, parent, role, content, reasoning, toolCalls, created, model, usage, timing, finish, error }

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
