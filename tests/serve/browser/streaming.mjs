// An answer appears in pieces, with its numbers; Escape and the button end it, in the server too.

import { answers, ask, assert, choose, lastAnswer, scenario, written } from "./harness.mjs";

await scenario(async ({ page, url, requests }) => {
  await page.evaluate(() => {
    const seen = (globalThis.seen = { texts: new Set(), busy: new Set(), tops: new Set(), announced: [] });
    new MutationObserver(() => {
      const answer = document.querySelector(".message.assistant");
      if (!answer) return;
      seen.texts.add(answer.querySelector(".answer").textContent);
      seen.busy.add(answer.getAttribute("aria-busy"));
      seen.tops.add([...document.querySelectorAll(".message, .answer, #composer")].map((n) => n.getBoundingClientRect().top).join());
    }).observe(document.getElementById("transcript"), { subtree: true, childList: true, characterData: true, attributes: true });
    const announcer = document.getElementById("announcer");
    new MutationObserver(() => seen.announced.push(announcer.textContent)).observe(announcer, { childList: true });
  });

  await choose(page, { max_tokens: 200, temperature: 0 });
  await ask(page, "hello");
  await written(page);
  const text = await lastAnswer(page).locator(".answer").textContent();
  const seen = await page.evaluate(() => ({
    texts: [...globalThis.seen.texts],
    busy: [...globalThis.seen.busy],
    tops: [...globalThis.seen.tops],
    announced: globalThis.seen.announced,
  }));
  assert.equal(text.length, 200);
  assert.ok(seen.texts.some((part) => part !== "" && part !== text), "a part was shown before the whole");
  for (const part of seen.texts) assert.ok(text.startsWith(part), `${part} is no beginning of ${text}`);
  assert.deepEqual(seen.busy, ["true", "false"]);
  assert.equal(seen.tops.length, 1, `things moved while the answer was written: ${seen.tops.join(" / ")}`);
  assert.deepEqual(seen.announced, [text], "a screen reader hears the whole answer, once");
  assert.match(await lastAnswer(page).locator(".stats").textContent(), /limit of tokens.* 200 tokens · [\d.]+ tokens\/s · first after [\d.]+ s/);
  assert.match(await page.locator("#context").textContent(), /^Context: \d+ of [\d,]+ tokens/);
  assert.equal(requests[0].stream, true);
  assert.deepEqual(requests[0].stream_options, { include_usage: true });

  // The end stays in view, unless the reader has left it.
  await page.setViewportSize({ width: 500, height: 320 });
  await choose(page, { max_tokens: "" });
  const scrolled = () => page.evaluate(() => {
    const { scrollTop, scrollHeight, clientHeight } = document.getElementById("scroller");
    return { top: scrollTop, below: scrollHeight - clientHeight - scrollTop, height: scrollHeight };
  });
  const grows = async (height) => page.waitForFunction((h) => document.getElementById("scroller").scrollHeight > h, height);
  await ask(page, "more");
  await grows((await scrolled()).height + 60);
  assert.ok((await scrolled()).below < 60);
  await page.locator("#scroller").hover();
  await page.mouse.wheel(0, -150);
  await page.locator("#to-end").waitFor();
  const left = await scrolled();
  await grows(left.height + 40);
  assert.equal((await scrolled()).top, left.top);
  await page.locator("#to-end").click();
  await page.waitForFunction(() => {
    const { scrollTop, scrollHeight, clientHeight } = document.getElementById("scroller");
    return scrollHeight - clientHeight - scrollTop < 60;
  });

  // Stopping frees the server, whether by key or by button.
  const running = async () => {
    const metrics = await (await fetch(new URL("metrics", url))).text();
    return Number(/^etwebgpu_requests_running (\S+)/m.exec(metrics)[1]);
  };
  const idle = async () => {
    while ((await running()) > 0) await new Promise((done) => setTimeout(done, 50));
  };
  assert.equal(await running(), 1);
  await page.keyboard.press("Escape");
  await written(page);
  await idle();
  assert.match(await lastAnswer(page).locator(".stats").textContent(), /^Stopped\. · about \d+ tokens · [\d.]+ tokens\/s/);
  const stopped = await lastAnswer(page).locator(".answer").textContent();

  await page.setViewportSize({ width: 1100, height: 750 });
  await ask(page, "again");
  await page.waitForFunction(() => document.querySelectorAll(".answer")[2]?.textContent.length > 3);
  assert.equal(await running(), 1);
  await page.getByRole("button", { name: "Stop" }).click();
  await written(page);
  await idle();
  assert.equal(await answers(page).nth(1).locator(".answer").textContent(), stopped, "nothing came after the stop");
  assert.deepEqual(requests[2].messages.map(({ role }) => role), ["user", "assistant", "user", "assistant", "user"]);
  assert.equal(requests[2].messages[3].content, stopped);
});
