// What is set reaches the request; what is not set is not sent; what cannot be is said beside its field.

import { ask, assert, choose, scenario, written } from "./harness.mjs";

await scenario(async ({ page, requests }) => {
  await choose(page, { max_tokens: 3 });
  await ask(page, "plain");
  await written(page);
  const { model, messages, ...plain } = requests[0];
  assert.ok(model);
  assert.deepEqual(messages, [{ role: "user", content: "plain" }]);
  assert.deepEqual(plain, { max_tokens: 3, stream: true, stream_options: { include_usage: true } });

  const sampling = {
    temperature: 0.7, top_p: 0.9, top_k: 12, min_p: 0.05, max_tokens: 4, seed: 1234, presence_penalty: 0.5, frequency_penalty: -0.5,
  };
  await choose(page, { ...sampling, system: "Be brief." });
  await ask(page, "set");
  await written(page);
  const { messages: sent, ...rest } = requests[1];
  assert.deepEqual(sent[0], { role: "system", content: "Be brief." });
  assert.deepEqual(rest, { model, ...sampling, stream: true, stream_options: { include_usage: true } });
  assert.equal(await page.locator(".error p").count(), 0, "the server takes all of them");

  await page.getByRole("button", { name: "Settings" }).click();
  assert.equal(await page.locator("#sampling-top_k").inputValue(), "12");
  await page.locator("#sampling-temperature").fill("3");
  await page.locator("#sampling-top_k").fill("1.5");
  await page.locator("#sampling-max_tokens").fill("0");
  await page.getByRole("button", { name: "Done" }).click();
  assert.equal(await page.locator("#sampling-temperature-error").textContent(), "From 0 to 2");
  assert.equal(await page.locator("#sampling-top_k-error").textContent(), "A whole number, please");
  assert.equal(await page.locator("#sampling-max_tokens-error").textContent(), "At least 1");
  assert.equal(await page.evaluate(() => document.activeElement.id), "sampling-temperature");
  await page.getByRole("button", { name: "Reset" }).click();
  await page.locator("#sampling-max_tokens").fill("3");
  await page.getByRole("button", { name: "Done" }).click();

  // A new conversation begins with what was chosen last.
  await page.getByRole("button", { name: "New conversation" }).first().click();
  await ask(page, "reset");
  await written(page);
  assert.deepEqual(requests[2], { ...requests[0], messages: [{ role: "user", content: "reset" }] });
});
