// One answer while it is written: sends the request, and puts what comes into the message.

import { ApiError, streamChat } from "./api.js";
import { requestMessages } from "./conversation.js";
import { samplingFields } from "./settings.js";

export class Run {
  #abort = new AbortController();
  #started = performance.now();
  #first = null;
  #last = null;
  /** Pieces that came so far: about as many as tokens. */
  pieces = 0;

  /** `message`: an answer of `conversation`, whose parent is the question. */
  constructor(conversation, message, model) {
    this.conversation = conversation;
    this.message = message;
    this.model = model;
  }

  stop() {
    this.#abort.abort();
  }

  /** Tokens per second so far, or null. */
  get rate() {
    const seconds = (this.#last - this.#first) / 1000;
    return this.pieces > 1 && seconds > 0 ? (this.pieces - 1) / seconds : null;
  }

  /** Calls `onChange()` after each piece. Returns when the answer has ended, in whatever way; the message says how. */
  async go(onChange) {
    const { message, conversation } = this;
    const body = {
      ...(this.model ? { model: this.model } : {}),
      messages: requestMessages(conversation, message.parent),
      ...samplingFields(conversation.settings),
    };
    try {
      for await (const chunk of streamChat(body, this.#abort.signal)) {
        this.#take(chunk);
        onChange();
      }
      message.finish ??= "stop";
    } catch (error) {
      if (this.#abort.signal.aborted) message.finish = "stopped";
      else message.error = describe(error);
    }
    if (this.#first !== null) {
      message.timing = { first: this.#first - this.#started, writing: this.#last - this.#first };
    }
  }

  #take(chunk) {
    const { message } = this;
    if (chunk.model) message.model = chunk.model;
    if (chunk.usage) {
      const { prompt_tokens, completion_tokens, prompt_tokens_details } = chunk.usage;
      const cached = prompt_tokens_details?.cached_tokens ?? 0;
      message.usage = { prompt: prompt_tokens, completion: completion_tokens, cached };
    }
    const choice = chunk.choices?.[0];
    if (!choice) return;
    const { content, reasoning_content: reasoning, tool_calls: calls = [] } = choice.delta ?? {};
    if (content || reasoning || calls?.length) {
      this.#last = performance.now();
      this.#first ??= this.#last;
      this.pieces += 1;
    }
    message.content += content ?? "";
    message.reasoning += reasoning ?? "";
    for (const call of calls ?? []) addCall(message.toolCalls, call);
    if (choice.finish_reason) message.finish = choice.finish_reason;
  }
}

// A call comes in pieces: its index, then its name, then its arguments bit by bit.
function addCall(calls, { index = 0, function: piece = {} }) {
  while (calls.length <= Math.min(index, 127)) calls.push({ name: "", arguments: "" });
  const call = calls[Math.min(index, 127)];
  call.name += piece.name ?? "";
  call.arguments += piece.arguments ?? "";
}

function describe(error) {
  if (!(error instanceof ApiError)) return { message: `This page could not read the answer: ${error.message}` };
  const { message, kind, status, retryAfter } = error;
  return { message, kind, status, retryAfter };
}
