// Keys of clients, what they may, and what was used with them.

import { html, useEffect, useState } from "../vendor/htm-preact-3.1.1.js";
import { json } from "../api.js";
import { Action, Empty, Form, ago, count } from "../parts.js";

const DAY_S = 86400;

export function Keys() {
  const [known, setKnown] = useState(null);
  const [changed, setChanged] = useState("");
  const [problem, setProblem] = useState("");
  async function refresh() {
    try {
      const [{ keys }, { rows }, { sessions }] = await Promise.all([
        json("GET", "v2/keys/list"),
        json("GET", "v2/usage?by=client&by=model"),
        json("GET", "v2/console/sessions"),
      ]);
      setKnown({ keys, usage: rows, sessions });
      setProblem("");
    } catch (error) {
      setProblem(error.message);
    }
  }
  useEffect(() => {
    refresh();
  }, []);
  async function save(name, scope) {
    await json("POST", "v2/keys/set", { name, ...scope });
    setChanged("");
    refresh();
  }
  return html`
    ${problem && html`<p class="bad" role="alert">${problem}</p>`}
    ${known && html`
      <section class="panel"><h2>Keys</h2>
        ${known.keys.length ? html`<div class="scroll"><table><thead><tr><th>Client</th><th>May</th><th>Models</th><th>Limits</th><th class="num">Requests today</th><th class="num">Tokens today</th><th>Last used</th><td></td></tr></thead>
          <tbody>${known.keys.map((key) => html`
            <${Row} key=${key.name} of=${key} refresh=${refresh} changed=${changed === key.name} change=${() => setChanged(changed === key.name ? "" : key.name)} />
            ${changed === key.name && html`<tr class="detail"><td colspan="8"><${Scope} of=${key} label="Save" done=${(scope) => save(key.name, scope)} /></td></tr>`}`)}</tbody></table></div>` : html`<${Empty}>No client has a key yet.</${Empty}>`}
        <${NewKey} added=${refresh} />
      </section>
      <${Usage} rows=${known.usage} />
      <section class="panel"><h2>Sessions of browsers</h2>
        ${known.sessions.map((each) => html`<div class="row" key=${each.id}><span>${each.client}</span><span class="dim small">began ${ago(each.began_unix)}</span>
          <span class="end">${each.own ? html`<span class="dim small">this browser</span>` : html`<${Action} label="End" run=${async () => { await json("DELETE", `v2/console/sessions/${each.id}`); refresh(); }} />`}</span></div>`)}
      </section>`}`;
}

function Row({ of: key, changed, change, refresh }) {
  return html`<tr>
    <td>${key.name}</td><td data-is="may">${key.rights.join(", ")}</td><td class="long" data-is="models">${key.models ? key.models.join(", ") : "all that are declared"}</td><td class="small">${limits(key)}</td>
    <td class="num" data-is="requests today">${count(key.requests_today)}</td><td class="num" data-is="tokens today">${count(key.tokens_today)}</td><td data-is="last used">${ago(key.last_used_unix)}</td>
    <td><div class="row">
      <button onClick=${change}>${changed ? "Close" : "Change"}</button>
      <${Action} label="Revoke" confirm=${`Revoke the key of ${key.name}? Its requests are refused at once.`} run=${async () => { await json("POST", "v2/keys/remove", { name: key.name }); refresh(); }} />
    </div></td>
  </tr>`;
}

function limits(key) {
  const said = [];
  if (key.tokens_per_day) said.push(`${count(key.tokens_per_day)} tokens a day`);
  if (key.max_tasks) said.push(`${key.max_tasks} request${key.max_tasks > 1 ? "s" : ""} at once`);
  if (key.max_priority) said.push(`priority ${key.max_priority}`);
  if (key.expires_unix) said.push(`${key.expires_unix * 1000 < Date.now() ? "expired" : "until"} ${day(key.expires_unix)}`);
  return said.join(", ");
}

const day = (unix) => new Date(unix * 1000).toISOString().slice(0, 10);

