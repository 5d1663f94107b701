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
    // What is there already is continued.
    this.begun = message.content !== "";
    this.before = { tokens: message.usage?.completion ?? message.timing?.pieces ?? 0, timing: message.timing };
    message.finish = message.error = null;
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
      messages: requestMessages(conversation, this.begun ? message.id : message.parent),
      ...(this.begun ? { continue_final_message: true } : {}),
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
    if (this.#first !== null) message.timing = this.#timing();
  }

  #timing() {
    const { tokens, timing } = this.before;
    return {
      first: timing?.first ?? this.#first - this.#started,
      writing: (timing?.writing ?? 0) + this.#last - this.#first,
      pieces: tokens + this.pieces,
    };
  }

  #take(chunk) {
    const { message } = this;
    if (chunk.model) message.model = chunk.model;
    if (chunk.usage) {
      const { prompt_tokens, completion_tokens, prompt_tokens_details } = chunk.usage;
      const cached = prompt_tokens_details?.cached_tokens ?? 0;
      // The prompt of a continued answer ends with what was there of it.
      const { tokens } = this.before;
      message.usage = { prompt: prompt_tokens - tokens, completion: tokens + completion_tokens, cached };
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
