// Messages can be edited, answered again, copied and deleted; what was there before can be had back.

import { answers, ask, assert, choose, lastAnswer, scenario, written } from "./harness.mjs";

await scenario(async ({ page, context, requests }) => {
  await context.grantPermissions(["clipboard-read", "clipboard-write"]);
  const users = page.locator(".message.user");
  await choose(page, { max_tokens: 8, temperature: 0 });
  await ask(page, "one");
  await written(page);
  await ask(page, "two");
  await written(page);
  const first = await answers(page).first().locator(".answer").textContent();

  // Escape leaves a message as it was, with the focus where it came from.
  await users.first().getByRole("button", { name: "Edit and retry" }).click();
  await page.getByLabel("Edited message").fill("something else");
  await page.getByLabel("Edited message").press("Escape");
  assert.equal(await users.first().locator(".bubble").textContent(), "one");
  assert.equal(await page.evaluate(() => document.activeElement.getAttribute("aria-label")), "Edit and retry");

  await page.keyboard.press("Enter");
  await page.getByLabel("Edited message").fill("three\nlines");
  await page.getByLabel("Edited message").press("Enter");
  await written(page);
  assert.deepEqual(requests.at(-1).messages, [{ role: "user", content: "three\nlines" }]);
  assert.deepEqual(await users.locator(".bubble").allTextContents(), ["three\nlines"]);
  assert.equal(await answers(page).count(), 1);

  // Both versions are kept.
  assert.match(await users.first().locator(".version").textContent(), /2\/2/);
  await users.first().getByRole("button", { name: "Previous version" }).click();
  assert.deepEqual(await users.locator(".bubble").allTextContents(), ["one", "two"]);
  assert.equal(await answers(page).first().locator(".answer").textContent(), first);

  // Another answer to the same question.
  await answers(page).last().getByRole("button", { name: "Write another answer" }).click();
  await written(page);
  assert.deepEqual(requests.at(-1).messages.map(({ content }) => content), ["one", first, "two"]);
  assert.match(await lastAnswer(page).locator(".version").textContent(), /2\/2/);
  const second = await lastAnswer(page).locator(".answer").textContent();

  // An answer that was cut off goes on where it ended.
  await lastAnswer(page).getByRole("button", { name: "Go on with this answer" }).click();
  await written(page);
  const longer = await lastAnswer(page).locator(".answer").textContent();
  assert.equal(longer.length, 16);
  assert.ok(longer.startsWith(second));
  assert.equal(requests.at(-1).continue_final_message, true);
  assert.deepEqual(requests.at(-1).messages.at(-1), { role: "assistant", content: second });
  assert.match(await lastAnswer(page).locator(".stats").textContent(), / 16 tokens /);

  await lastAnswer(page).getByRole("button", { name: "Copy message" }).click();
  await lastAnswer(page).getByRole("button", { name: "Copied" }).waitFor();
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), longer);

  // Deleting takes what follows along; undo brings it back.
  await users.last().hover();
  await users.last().getByRole("button", { name: "Delete from here" }).click();
  assert.deepEqual(await users.locator(".bubble").allTextContents(), ["one"]);
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "Undo");
  await page.keyboard.press("Enter");
  assert.deepEqual(await users.locator(".bubble").allTextContents(), ["one", "two"]);
  assert.equal(await lastAnswer(page).locator(".answer").textContent(), longer);
});
