// A model's text as nodes: paragraphs, lists, headings, code. It never becomes HTML, whatever it contains.

import { html, useMemo, useRef, useState } from "./vendor/htm-preact-3.1.1.js";

// Nodes that are the same as before are not looked at again, so that a long conversation costs nothing as it stands.
export function Markdown({ text }) {
  return useMemo(() => blocks(text), [text]);
}

export function blocks(text) {
  const found = [];
  const lines = text.split("\n");
  let plain = [];
  const flush = () => {
    if (plain.join("").trim()) found.push(...paragraphs(plain));
    plain = [];
  };
  for (let index = 0; index < lines.length; index += 1) {
    const fence = lines[index].trim().match(/^(`{3,}|~{3,})([^`]*)$/);
    if (!fence) {
      plain.push(lines[index]);
      continue;
    }
    flush();
    const code = [];
    for (index += 1; index < lines.length && !closes(lines[index].trim(), fence[1]); index += 1) code.push(lines[index]);
    found.push(html`<${Code} text=${code.join("\n")} language=${fence[2].trim().split(/\s/)[0]} />`);
  }
  flush();
  return found;
}

// A fence with a language is a line of the code that it stands in.
function closes(line, fence) {
  return line.startsWith(fence) && line === fence[0].repeat(line.length);
}

function paragraphs(lines) {
  const found = [];
  let kind = "";
  let held = [];
  const flush = () => {
    if (held.length) {
      if (kind === "ul") found.push(html`<ul>${held.map((each) => html`<li>${spans(each)}</li>`)}</ul>`);
      else if (kind === "ol") found.push(html`<ol>${held.map((each) => html`<li>${spans(each)}</li>`)}</ol>`);
      else found.push(html`<p>${spans(held.join("\n"))}</p>`);
    }
    held = [];
  };
  for (const line of lines) {
    const item = line.match(/^\s*([-*+]|\d+[.)])\s+(.*)$/);
    const heading = line.match(/^#{1,6}\s+(.*)$/);
    const next = item ? (/\d/.test(item[1]) ? "ol" : "ul") : "p";
    if (!line.trim() || heading || next !== kind) flush();
    kind = next;
    if (heading) found.push(html`<p><strong>${spans(heading[1])}</strong></p>`);
    else if (line.trim()) held.push(item ? item[2] : line);
  }
  flush();
  return found;
}

function spans(text) {
  const found = [];
  const pattern = /`([^`\n]+)`|\*\*([^*\n]+)\*\*|\*([^*\n]+)\*/g;
  let end = 0;
  for (const match of text.matchAll(pattern)) {
    found.push(text.slice(end, match.index));
    if (match[1] !== undefined) found.push(html`<code>${match[1]}</code>`);
    else if (match[2] !== undefined) found.push(html`<strong>${match[2]}</strong>`);
    else found.push(html`<em>${match[3]}</em>`);
    end = match.index + match[0].length;
  }
  found.push(text.slice(end));
  return found;
}

function Code({ text, language }) {
  const [copied, setCopied] = useState(false);
  const shown = useRef(null);
  async function copy() {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // A browser gives its clipboard only to pages of https and of this machine; elsewhere the old way is left.
      getSelection().selectAllChildren(shown.current);
      if (!document.execCommand("copy")) return; // the code stays selected
      getSelection().removeAllRanges();
    }
    setCopied(true);
    setTimeout(() => setCopied(false), 1500);
  }
  return html`<div class="code">
    <button onClick=${copy}>${copied ? "Copied" : "Copy"}</button>
    <pre ref=${shown} tabindex="0" aria-label=${language || "code"}><code>${text}</code></pre>
  </div>`;
}
