// A server that wants a key: the page asks for it once the server has, keeps it for this tab, and sends it.
// At the end the server, whose process id is an argument beside the key, is killed in the middle of an answer.

import { ask, assert, choose, lastAnswer, scenario, written } from "./harness.mjs";

await scenario(
  async ({ page, context, url, rest: [key, processId] }) => {
    const sent = [];
    page.on("request", (request) => request.url().includes("/v1/") && sent.push(request.headers().authorization));
    const dialog = page.locator("#key-dialog");
    const enter = async (text) => {
      await page.locator("#key").fill(text);
      await page.locator("#key").press("Enter");
    };
    await enter("two words");
    await page.getByText("A key has letters, digits and signs, without spaces.").waitFor();
    await enter("wrong");
    await page.getByText("The server does not accept this key. Enter another one.").waitFor();
    await page.keyboard.press("Escape");
    await dialog.waitFor({ state: "hidden" });

    await choose(page, { temperature: 0 });
    await ask(page, "hello");
    await dialog.waitFor();
    await page.keyboard.press("Escape");
    await lastAnswer(page).getByRole("button", { name: "Enter the API key" }).click();
    await enter(key);
    await dialog.waitFor({ state: "hidden" });
    await page.locator(".answer", { hasText: /[A-Z]{3}/ }).waitFor(); // the question is asked again
    await page.keyboard.press("Escape");
    await written(page);
    assert.equal(sent.at(-1), `Bearer ${key}`);
    assert.ok((await page.locator("#model-name").textContent()).length > 0);

    // It is in this tab only, not in what lasts.
    await page.reload();
    await page.locator("#model-name:not(:empty)").waitFor();
    const kept = await page.evaluate(async () => {
      const databases = await indexedDB.databases();
      const open = (name) => new Promise((done) => (indexedDB.open(name).onsuccess = ({ target }) => done(target.result)));
      const all = (store) => new Promise((done) => (store.getAll().onsuccess = ({ target }) => done(target.result)));
      const stored = [];
      for (const { name } of databases) {
        const database = await open(name);
        for (const store of database.objectStoreNames) stored.push(await all(database.transaction(store).objectStore(store)));
      }
      return JSON.stringify([{ ...localStorage }, stored, document.cookie, location.href]);
    });
    assert.ok(kept.includes("hello") && !kept.includes(key), kept);
    const other = await context.newPage();
    await other.goto(url);
    await other.locator("#key-dialog").waitFor();
    await other.close();

    await page.getByRole("button", { name: "Settings" }).click();
    await page.getByRole("button", { name: "Forget the API key" }).click();
    await choose(page, { max_tokens: 3 });
    await ask(page, "still there?");
    await dialog.waitFor();
    assert.equal(sent.at(-1), undefined);
    await enter(key);
    await dialog.waitFor({ state: "hidden" });
    await written(page);

    await choose(page, { max_tokens: "" });
    await ask(page, "to the end");
    await lastAnswer(page).locator(".answer", { hasText: /[A-Z]{3}/ }).waitFor();
    process.kill(Number(processId), "SIGKILL");
    await page.locator("#banner", { hasText: "The server does not answer." }).waitFor();
    assert.equal(await lastAnswer(page).locator(".error p").textContent(), "The connection broke off before the answer was complete.");
    assert.match(await lastAnswer(page).locator(".answer").textContent(), /^[A-Z]{3,}$/, "what came is kept");
  },
  { expected: [/Failed to load resource/], ready: "#key-dialog" },
);
