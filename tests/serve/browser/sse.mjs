// The parser of server-sent events gives the same events however the bytes are cut. Needs no browser.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";

// As text, since Node.js 18 takes a .js file for CommonJS where no package.json says otherwise.
const source = await readFile(new URL("../../../src/executorch_webgpu/serve/page/sse.js", import.meta.url), "utf8");
const { EventParser, readEvents } = await import(`data:text/javascript,${encodeURIComponent(source)}`);

const body = (pieces) =>
  new ReadableStream({
    start(controller) {
      for (const piece of pieces) controller.enqueue(piece);
      controller.close();
    },
  });
const read = async (pieces) => {
  const events = [];
  for await (const event of readEvents(body(pieces))) events.push(event);
  return events;
};

const lines = [": a comment", "", 'data: {"é": "漢字 🙂"}', "", "event: x", "id: 7", "data:no space", "data:  two", "data", "", "data: [DONE]", ""];
const events = ['{"é": "漢字 🙂"}', "no space\n two\n", "[DONE]"];
for (const end of ["\n", "\r\n", "\r"]) {
  const bytes = new TextEncoder().encode(lines.join(end) + end);
  assert.deepEqual(await read([bytes]), events);
  for (let first = 0; first <= bytes.length; first += 1) {
    assert.deepEqual(await read([bytes.slice(0, first), bytes.slice(first)]), events, `cut at ${first}`);
    const second = Math.min(first + 1, bytes.length);
    assert.deepEqual(await read([bytes.slice(0, first), bytes.slice(first, second), bytes.slice(second)]), events);
  }
  assert.deepEqual(await read(Array.from(bytes, (byte) => Uint8Array.of(byte))), events);
}
assert.deepEqual(await read([]), []);
assert.deepEqual(await read([new TextEncoder().encode("data: whole\n\ndata: cut off")]), ["whole"]);
assert.deepEqual([...new EventParser().push("data: a\n\ndata: b\r\rdata: c\r\n\r\n")], ["a", "b", "c"]);

// Whoever stops reading closes the connection.
let cancelled = false;
const endless = new ReadableStream({
  pull: (controller) => controller.enqueue(new TextEncoder().encode("data: x\n\n")),
  cancel: () => {
    cancelled = true;
  },
});
for await (const event of readEvents(endless)) {
  assert.equal(event, "x");
  break;
}
assert.ok(cancelled);