// The end of that day, by the calendar of UTC as the tokens of a day are counted.
const endOf = (date) => (date ? Date.parse(date) / 1000 + DAY_S - 1 : null);

// What a key may: the same fields for a new key and for one that is changed.
function Scope({ of: key, label, done, name }) {
  const [operates, setOperates] = useState(key.rights.includes("operate"));
  const [models, setModels] = useState((key.models || []).join(", "));
  const [tokens, setTokens] = useState(key.tokens_per_day || "");
  const [tasks, setTasks] = useState(key.max_tasks || "");
  const [priority, setPriority] = useState(key.max_priority || 0);
  const ends = key.expires_unix ? day(key.expires_unix) : "";
  const [until, setUntil] = useState(ends);
  const number = (value) => (value === "" ? null : Number(value));
  async function save() {
    const named = models.split(",").map((each) => each.trim()).filter(Boolean);
    await done({
      rights: operates ? ["infer", "operate"] : ["infer"],
      models: named.length ? named : null,
      tokens_per_day: number(tokens),
      max_tasks: number(tasks),
      max_priority: Number(priority),
      expires_unix: until === ends ? key.expires_unix : endOf(until),
    });
  }
  const field = (text, value, set, more) => html`<label>${text} <input value=${value} onInput=${(event) => set(event.target.value)} ...${more} /></label>`;
  return html`<${Form} class="row scope">
    ${field("Models", models, setModels, { placeholder: "all that are declared", title: "Names, with commas between them" })}
    ${field("Tokens a day", tokens, setTokens, { type: "number", min: 1, placeholder: "any" })}
    ${field("Requests at once", tasks, setTasks, { type: "number", min: 1, placeholder: "any" })}
    ${field("Highest priority", priority, setPriority, { type: "number", min: -10, max: 10 })}
    ${field("Until", until, setUntil, { type: "date" })}
    <label><input type="checkbox" checked=${operates} onChange=${(event) => setOperates(event.target.checked)} /> may operate</label>
    <${Action} label=${label} disabled=${name === ""} run=${save} />
  </${Form}>`;
}

function NewKey({ added }) {
  const [name, setName] = useState("");
  const [made, setMade] = useState(null);
  async function add(scope) {
    setMade(await json("POST", "v2/keys/add", { name, ...scope }));
    setName("");
    added();
  }
  return html`<details><summary>Make a key</summary>
    <div class="row"><label>Client <input value=${name} placeholder="name" onInput=${(event) => setName(event.target.value)} /></label></div>
    <${Scope} of=${{ rights: ["infer"] }} label="Make" name=${name} done=${add} />
    ${made && html`<p class="wrap">The key of ${made.name}, shown once: <code>${made.key}</code></p>`}
  </details>`;
}

function Usage({ rows }) {
  const joules = rows.some((row) => row.joules);
  return html`<section class="panel"><h2>Usage</h2>
    ${rows.length ? html`<div class="scroll"><table><thead><tr><th>Client</th><th>Model</th><th class="num">Requests</th><th class="num">Tokens in</th><th class="num">Cached</th><th class="num">Tokens out</th><th class="num">Device</th>${joules && html`<th class="num">Energy</th>`}</tr></thead>
      <tbody>${rows.map((row) => html`<tr><td>${row.client}</td><td class="long">${row.model}</td><td class="num" data-is="requests">${count(row.requests)}</td><td class="num" data-is="tokens in">${count(row.prompt_tokens)}</td><td class="num" data-is="cached">${count(row.cached_tokens)}</td><td class="num" data-is="tokens out">${count(row.answer_tokens)}</td><td class="num" data-is="device">${row.device_seconds.toFixed(1)} s</td>${joules && html`<td class="num" data-is="energy">${Math.round(row.joules || 0)} J</td>`}</tr>`)}</tbody></table></div>`
    : html`<${Empty}>Nothing was used yet.</${Empty}>`}
  </section>`;
}
