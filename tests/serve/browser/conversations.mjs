// Several conversations are kept in the browser, each with its settings; files carry them to another one.

import { readFile } from "node:fs/promises";
import { ask, assert, choose, lastAnswer, scenario, written } from "./harness.mjs";

await scenario(async ({ browser, context, page, url, requests }) => {
  const titles = () => page.locator("#conversations .row-title").allTextContents();
  const openMenu = async (title, entry) => {
    await page.locator("#conversations li", { hasText: title }).hover();
    await page.getByRole("button", { name: `More about “${title}”` }).click();
    await page.locator("#menu").getByRole("button", { name: entry }).click();
  };
  await choose(page, { max_tokens: 8, temperature: 0, system: "You are the first." });
  await ask(page, "apples");
  await written(page);
  const apples = await lastAnswer(page).locator(".answer").textContent();
  await page.getByRole("button", { name: "New conversation" }).first().click();
  await choose(page, { system: "You are the second.", seed: 5 });
  await ask(page, "pears");
  await written(page);
  assert.deepEqual(await titles(), ["pears", "apples"]);
  const [first, second] = requests.map(({ messages, seed }) => [messages, seed]);
  assert.deepEqual(first, [[{ role: "system", content: "You are the first." }, { role: "user", content: "apples" }], undefined]);
  assert.deepEqual(second, [[{ role: "system", content: "You are the second." }, { role: "user", content: "pears" }], 5]);

  // Another tab has them as soon as they change.
  const tab = await context.newPage();
  await tab.goto(url);
  await tab.locator("#conversations .row-title", { hasText: "pears" }).waitFor();
  await page.getByRole("button", { name: "New conversation" }).first().click();
  await ask(page, "plums");
  await tab.getByRole("button", { name: "plums", exact: true }).click();
  await written(page);
  const plums = await lastAnswer(page).locator(".answer").textContent();
  await tab.locator(".answer", { hasText: plums }).waitFor();
  await tab.close();
  await openMenu("plums", "Delete");
  await page.getByRole("button", { name: "pears", exact: true }).click();

  // A new page knows them, and goes on where the last one was.
  await page.locator("#message").fill("not sent yet");
  await page.reload();
  await page.locator("#message:focus").waitFor();
  assert.deepEqual(await titles(), ["pears", "apples"]);
  assert.equal(await page.locator("h1").textContent(), "pears");
  assert.equal(await page.locator("#message").inputValue(), "not sent yet");
  await page.getByRole("button", { name: "apples", exact: true }).click();
  assert.equal(await lastAnswer(page).locator(".answer").textContent(), apples);
  assert.equal(await page.locator("#message").inputValue(), "");
  await ask(page, "more apples");
  await written(page);
  assert.equal(requests.at(-1).messages[0].content, "You are the first.");
  assert.deepEqual(requests.at(-1).messages.slice(1).map(({ content }) => content), ["apples", apples, "more apples"]);
  await page.goBack();
  await page.waitForFunction(() => document.querySelector("h1").textContent === "pears");
  await page.goForward();
  await page.waitForFunction(() => document.querySelector("h1").textContent === "apples");

  // An answer goes on while another conversation is looked at.
  await choose(page, { max_tokens: 60 });
  await ask(page, "long");
  await page.getByRole("button", { name: "pears", exact: true }).click();
  await page.locator("#conversations li", { hasText: "apples" }).locator(".running").waitFor({ state: "detached" });
  await page.getByRole("button", { name: "apples", exact: true }).click();
  assert.equal((await lastAnswer(page).locator(".answer").textContent()).length, 60);

  await openMenu("apples", "Rename");
  await page.getByLabel("Title").fill("Fruit <b>");
  await page.getByLabel("Title").press("Enter");
  assert.equal(await page.locator("h1").textContent(), "Fruit <b>");

  const downloading = page.waitForEvent("download");
  await page.getByRole("button", { name: "Export all" }).click();
  const file = await (await downloading).path();
  const { conversations } = JSON.parse(await readFile(file, "utf8"));
  assert.deepEqual(conversations.map(({ title }) => title).sort(), ["Fruit <b>", "pears"]);

  await openMenu("pears", "Delete");
  assert.deepEqual(await titles(), ["Fruit <b>"]);
  await page.getByRole("button", { name: "Undo" }).click();
  await openMenu("pears", "Delete");
  await page.reload();
  await page.locator("#message:focus").waitFor();
  assert.deepEqual(await titles(), ["Fruit <b>"]);

  // Another browser takes the file; this one takes only what it lacks.
  const importFile = (where, path) => where.locator("#import-file").setInputFiles(path);
  await importFile(page, file);
  await page.getByText("Imported 1; 1 was here already.").waitFor();
  const elsewhere = await (await browser.newContext()).newPage();
  await elsewhere.goto(url);
  await importFile(elsewhere, file);
  await elsewhere.getByText("Imported 2.").waitFor();
  await elsewhere.getByRole("button", { name: "Fruit <b>", exact: true }).click();
  assert.equal(await elsewhere.locator(".answer").first().textContent(), apples);

  // A file that is wrong in any way changes nothing, and the page says what is wrong.
  const [a, b] = ["a", "b"].map((letter) => letter.repeat(24));
  const message = { id: a, role: "user", content: "x", parent: null };
  const holds = (messages, leaf = a) => JSON.stringify({ format: "executorch-webgpu-chat", version: 1, conversations: [{ messages, leaf }] });
  const wrong = [
    ["{", "This file is no JSON."],
    ["[1]", "This file holds no conversations of this page."],
    ['{"format": "executorch-webgpu-chat", "version": 2}', "This file has version 2; this page reads 1."],
    [holds(null), "Conversation 1 of this file has no messages."],
    [holds({ a: { ...message, content: 5 } }), "Conversation 1 of this file has a message without id, role or content."],
    [holds({ a: { ...message, id: "__proto__" } }), "Conversation 1 of this file has a message without id, role or content."],
    [holds({ a: { ...message, parent: b } }), "Conversation 1 of this file has a message whose parent is missing."],
    [holds({ a: message }, b), "Conversation 1 of this file does not say which message is the last."],
    [holds({ a: { ...message, parent: b }, b: { ...message, id: b, parent: a } }), "Conversation 1 of this file has messages that follow each other in a circle."],
  ];
  for (const [text, sentence] of wrong) {
    await importFile(elsewhere, { name: "x.json", mimeType: "application/json", buffer: Buffer.from(text) });
    await elsewhere.getByText(sentence).waitFor();
  }
  assert.equal(await elsewhere.locator("#conversations li").count(), 2);
  await elsewhere.reload();
  await elsewhere.locator("#message:focus").waitFor();
  assert.equal(await elsewhere.locator("#conversations li").count(), 2);
});
