// Server-sent events (WHATWG HTML, section 9.2): text in any pieces -> the data of each event.

/** Cuts a stream of text into events. A piece may end anywhere, between CR and LF too. */
export class EventParser {
  #line = ""; // the line that has not ended yet
  #data = []; // the `data` lines of the event that has not ended yet
  #afterReturn = false; // the last piece ended with CR: an LF that follows belongs to it

  /** Takes the next piece of text; yields the data of each event that it completes. */
  *push(text) {
    if (text === "") return;
    let start = this.#afterReturn && text[0] === "\n" ? 1 : 0;
    this.#afterReturn = text.endsWith("\r");
    const ends = /\r\n|\n|\r/g;
    ends.lastIndex = start;
    for (let end = ends.exec(text); end; end = ends.exec(text)) {
      const line = this.#line + text.slice(start, end.index);
      this.#line = "";
      start = ends.lastIndex;
      const event = this.#take(line);
      if (event !== null) yield event;
    }
    this.#line += text.slice(start);
  }

  #take(line) {
    if (line === "") {
      const event = this.#data.length ? this.#data.join("\n") : null;
      this.#data = [];
      return event;
    }
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon); // a line that begins with ":" is a comment
    if (field === "data") this.#data.push(colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, ""));
    return null;
  }
}

/** Yields the data of each event of a body. An event that no blank line ends is dropped, as the standard says. */
export async function* readEvents(stream) {
  const reader = stream.getReader();
  const decoder = new TextDecoder();
  const parser = new EventParser();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield* parser.push(decoder.decode(value, { stream: true }));
    }
  } finally {
    reader.cancel().catch(() => {}); // whoever stops reading closes the connection
  }
}
