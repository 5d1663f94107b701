// Markdown -> elements. `marked` reads it, DOMPurify lets through only what is listed here, and nothing loads anything.
// Text grows while it streams, so only the blocks that changed are made again: selections and open blocks stay.

import DOMPurify from "./vendor/dompurify/purify.es.mjs";
import { Marked } from "./vendor/marked/marked.esm.js";
import { copyButton, element } from "./elements.js";

const TAGS = `a b blockquote br code del em h3 h4 h5 h6 hr i kbd li mark ol p pre s strong sub sup table tbody td th
  thead tr u ul`.split(/\s+/);
// HTML that models write within sentences. Any other is shown as the text that it is.
const INLINE_HTML = /^<\/?(b|br|i|kbd|mark|s|sub|sup|u)\s*\/?>$/i;
const LANGUAGE = /^language-([\w+#.-]{1,30})$/;
const HEADING_OFFSET = 2; // the page has h1, and each message h2

const SANITIZER = {
  ALLOWED_TAGS: TAGS,
  ALLOWED_ATTR: ["align", "class", "href", "start"],
  ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
  ADD_URI_SAFE_ATTR: ["align", "start"], // attributes that are no addresses
  ALLOW_ARIA_ATTR: false,
  ALLOW_DATA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};

const escaped = (text) =>
  text.replace(/[&<>"']/g, (sign) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" })[sign]);

const markdown = new Marked({
  gfm: true,
  renderer: {
    html: ({ text }) => (INLINE_HTML.test(text.trim()) ? text : escaped(text)),
    // Images are off: what one would show can be followed as a link.
    image: ({ href, text }) => `<a href="${escaped(href)}">${escaped(text || href)}</a>`,
    checkbox: ({ checked }) => (checked ? "☑ " : "☐ "),
    heading({ tokens, depth }) {
      const level = Math.min(depth + HEADING_OFFSET, 6);
      return `<h${level}>${this.parser.parseInline(tokens)}</h${level}>`;
    },
  },
});

DOMPurify.addHook("uponSanitizeAttribute", (node, data) => {
  if (data.attrName === "class") data.keepAttr = node.nodeName === "CODE" && LANGUAGE.test(data.attrValue);
});
DOMPurify.addHook("afterSanitizeAttributes", (node) => {
  if (node.nodeName !== "A") return;
  node.setAttribute("target", "_blank");
  node.setAttribute("rel", "noopener noreferrer nofollow");
});

/** Shows `text` in `container`. What was shown there before by this function is kept where it is the same. */
export function render(container, text) {
  if (container.renderedText === text) return;
  container.renderedText = text;
  const lexed = markdown.lexer(text);
  const tokens = lexed.filter(({ type }) => type !== "space" && type !== "def");
  // A definition of a link, at the end, changes the blocks before it.
  const links = JSON.stringify(lexed.links);
  const shown = container.renderedLinks === links ? (container.renderedBlocks ?? []) : [];
  const blocks = tokens.map((token, index) => updated(shown[index], token));
  container.renderedBlocks = blocks;
  container.renderedLinks = links;
  blocks.forEach(({ node }, index) => {
    const there = container.childNodes[index];
    if (there === node) return;
    if (there) there.replaceWith(node);
    else container.append(node);
  });
  while (container.childNodes.length > blocks.length) container.lastChild.remove();
}

function updated(block, token) {
  if (block?.raw === token.raw && block.type === token.type) return block;
  const { raw, type, lang } = token;
  if (type === "code" && block?.type === "code" && block.lang === lang) {
    // The text of a long block is exchanged, so that the block can be scrolled while it grows.
    block.node.querySelector("code").textContent = token.text;
    return { raw, type, lang, node: block.node };
  }
  // A block is one element, so that the n-th child is the n-th block.
  const node = element("div", { class: "block" }, sanitized(markdown.parser([token]).trim()));
  return { raw, type, lang, node };
}

/** Returns what may be shown of HTML. The renderer above writes no other; this holds even if it did. */
export function sanitized(html) {
  const fragment = DOMPurify.sanitize(html, SANITIZER);
  for (const pre of fragment.querySelectorAll("pre")) pre.replaceWith(codeBlock(pre));
  for (const table of fragment.querySelectorAll("table")) {
    const scroller = element("div", { class: "table", tabindex: "0", role: "group", "aria-label": "Table" });
    table.replaceWith(scroller);
    scroller.append(table);
  }
  // A link to nowhere is text.
  for (const link of fragment.querySelectorAll("a:not([href])")) link.replaceWith(...link.childNodes);
  return fragment;
}

function codeBlock(pre) {
  const code = pre.querySelector("code") ?? pre;
  const language = LANGUAGE.exec(code.className)?.[1] ?? "";
  const text = element("code", {}, code.textContent.replace(/\n$/, ""));
  const label = language ? `Code, ${language}` : "Code";
  return element(
    "div",
    { class: "code" },
    element("div", { class: "code-head" }, element("span", {}, language), copyButton("Copy code", () => text.textContent)),
    element("pre", { tabindex: "0", role: "group", "aria-label": label }, text),
  );
}
