// Pictures of the page for the documentation, from a running server. Arguments: its address, and a folder.

import { join } from "node:path";
import { ask, assert, choose, scenario, written } from "./harness.mjs";

const SYSTEM = "You are a helpful assistant. Answer in Markdown, briefly.";
const QUESTIONS = ["What is a GPU good at?", "Write a Python function that tells whether a number is prime."]; // a conversation each

await scenario(async ({ page, rest: [folder] }) => {
  await page.emulateMedia({ colorScheme: "light", reducedMotion: "reduce" });
  page.setDefaultTimeout(300_000); // a real model, perhaps on a CPU
  await choose(page, { system: SYSTEM, temperature: 0, max_tokens: 220 });
  for (const question of QUESTIONS) {
    await page.getByRole("button", { name: "New conversation" }).first().click();
    await ask(page, question);
    await written(page);
    assert.equal(await page.locator(".error p").count(), 0);
  }
  const shoot = async (name, width, height, colorScheme) => {
    await page.setViewportSize({ width, height });
    await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
    await page.mouse.move(0, 0);
    await page.screenshot({ path: join(folder, `chat-${name}.png`) });
  };
  await shoot("light", 1100, 760, "light");
  await shoot("dark", 1100, 760, "dark");
  await shoot("narrow", 390, 760, "light");
});
