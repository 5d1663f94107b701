// axe finds nothing in any state of the page, light and wide, dark and narrow.

import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { answerWith, ask, assert, lastAnswer, scenario, streamed, written } from "./harness.mjs";

const axe = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const RICH = `# Title\n\nText with **bold**, \`code\`, [a link](https://example.org) and <kbd>Esc</kbd>.\n
## Second\n\n\`\`\`python\n${"x = 1  # a long line ".repeat(12)}\n\`\`\`\n
| Name | Value |\n|------|------:|\n| a | 1 |\n\n> A quotation\n\n1. one\n2. two\n   - three\n\n- [x] done\n\n---\n\nEnd.`;

await scenario(
  async ({ page }) => {
    await page.evaluate(axe);
    const check = async (state) => {
      const found = await page.evaluate(async () => {
        const { violations, passes } = await axe.run(document, { resultTypes: ["violations"] });
        return { violations: violations.map(({ id, nodes }) => [id, ...nodes.map((n) => `${n.html} ${n.failureSummary}`)]), passes: passes.length };
      });
      assert.ok(found.passes > 10, "axe has looked");
      assert.deepEqual(found.violations, [], state);
    };
    // Without motion, colours are at once what they will be.
    await page.emulateMedia({ reducedMotion: "reduce" });
    const everywhere = async (state) => {
      for (const [colorScheme, width, height] of [["light", 1100, 750], ["dark", 360, 640]]) {
        await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
        await page.setViewportSize({ width, height });
        await check(`${state}, ${colorScheme}, ${width} wide`);
        const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        assert.equal(overflow, 0, `${state}: nothing is wider than a screen of ${width}`);
      }
      await page.setViewportSize({ width: 1100, height: 750 });
    };
    await everywhere("greeting");

    const usage = { prompt_tokens: 30, completion_tokens: 60, prompt_tokens_details: { cached_tokens: 10 } };
    const call = (index, name, text) => ({ tool_calls: [{ index, function: { name, arguments: text } }] });
    await answerWith(
      page,
      streamed([{ reasoning_content: "I *think*.\n\n" }, { reasoning_content: "So." }, RICH], { usage }),
      streamed([call(0, "get_weather", '{"city":'), call(0, "", ' "Rome"}'), call(1, "now", "{}")], { finish: "tool_calls" }),
      (route) => route.fulfill({ status: 500, contentType: "application/json", body: '{"error": {"message": "It broke."}}' }),
    );
    await ask(page, "rich\ntext");
    await written(page);
    assert.equal(await lastAnswer(page).locator(".reasoning > div").textContent(), "");
    await lastAnswer(page).locator("summary").click();
    await lastAnswer(page).locator(".reasoning em", { hasText: "think" }).waitFor();
    assert.match(await page.locator("#context").textContent(), /Context: 90 of [\d,]+ tokens, 10 reused/);
    await everywhere("an answer with everything");

    await ask(page, "tools");
    await written(page);
    assert.deepEqual(await lastAnswer(page).locator(".calls .code-head code").allTextContents(), ["get_weather", "now"]);
    assert.deepEqual(await lastAnswer(page).locator(".calls pre").allTextContents(), ['{"city": "Rome"}', "{}"]);
    await ask(page, "an error");
    await written(page);
    await page.getByText("It broke.").waitFor();
    await lastAnswer(page).getByRole("button", { name: "Write another answer" }).click();
    await written(page);
    await everywhere("tool calls and an error");

    await answerWith(page, () => {}); // no answer: it is waited for
    await ask(page, "waiting");
    await lastAnswer(page).locator(".waiting").waitFor();
    await everywhere("waiting");
    await page.keyboard.press("Escape");
    await written(page);

    await page.locator(".message.user").first().getByRole("button", { name: "Edit and retry" }).click();
    await everywhere("editing");
    await page.keyboard.press("Escape");
    await page.getByRole("button", { name: "Settings" }).click();
    await page.locator("#sampling-temperature").fill("7");
    await everywhere("settings");
    await page.keyboard.press("Escape");
    await page.getByRole("button", { name: /^More about/ }).first().click();
    await check("menu");
    await page.keyboard.press("Escape");
    await page.setViewportSize({ width: 360, height: 640 });
    await page.locator("#toggle-sidebar").click();
    await check("list over the messages");
    await page.keyboard.press("Escape");
    await page.setViewportSize({ width: 1100, height: 750 });
    await answerWith(page, (route) => route.fulfill({ status: 401, contentType: "application/json", body: "{}" }));
    await ask(page, "key?");
    await page.locator("#key-dialog").waitFor();
    await page.getByRole("button", { name: "Use this key" }).click();
    await everywhere("key");
    assert.equal(await page.locator("h1").count(), 1);
  },
  { expected: [/Failed to load resource/] },
);
