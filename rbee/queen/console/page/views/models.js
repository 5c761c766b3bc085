// Models: what is declared, where it runs, what lies on disks, what is being fetched, and why something does not run.

import { html, useState } from "../vendor/htm-preact-3.1.1.js";
import { json } from "../api.js";
import { entries, of } from "../state.js";
import { Action, Empty, Form, State, WorkerState, short, size } from "../parts.js";

const SHOWN_MACHINES = 3;

export function Models() {
  return html`<${Declared} /><${Downloads} /><${Catalog} />`;
}

function Declared() {
  const served = of("served");
  return html`<section class="panel">
    <h2>Declared</h2>
    ${served.length ? html`<div class="scroll"><table>
      <thead><tr><th>Name</th><th>Model</th><th>Wanted</th><th>State</th><th>Workers</th><td></td></tr></thead>
      <tbody>${served.map((row) => html`<${DeclaredRow} key=${row.declared.name} row=${row} />`)}</tbody>
    </table></div>` : html`<${Empty}>No model is declared yet.</${Empty}>`}
    <${Declare} />
  </section>`;
}

function DeclaredRow({ row }) {
  const { name, model, replicas, keep } = row.declared;
  const own = { ...row.declared };
  delete own.name;
  const pinned = keep === "always";
  const serves = (row.workers || []).length > 0;
  const where = usePlaces(name);
  return html`<tr>
    <td>${name}</td>
    <td class="long" title=${model}>${short(model)}</td>
    <td class="one">${replicas ? `${replicas} worker${replicas > 1 ? "s" : ""}` : "on demand"}${pinned ? ", pinned" : ""}</td>
    <td class="long"><${State} of=${row.state} />${row.reason && html`<div class="small dim">${row.reason}</div>`}</td>
    <td class="small">${row.workers ? row.workers.map((each) => html`<div>${each.node} ${each.backend}:${each.device} <${WorkerState} of=${each} /></div>`) : ""}</td>
    <td><div class="row">
      ${serves
        ? html`<${Action} label="Unload" confirm=${`End the workers of ${name}, once their requests have ended?`} run=${() => json("POST", "models/unload", { model: name })} />`
        : html`<${Action} label="Load" run=${() => json("POST", "models/load", { model: name })} />`}
      ${row.source === "api" && html`
        <${Action} label=${pinned ? "Unpin" : "Pin"} title="A pinned model never gives way to another" run=${() => json("PUT", `v2/served/${name}`, { ...own, keep: pinned ? "5m" : "always" })} />
        <${Action} label="Remove" confirm=${`Remove the declaration of ${name}?`} run=${() => json("DELETE", `v2/served/${name}`)} />`}
      ${where.button}
    </div></td>
  </tr>
  ${where.places && html`<tr class="detail"><td colspan="6">${where.places}</td></tr>`}`;
}

// A button that asks where a model runs or could run, and the answer, which has a row of its own.
function usePlaces(model) {
  const [found, setFound] = useState(null);
  async function ask() {
    setFound(found ? null : await json("GET", `v2/explain?model=${encodeURIComponent(model)}`));
  }
  const button = html`<${Action} label=${found ? "Close" : "Where"} title="Where it runs or could run, and why not elsewhere" run=${ask} />`;
  const places = found && html`<div class="small wrap"><p>${found.next}</p>
    <ul>${found.candidates.map((each) => html`<li><strong>${each.node}</strong> ${each.backend ? `${each.backend}:${each.device}` : ""} <span class="dim">${each.verdict.replaceAll("_", " ")}</span> ${each.reason}</li>`)}</ul></div>`;
  return { button, places };
}

function Declare() {
  const [name, setName] = useState("");
  const [model, setModel] = useState("");
  const [replicas, setReplicas] = useState("1");
  async function put() {
    await json("PUT", `v2/served/${encodeURIComponent(name)}`, { model, replicas: Number(replicas) });
    setName("");
    setModel("");
  }
  return html`<details><summary>Declare a model</summary><${Form} class="row scope">
    <input aria-label="Name" placeholder="name" value=${name} onInput=${(event) => setName(event.target.value)} />
    <input class="grow" aria-label="Model" placeholder="hf:org/repo:Q4_K_M" value=${model} onInput=${(event) => setModel(event.target.value)} />
    <label>Workers <input aria-label="Workers" type="number" min="0" max="64" value=${replicas} onInput=${(event) => setReplicas(event.target.value)} /></label>
    <${Action} label="Declare" disabled=${!name || !model} run=${put} />
  </${Form}></details>`;
}

function Downloads() {
  const running = of("download");
  if (!running.length) return null;
  return html`<section class="panel"><h2>Downloads</h2>${running.map((row) => html`<div class="row small">
    <span class="cut grow" title=${row.reference}>${short(row.reference)}</span><span>${row.node}</span>
    <progress max="1" value=${row.bytes_total ? row.bytes_downloaded / row.bytes_total : undefined}></progress>
    <span class="dim">${row.stage} ${size(row.bytes_downloaded)}${row.bytes_total ? ` of ${size(row.bytes_total)}` : ""}${row.source ? ` from ${row.source}` : ""}</span>
  </div>`)}</section>`;
}

function Catalog() {
  const models = new Map();
  for (const [node, list] of entries("catalog")) {
    for (const model of list) {
      if (!models.has(model.reference)) models.set(model.reference, { model, nodes: [] });
      models.get(model.reference).nodes.push(node);
    }
  }
  return html`<section class="panel"><h2>On disks</h2>
    ${models.size ? html`<div class="scroll"><table><thead><tr><th>Model</th><th class="num">Size</th><th>Machines</th><td></td></tr></thead>
      <tbody>${[...models.values()].map((each) => html`<${OnDisk} key=${each.model.reference} ...${each} />`)}</tbody></table></div>` : html`<${Empty}>No model was fetched yet: the first request does it.</${Empty}>`}
  </section>`;
}

function Machines({ names }) {
  const listed = names.join(", ");
  return names.length > SHOWN_MACHINES ? html`<details><summary>${names.length} machines</summary>${listed}</details>` : listed;
}

function OnDisk({ model, nodes }) {
  const where = usePlaces(model.reference);
  return html`<tr>
    <td class="long">${model.reference}${model.problem && html`<div class="bad small">${model.problem}</div>`}</td>
    <td class="num">${size(model.size_bytes)}</td><td><${Machines} names=${nodes} /></td>
    <td><div class="row"><${Action} label="Load" run=${() => json("POST", "models/load", { model: model.reference })} />${where.button}</div></td>
  </tr>
  ${where.places && html`<tr class="detail"><td colspan="4">${where.places}</td></tr>`}`;
}
