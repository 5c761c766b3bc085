// Conversations with models, kept in this browser, each client's apart. An answer goes on while another view is shown.

import { events, json, send } from "./api.js";
import { changed } from "./state.js";

const SAMPLING = ["temperature", "top_p", "max_tokens"];
const TITLE_CHARS = 60;

let kept = ""; // what the names of a client's begin with; each apart, so that two tabs write over nothing of the other's
let all = [];
let chosen = "";
let offered = null;
const running = new Map();
const problems = new Map();

export const conversations = () => all;
export const current = () => all.find((each) => each.id === chosen);
export const problem = (talk) => problems.get(talk.id) || "";
export const isRunning = (talk) => running.has(talk.id);
export const stop = (talk) => running.get(talk.id)?.abort();

export function openFor(client) {
  const name = `rbee.conversation.${client}/`;
  if (name === kept) return;
  kept = name;
  all = load();
  chosen = all[0].id;
}

export const stopAll = () => all.forEach(stop);

export function title(talk) {
  const asked = talk.messages.find((each) => each.role === "user");
  return asked ? asked.content.slice(0, TITLE_CHARS) : "New conversation";
}

function load() {
  let found = [];
  try {
    found = Object.keys(localStorage).filter((key) => key.startsWith(kept)).map((key) => read(localStorage.getItem(key)));
  } catch {
    // The browser keeps nothing for this page.
  }
  return sorted(found.filter((talk) => talk && talk.messages.length));
}

// A conversation as it is kept; null for what is none.
function read(text) {
  try {
    const talk = JSON.parse(text);
    return Array.isArray(talk.messages) ? talk : null;
  } catch {
    return null;
  }
}

// The newest first; never none.
function sorted(talks) {
  return talks.length ? talks.sort((a, b) => (a.id < b.id ? 1 : -1)) : [fresh()];
}

// A new conversation goes on with the model and the settings of the one before.
function fresh({ model = "", system = "", settings = {} } = {}) {
  return { id: `${Date.now()}-${Math.random()}`, messages: [], model, system, settings };
}

function keep(talk) {
  for (const withImages of [true, false]) {
    try {
      const text = JSON.stringify(talk, (name, value) => (name === "images" && !withImages ? undefined : value));
      return localStorage.setItem(kept + talk.id, text);
    } catch {
      // The browser gives a page some megabytes: then without images, and at last not at all.
    }
  }
  return problems.set(talk.id, "This browser has no room left for this conversation, and forgets it with the page. Delete others.");
}

window.addEventListener("pagehide", () => all.filter(isRunning).forEach(keep));

// What another tab keeps or deletes.
window.addEventListener("storage", ({ key, newValue }) => {
  if (!kept || key === null || !key.startsWith(kept)) return;
  const id = key.slice(kept.length);
  if (running.has(id)) return;
  const talk = read(newValue);
  const known = all.find((each) => each.id === id);
  if (known && talk) Object.assign(known, talk);
  else all = sorted([...all.filter((each) => each !== known), ...(talk ? [talk] : [])]);
  if (!current()) chosen = all[0].id;
  changed();
});

export function change(talk, fields) {
  Object.assign(talk, fields);
  keep(talk);
  changed();
}

export function begin() {
  if (!all[0].messages.length) return choose(all[0].id);
  all = [fresh(current()), ...all];
  return choose(all[0].id);
}

export function choose(id) {
  chosen = id;
  changed();
}

export function forget(talk) {
  stop(talk);
  all = all.filter((each) => each !== talk);
  if (!all.length) all = [fresh(talk)];
  if (chosen === talk.id) chosen = all[0].id;
  try {
    localStorage.removeItem(kept + talk.id);
  } catch {
    // The browser keeps nothing for this page.
  }
  changed();
}

const talks = (card) => !card.capabilities.length || card.capabilities.includes("completion");
const isLoaded = (card) => Number(card.status.value === "loaded");

// The models that can be talked to, those that are loaded first; asked for anew where that is wanted.
export function models(anew) {
  if (anew || offered === null) {
    offered = json("GET", "v1/models").then((found) => found.data.filter(talks).sort((a, b) => isLoaded(b) - isLoaded(a)));
    offered.catch(() => {
      offered = null;
    });
  }
  return offered;
}

// A question takes the place of one that had no answer: models know no two turns of one side.
export function ask(talk, content, images) {
  const said = talk.messages.at(-1)?.role === "user" ? talk.messages.slice(0, -1) : talk.messages;
  change(talk, { messages: [...said, { role: "user", content, ...(images.length && { images }) }] });
  return answer(talk, []);
}

// The last question once more. The answer that it had stays until there is another one.
export function again(talk) {
  const asked = talk.messages.findLastIndex((each) => each.role === "user") + 1;
  const before = talk.messages.slice(asked);
  change(talk, { messages: talk.messages.slice(0, asked) });
  return answer(talk, before);
}

async function answer(talk, before) {
  const asked = talk.messages;
  const reply = { role: "assistant", content: "", thought: "", calls: [] };
  const abort = new AbortController();
  const show = () => {
    talk.messages = [...asked, { ...reply }];
    changed();
  };
  running.set(talk.id, abort);
  problems.delete(talk.id);
  changed();
  try {
    const model = talk.model || (await models(false))[0]?.id;
    if (!model) throw new Error("There is no model to talk to: declare one in the view of the models.");
    const began = performance.now();
    let first = 0;
    for await (const chunk of events(await send("POST", "v1/chat/completions", body(talk, model), abort.signal))) {
      if (chunk.error) throw Object.assign(new Error(chunk.error.message), { hint: chunk.error.hint });
      const delta = chunk.choices?.[0]?.delta;
      if (delta) {
        if (!first && (delta.content || delta.reasoning_content)) first = performance.now();
        add(reply, delta);
        show();
      }
      if (chunk.usage) reply.summary = summary(chunk.usage, (first - began) / 1000, (performance.now() - first) / 1000);
    }
  } catch (error) {
    if (error.name !== "AbortError") problems.set(talk.id, [error.message, error.hint].filter(Boolean).join(" "));
  }
  if (reply.content || reply.thought || reply.calls.length) show();
  else talk.messages = [...asked, ...before];
  running.delete(talk.id);
  if (all.includes(talk)) keep(talk);
  changed();
}

function add(reply, delta) {
  reply.content += delta.content || "";
  reply.thought += delta.reasoning_content || "";
  for (const { index, function: called } of delta.tool_calls || []) {
    reply.calls[index] ||= { name: "", arguments: "" };
    reply.calls[index].name += called?.name || "";
    reply.calls[index].arguments += called?.arguments || "";
  }
}

function body(talk, model) {
  const said = talk.messages.map(({ role, content, images }) => ({
    role,
    content: images ? [{ type: "text", text: content }, ...images.map((url) => ({ type: "image_url", image_url: { url } }))] : content,
  }));
  const messages = talk.system ? [{ role: "system", content: talk.system }, ...said] : said;
  const set = SAMPLING.filter((name) => (talk.settings[name] ?? "") !== "").map((name) => [name, Number(talk.settings[name])]);
  return { model, messages, stream: true, stream_options: { include_usage: true }, ...Object.fromEntries(set) };
}

function summary(usage, first, writing) {
  const cached = usage.prompt_tokens_details?.cached_tokens || 0;
  const pace = usage.completion_tokens > 1 && writing > 0 ? `, ${((usage.completion_tokens - 1) / writing).toFixed(0)} tokens/s` : "";
  return `${usage.completion_tokens} tokens, first after ${first.toFixed(2)} s${pace}, ${cached} of ${usage.prompt_tokens} cached`;
}
