// Everything is done by keys, in an order that makes sense, and what has the focus shows it.

import { answerWith, assert, lastAnswer, scenario, streamed, written } from "./harness.mjs";

await scenario(async ({ page }) => {
  const focused = () => page.evaluate(() => {
    const node = document.activeElement;
    const shown = (one) => {
      const { outlineStyle, outlineWidth } = getComputedStyle(one);
      return outlineStyle !== "none" && Number.parseFloat(outlineWidth) > 0;
    };
    // The message box and the colours' buttons show it on what is around or beside them.
    const marked = [node, node.closest("#composer"), node.matches(".segments input") ? node.nextElementSibling : null];
    return {
      name: node.getAttribute("aria-label") ?? node.labels?.[0]?.textContent.trim() ?? node.textContent.trim(),
      visible: marked.some((one) => one && shown(one)),
      id: node.id,
    };
  });
  const tab = async (key = "Tab") => {
    await page.keyboard.press(key);
    const { name, visible } = await focused();
    assert.ok(visible, `${name} has the focus and does not show it`);
    return name;
  };
  const fromTop = () => page.evaluate(() => {
    document.body.tabIndex = -1;
    document.body.focus();
    document.body.removeAttribute("tabindex");
  });
  const tabTo = async (name) => {
    for (let presses = 0; presses < 60; presses += 1) if ((await tab()) === name) return;
    assert.fail(`${name} cannot be reached by Tab`);
  };
  await answerWith(page, streamed(["An answer with [a link](https://example.org) and\n\n```py\nx = 1\n```\n"]));

  await page.keyboard.type("first line");
  await page.keyboard.press("Shift+Enter");
  await page.keyboard.type("second line");
  assert.equal(await page.locator("#message").inputValue(), "first line\nsecond line");
  await page.keyboard.press("Enter");
  await written(page);
  await lastAnswer(page).locator("pre").waitFor();
  assert.equal((await focused()).id, "message", "one can go on writing");
  assert.equal(await page.locator(".bubble").textContent(), "first line\nsecond line");

  // From the top of the page: the skip link is the first stop, and leads to the message box.
  await fromTop();
  const order = [await tab()];
  await page.keyboard.press("Enter");
  assert.equal((await focused()).id, "message");
  await fromTop();
  await tab();
  while (order.at(-1) !== "Message") order.push(await tab());
  const title = "first line second line";
  assert.deepEqual(order, [
    "Skip to the message box", "New conversation", title, `More about “${title}”`, "Auto", "Import…", "Export all",
    "Conversations", "Settings", "Messages", "Copy message", "Edit and retry", "Delete from here", "a link", "Copy code",
    "Code, python", "Copy message", "Write another answer", "Delete from here", "Message",
  ].map((name) => name.replace("Code, python", "Code, py")));
  assert.equal(await tab("Shift+Tab"), "Delete from here");

  // The colours are chosen with arrow keys.
  await fromTop();
  await tabTo("Auto");
  await page.keyboard.press("ArrowRight");
  await page.keyboard.press("ArrowRight");
  assert.equal(await page.evaluate(() => getComputedStyle(document.documentElement).colorScheme), "dark");

  // A dialog holds the focus, and gives it back.
  await tabTo("Settings");
  await page.keyboard.press("Enter");
  await tabTo("Temperature");
  await page.keyboard.type("0.5");
  for (let presses = 0; presses < 20; presses += 1) {
    await page.keyboard.press("Tab");
    assert.ok(await page.evaluate(() => document.activeElement === document.body || document.activeElement.closest("#settings") !== null));
  }
  await page.locator("#sampling-temperature").focus();
  await page.keyboard.press("Enter");
  assert.equal((await focused()).name, "Settings");
  await page.keyboard.press("Enter");
  assert.equal(await page.locator("#sampling-temperature").inputValue(), "0.5");
  await page.locator("#system").focus();
  await page.keyboard.type("never mind");
  await page.keyboard.press("Escape");
  assert.equal((await focused()).name, "Settings");

  // The menu of a conversation: Escape closes it and gives the focus back.
  await fromTop();
  await tabTo(`More about “${title}”`);
  await page.keyboard.press("Enter");
  assert.equal((await focused()).name, "Rename");
  await page.keyboard.press("Escape");
  assert.equal((await focused()).name, `More about “${title}”`);
  await page.keyboard.press("Enter");
  await page.keyboard.press("Enter");
  assert.equal((await focused()).name, "Title");
  await page.keyboard.type("Renamed");
  await page.keyboard.press("Enter");
  assert.equal(await page.locator("h1").textContent(), "Renamed");
  assert.equal((await focused()).name, "Renamed");

  // The end of a word of an input method is no end of the message.
  await page.locator("#message").fill("かな");
  await page.locator("#message").dispatchEvent("keydown", { key: "Enter", isComposing: true });
  assert.equal(await page.locator("#message").inputValue(), "かな");

  // On a narrow screen, the list lies over the messages: nothing below it can be reached.
  await page.setViewportSize({ width: 390, height: 700 });
  await page.locator('#toggle-sidebar[aria-expanded="false"]').waitFor(); // the page hears of its width a little later
  await page.locator("#toggle-sidebar").focus();
  await page.keyboard.press("Enter");
  assert.equal((await focused()).name, "Close the list");
  const reached = new Set();
  for (let presses = 0; presses < 12; presses += 1) {
    await page.keyboard.press("Tab");
    reached.add(await page.evaluate(() => document.activeElement.closest("main") === null));
  }
  assert.deepEqual([...reached], [true]);
  await page.keyboard.press("Escape");
  assert.equal((await focused()).id, "toggle-sidebar");
});
