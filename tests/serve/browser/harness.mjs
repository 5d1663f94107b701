// Runs one scenario: a browser at the page of the server whose address is the first argument.
// A scenario fails on a failed assertion, on an error in the page, and on any request to another origin.

import assert from "node:assert/strict";
import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";
import { chromium } from "playwright-core";

const BROWSERS = ["chromium", "google-chrome", "google-chrome-stable", "chromium-browser"];
const PATIENCE = 20_000; // ms for what must happen sooner or later

function findBrowser() {
  const folders = (process.env.PATH ?? "").split(delimiter);
  const paths = process.env.CHROMIUM ? [process.env.CHROMIUM] : BROWSERS.flatMap((n) => folders.map((f) => join(f, n)));
  const found = paths.find((path) => {
    try {
      accessSync(path, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
  assert.ok(found, "There is no Chromium here; scripts/ensure_browser.sh installs it.");
  return found;
}

/**
 * `play` gets `page`, `context`, `browser`, `url`, further arguments as `rest`, and `requests`: the bodies of chat
 * completions, parsed. `expected`: patterns of console errors that the scenario causes on purpose. `ready`:
 * what the page shows once it has been loaded.
 */
export async function scenario(play, { expected = [], ready = "#message:focus" } = {}) {
  const [url, ...rest] = process.argv.slice(2);
  // Containers run as root, with little shared memory.
  const args = ["--no-sandbox", "--disable-dev-shm-usage"];
  const browser = await chromium.launch({ executablePath: findBrowser(), args });
  try {
    const context = await browser.newContext({ viewport: { width: 1100, height: 750 } });
    const page = await context.newPage();
    page.setDefaultTimeout(PATIENCE);
    const errors = [];
    const foreign = [];
    const requests = [];
    page.on("console", (message) => message.type() === "error" && errors.push(message.text()));
    page.on("pageerror", (error) => errors.push(error.stack ?? error.message));
    page.on("dialog", (dialog) => {
      errors.push(`dialog: ${dialog.message()}`);
      dialog.dismiss();
    });
    page.on("popup", (opened) => foreign.push(`window: ${opened.url()}`));
    context.on("request", (request) => {
      const { protocol, origin, pathname } = new URL(request.url());
      if (protocol.startsWith("http") && origin !== new URL(url).origin) foreign.push(request.url());
      if (pathname === "/v1/chat/completions") requests.push(request.postDataJSON());
    });
    await page.goto(url);
    await page.locator(ready).waitFor();
    await play({ browser, context, page, url, rest, requests });
    const unexpected = errors.filter((text) => !expected.some((pattern) => pattern.test(text)));
    assert.deepEqual(unexpected, [], "errors in the page");
    assert.deepEqual(foreign, [], "requests that left the server");
  } finally {
    await browser.close();
  }
}

/** Sends a message with the Enter key. */
export async function ask(page, text) {
  await page.locator("#message").fill(text);
  await page.locator("#message").press("Enter");
}

export const answers = (page) => page.locator(".message.assistant");
export const lastAnswer = (page) => answers(page).last();

/** Returns when nothing is being written any more, in the conversation that is shown. */
export async function written(page) {
  await page.locator('#send[title="Send"]').waitFor();
}

/** The parts of a streamed answer as the server would send them, as the body of a response. */
export function streamed(deltas, { finish = "stop", usage = null, done = true } = {}) {
  const event = (object) => `data: ${JSON.stringify({ id: "x", object: "chat.completion.chunk", model: "m", ...object })}\n\n`;
  const choice = (delta, finish_reason = null) => event({ choices: [{ index: 0, delta, finish_reason }] });
  const parts = deltas.map((delta) => choice(typeof delta === "string" ? { content: delta } : delta));
  if (finish) parts.push(choice({}, finish));
  if (usage) parts.push(event({ choices: [], usage }));
  if (done) parts.push("data: [DONE]\n\n");
  return parts.join("");
}

/** Answers the page's next chat completions with these bodies, or functions of the route, one after another. */
export async function answerWith(page, ...bodies) {
  await page.unroute("**/v1/chat/completions");
  await page.route("**/v1/chat/completions", (route) => {
    const body = bodies.length > 1 ? bodies.shift() : bodies[0];
    if (typeof body === "function") return body(route);
    return route.fulfill({ status: 200, contentType: "text/event-stream", body });
  });
}

/** Sets fields of the settings' dialog. */
export async function choose(page, { system, ...sampling }) {
  await page.getByRole("button", { name: "Settings" }).click();
  if (system !== undefined) await page.getByLabel("System prompt").fill(system);
  for (const [name, value] of Object.entries(sampling)) await page.locator(`#sampling-${name}`).fill(String(value));
  await page.getByRole("button", { name: "Done" }).click();
  await page.locator("#settings").waitFor({ state: "hidden" });
}

export { assert };
