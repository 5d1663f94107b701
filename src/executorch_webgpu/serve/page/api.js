// The server's API: the key, errors as one sentence, and chat completions as a stream.

import { readEvents } from "./sse.js";

const KEY = "api-key";
// Relative to the page, so that it works below a proxy's prefix too.
const url = (path) => new URL(path, document.baseURI);

/**
 * What a request ended with. `kind` is "http" (the server refused it), "network" (nothing answers) or
 * "broken" (the answer began, and did not end). `retryAfter`: seconds that the server asks to wait, or null.
 */
export class ApiError extends Error {
  constructor(message, kind, status = 0, retryAfter = null) {
    super(message);
    this.kind = kind;
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

let key = "";
try {
  key = sessionStorage.getItem(KEY) ?? "";
} catch {
  // Kept for as long as the page is open.
}

/** Sets the key that requests are sent with; it is kept until the tab is closed. */
export function setKey(value) {
  key = value;
  try {
    sessionStorage.setItem(KEY, value);
  } catch {
    // As above.
  }
}

export const hasKey = () => key !== "";

async function request(path, options = {}) {
  const headers = { ...options.headers };
  if (key) headers.Authorization = `Bearer ${key}`;
  let response;
  try {
    response = await fetch(url(path), { cache: "no-store", redirect: "error", ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server does not answer.", "network");
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

async function refusal(response) {
  const fallback = `The server answered with status ${response.status}.`;
  const wait = Number.parseInt(response.headers.get("Retry-After") ?? "", 10);
  let message = null;
  try {
    message = (await response.json()).error?.message;
  } catch {
    // No JSON: a proxy in between, perhaps.
  }
  return new ApiError(sentence(message, fallback), "http", response.status, Number.isNaN(wait) ? null : wait);
}

// What a server says about an error, as a sentence of the page.
function sentence(message, otherwise) {
  if (typeof message !== "string" || !message) return otherwise;
  const text = message[0].toUpperCase() + message.slice(1);
  return /[.!?]$/.test(text) ? text : `${text}.`;
}

/** Whether the server is "up", "starting" (it answers that it is not ready), or "down". */
export async function health() {
  try {
    const response = await fetch(url("health"), { cache: "no-store", signal: AbortSignal.timeout(5000) });
    if (response.ok) return "up";
    return response.status === 503 ? "starting" : "down";
  } catch {
    return "down";
  }
}

/** Returns the served models, as objects of OpenAI's API. */
export async function models() {
  const response = await request("v1/models", { signal: AbortSignal.timeout(10000) });
  const { data } = await response.json();
  return Array.isArray(data) ? data : [];
}

/** Yields each chunk of a chat completion. Throws ApiError, or AbortError once `signal` says stop. */
export async function* streamChat(body, signal) {
  const response = await request("v1/chat/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json", Accept: "text/event-stream" },
    body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } }),
    signal,
  });
  const broken = () => new ApiError("The connection broke off before the answer was complete.", "broken");
  try {
    for await (const data of readEvents(response.body)) {
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (chunk?.error) throw new ApiError(sentence(chunk.error.message, "The server reported an error."), "http");
      if (chunk) yield chunk;
    }
  } catch (error) {
    if (error.name === "AbortError" || error instanceof ApiError) throw error;
    if (error instanceof SyntaxError) throw new ApiError("The server sent an event that is no JSON.", "broken");
    throw broken();
  }
  throw broken();
}
