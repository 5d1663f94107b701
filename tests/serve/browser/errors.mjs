// What goes wrong is said where it happened, with a way to go on; nothing that was written is lost.

import { answerWith, answers, ask, assert, choose, lastAnswer, scenario, streamed, written } from "./harness.mjs";

const refusal = (status, message, headers = {}) => (route) =>
  route.fulfill({ status, headers, contentType: "application/json", body: JSON.stringify({ error: { message } }) });

await scenario(
  async ({ page, context, requests }) => {
    const error = () => lastAnswer(page).getByRole("alert").locator("p").textContent();
    const again = async () => {
      await lastAnswer(page).getByRole("button", { name: "Try again" }).click();
      await written(page);
    };
    // The server's own refusal: more than fits its context.
    await choose(page, { max_tokens: 5, temperature: 0 });
    await ask(page, "too long ".repeat(3000));
    await written(page);
    assert.equal(requests.length, 1);
    assert.match(await error(), /^The prompt has \d+ tokens, but there is room for \d+; .*\.$/);
    await page.locator(".message.user").getByRole("button", { name: "Edit and retry" }).click();
    await page.getByLabel("Edited message").fill("short");
    await page.getByLabel("Edited message").press("Enter");
    await written(page);
    assert.equal((await lastAnswer(page).locator(".answer").textContent()).length, 5);

    await answerWith(
      page,
      refusal(500, "It broke."),
      refusal(429, "Too many requests.", { "Retry-After": "7" }),
      (route) => route.fulfill({ status: 502, contentType: "text/html", body: "<h1>Bad gateway</h1>" }),
      (route) => route.abort("connectionreset"),
      streamed(["Half an"], { done: false, finish: null }),
      `${streamed(["Half an answer"], { done: false, finish: null })}data: {"error": {"message": "The engine failed."}}\n\n`,
      `${streamed(["Half"], { done: false, finish: null })}data: {no json\n\n`,
      streamed(["Whole."]),
    );
    await ask(page, "go on");
    await written(page);
    assert.equal(await error(), "It broke.");
    await again();
    assert.equal(await error(), "Too many requests. Try again in 7 s.");
    await again();
    assert.equal(await error(), "The server answered with status 502.");
    await again();
    assert.equal(await error(), "The server does not answer.");
    await again();
    assert.equal(await error(), "The connection broke off before the answer was complete.");
    assert.equal(await lastAnswer(page).locator(".answer").textContent(), "Half an", "what came is kept");
    await again();
    assert.equal(await error(), "The engine failed.");
    await again();
    assert.equal(await error(), "The server sent an event that is no JSON.");
    await again();
    assert.equal(await lastAnswer(page).locator(".error p").count(), 0);
    assert.equal(await lastAnswer(page).locator(".answer").textContent(), "Whole.");
    assert.equal(await answers(page).count(), 2);
    // Only what said something is kept as another version.
    assert.match(await lastAnswer(page).locator(".version").textContent(), /4\/4/);
    await page.unroute("**/v1/chat/completions");

    // The server goes away, and comes back.
    await context.setOffline(true);
    await ask(page, "anyone?");
    await written(page);
    assert.equal(await error(), "The server does not answer.");
    await page.locator("#banner", { hasText: "The server does not answer." }).waitFor();
    await page.locator("#message").fill("kept");
    await context.setOffline(false);
    await page.locator("#banner").waitFor({ state: "hidden" });
    assert.equal(await page.locator("#announcer").textContent(), "The server is back.");
    assert.equal(await page.locator("#message").inputValue(), "kept");
    await again();
    assert.equal((await lastAnswer(page).locator(".answer").textContent()).length, 5);

    // An answer that was cut off by leaving the page says so.
    await choose(page, { max_tokens: "" });
    await page.getByRole("button", { name: "New conversation" }).first().click();
    await ask(page, "cut");
    const keptSome = () => page.evaluate(async () => {
      const database = await new Promise((done) => (indexedDB.open("chat").onsuccess = ({ target }) => done(target.result)));
      const all = database.transaction("conversations").objectStore("conversations").getAll();
      const kept = await new Promise((done) => (all.onsuccess = () => done(all.result)));
      database.close();
      const { messages, leaf } = kept.find(({ title }) => title === "cut") ?? { messages: {} };
      return (messages[leaf]?.content ?? "") !== "";
    });
    while (!(await keptSome())) await new Promise((done) => setTimeout(done, 100));
    await page.reload();
    await lastAnswer(page).locator(".stats", { hasText: "Not complete" }).waitFor();
    assert.ok((await lastAnswer(page).locator(".answer").textContent()).length > 0);
  },
  { expected: [/Failed to load resource/] },
);
