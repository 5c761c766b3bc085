// Does in a browser what it is told on stdin, and prints what it found: one JSON object.
// { url, out, steps: [[verb, ...arguments]], width, height, scheme, axe }

import fs from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const modules = process.argv[2];
const { chromium } = await import(pathToFileURL(`${modules}/playwright-core/index.mjs`).href);
const axe = createRequire(pathToFileURL(`${modules}/`).href).resolve("axe-core/axe.min.js");
const task = JSON.parse(fs.readFileSync(0, "utf8"));
const found = { console: [], foreign: [], violations: {}, texts: [], first_view_ms: 0 };

function row(page, text) {
  return page.locator("tr, .panel, .row").filter({ hasText: text }).last();
}

// What has the focus, by its name for people; null for the page itself.
function focused() {
  const element = document.activeElement;
  if (element === null || element === document.body) return null;
  const label = element.labels && element.labels[0] ? element.labels[0].innerText : "";
  const style = getComputedStyle(element);
  const name = element.getAttribute("aria-label") || label || element.innerText || element.placeholder || element.tagName;
  return { name: name.trim(), visible: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0 };
}

const browser = await chromium.launch({
  executablePath: "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});
try {
  const pages = new Map();
  let page;
  // Each person has a browser of its own, with its own cookies and conversations.
  async function open(person, url, sibling = null) {
    const context = sibling ? sibling.context() : await browser.newContext({
      viewport: { width: task.width ?? 1280, height: task.height ?? 800 },
      colorScheme: task.scheme ?? "light",
      bypassCSP: task.axe ?? false, // only to let the checker in
      ignoreHTTPSErrors: task.self_signed ?? false,
    });
    page = await context.newPage();
    pages.set(person, page);
    page.setDefaultTimeout(task.timeout_ms);
    page.on("console", (message) => found.console.push(`${message.type()}: ${message.text()}`));
    page.on("pageerror", (error) => found.console.push(`error: ${error.message}`));
    page.on("request", (request) => {
      const asked = new URL(request.url());
      if (asked.protocol !== "data:" && asked.origin !== new URL(url).origin) found.foreign.push(request.url());
    });
    page.on("dialog", (dialog) => dialog.accept());
    await page.goto(url);
    await page.waitForSelector("header nav, form");
  }
  const began = Date.now();
  await open("first", task.url);
  found.first_view_ms = Date.now() - began;
  const verbs = {
    view: (name) => page.click(`header nav a[href="#${name}"]`),
    is_at: (view) => page.locator('header nav a[aria-current="page"]', { hasText: view }).waitFor(),
    sees_title: (text) => page.getByTitle(text).first().waitFor(),
    sees: (text) => page.getByText(text).first().waitFor(),
    gone: (text) => page.getByText(text).first().waitFor({ state: "detached" }),
    click: (label, index = 0) => page.getByRole("button", { name: label, exact: true }).nth(index).click(),
    gone_button: (label) => page.getByRole("button", { name: label, exact: true }).first().waitFor({ state: "detached" }),
    opens: (summary) => page.click(`summary:has-text("${summary}")`),
    fills: (label, text) => page.getByLabel(label, { exact: true }).and(page.locator(":visible")).first().fill(text),
    // In the row or panel with a text, such as a name.
    clicks_in: (text, label) => row(page, text).getByRole("button", { name: label, exact: true }).click(),
    sees_in: (text, wanted) => row(page, text).getByText(wanted).first().waitFor(),
    gone_in: (text, wanted) => row(page, text).getByText(wanted).first().waitFor({ state: "detached" }),
    chooses: (label, option) => page.getByRole("combobox", { name: label, exact: true }).selectOption(option),
    presses: (key) => page.keyboard.press(key),
    types: (text) => page.keyboard.type(text),
    // By keyboard alone: on until what has the focus is called so.
    tabs_to: async (label) => {
      for (let presses = 0; presses < 120; presses += 1) {
        await page.keyboard.press("Tab");
        const focus = await page.evaluate(focused);
        if (focus !== null && !focus.visible) throw new Error(`the focus on ${focus.name} is not visible`);
        if (focus !== null && focus.name === label) return;
      }
      throw new Error("Tab does not come there");
    },
    focused: async () => found.texts.push(((await page.evaluate(focused)) || { name: "" }).name),
    opens_as: (person, url) => open(person, url),
    opens_tab: (name) => open(name, task.url.split("#")[0], page),
    as: (person) => (page = pages.get(person)),
    cookies: async () => found.texts.push(await page.context().cookies()),
    reload: () => page.reload(),
    runs: (script) => page.evaluate(script),
    runs_first: (script) => page.addInitScript(script), // in whatever is opened from now on
    text: async (selector) => found.texts.push(await page.locator(selector).first().innerText()),
    count: async (selector) => found.texts.push(await page.locator(selector).count()),
    counts: (selector, wanted) => page.locator(selector).nth(wanted - 1).waitFor(),
    shot: (name, fullPage = false) => page.screenshot({ path: `${task.out}/${name}.png`, fullPage }),
    widest: async () => found.texts.push(await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth)),
    axe: async (name) => {
      await page.addScriptTag({ path: axe });
      const result = await page.evaluate(() => window.axe.run());
      found.violations[name] = result.violations.map((each) => `${each.id}: ${each.nodes.map((node) => node.target).join(" ")}`);
    },
  };
  for (const [verb, ...rest] of task.steps) {
    try {
      await verbs[verb](...rest);
    } catch (error) {
      if (task.out) await page.screenshot({ path: `${task.out}/failed.png` });
      throw new Error(`${verb} ${rest.join(" ")}: ${error.message}\n${found.console.join("\n")}`);
    }
  }
} finally {
  await browser.close();
}
process.stdout.write(JSON.stringify(found));
