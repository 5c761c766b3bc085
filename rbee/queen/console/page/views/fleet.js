// Machines, and what takes the memory of each of their devices.

import { html, useState } from "../vendor/htm-preact-3.1.1.js";
import { json } from "../api.js";
import { of } from "../state.js";
import { Action, Empty, State, WorkerState, ago, nameOf, size } from "../parts.js";

const MANY = 6; // machines, from which on some are looked for by a word

export function Fleet() {
  const [word, setWord] = useState("");
  const nodes = of("node");
  const workers = new Map(nodes.map((each) => [each.node, []]));
  for (const each of of("worker")) workers.get(each.node)?.push(each);
  const ofNode = (node) => workers.get(node.node);
  const shown = nodes.filter((node) => isAbout(word.trim().toLowerCase(), node, ofNode(node)));
  if (!of("queen").length) return null; // nothing was told yet
  if (!nodes.length) return html`<${Empty}>No machine is registered. To add one: <code>rbee-keeper config set-ssh</code></${Empty}>`;
  return html`<section>
    ${nodes.length > MANY && html`<div class="row">
      <label>Show <input type="search" placeholder="machine, model or state" value=${word} onInput=${(event) => setWord(event.target.value)} /></label>
      <span class="dim small" role="status">${shown.length} of ${nodes.length} machines</span>
    </div>`}
    <div class="nodes">${shown.map((node) => html`<${Node} key=${node.node} node=${node} workers=${ofNode(node)} />`)}</div>
  </section>`;
}

function isAbout(word, node, workers) {
  const told = [node.node, stateOf(node), ...workers.flatMap((each) => [nameOf(each), each.model_ref, each.state])];
  return told.some((each) => each.toLowerCase().includes(word));
}

const stateOf = (node) => (node.connected ? "connected" : "not connected");

function Node({ node, workers }) {
  return html`<section class="panel" aria-label=${node.node}>
    <div class="row">
      <h2 class="cut" title=${node.node}>${node.node}</h2>
      <${State} of=${stateOf(node)} />
      <span class="end dim small cut">${node.version || ""}</span>
    </div>
    ${!node.connected && html`<p class="small wrap">${node.last_error || "It was not tried yet."} <span class="dim">${node.last_seen_unix ? `Last heard of ${ago(node.last_seen_unix)}.` : "It was never heard of."}</span></p>`}
    ${Object.entries(node.faults || {}).map(([backend, fault]) => html`<p class="bad small wrap">${backend} cannot be used: ${fault}</p>`)}
    ${(node.quarantined || []).map((each) => html`<p class="bad small wrap">${each.model_ref || `${each.backend}:${each.device}`} is in quarantine: ${each.reason}</p>`)}
    ${node.connected && node.devices.map((device) => html`<${Device} key=${device.backend + device.index} node=${node} device=${device}
      workers=${workers.filter((each) => each.backend === device.backend && each.device === device.index)} />`)}
  </section>`;
}

const memoryOf = (worker) => worker.memory_bytes || worker.need_bytes || 0;

// What a worker's memory is for, in bytes. Weights that are read from a file count only as far as they are in memory.
function parts(worker) {
  const all = memoryOf(worker);
  if (!worker.weights_bytes) return [["memory", all]]; // a hive of an earlier version
  const cache = Math.min(worker.cache_bytes || 0, all);
  const weights = Math.min(worker.weights_bytes, all - cache);
  return [["weights", weights], ["cache", cache], ["buffers", all - weights - cache]];
}

const told = (worker) => parts(worker).map(([name, bytes]) => `${name} ${size(bytes)}`).join(", ");

function Device({ node, device, workers }) {
  const used = device.total_bytes - device.free_bytes;
  const others = Math.max(device.foreign_bytes || 0, used - workers.reduce((sum, each) => sum + memoryOf(each), 0), 0);
  const share = (bytes) => ({ width: `${Math.min(100, (100 * bytes) / (device.total_bytes || 1))}%` });
  const yielded = (node.yielded || []).some((each) => each.backend === device.backend && each.device === device.index);
  const place = { node: node.node, backend: device.backend, device: device.index };
  return html`<div class="device">
    <div class="row small">
      <span class="mono">${device.backend}:${device.index}</span>
      <span class="dim cut grow" title=${device.name}>${device.name}</span>
      <span class="dim">${size(used)} of ${size(device.total_bytes)}</span>
    </div>
    <div class="bar" role="img" aria-label=${`${size(used)} of ${size(device.total_bytes)} in use`}>
      ${workers.map((each, index) => parts(each).map(([name, bytes]) => html`<span class=${`w${index % 4} ${name}`} style=${share(bytes)} title=${`${nameOf(each)} ${name} ${size(bytes)}`}></span>`))}
      ${others > 0 && html`<span class="foreign" style=${share(others)} title=${`other programs ${size(others)}`}></span>`}
    </div>
    ${workers.map((each, index) => html`<div class="small" key=${each.worker_id}>
      <div class="cut" title=${each.model_ref}><span class=${`key w${index % 4}`}></span>${nameOf(each)} <${WorkerState} of=${each} /> <span class="dim">${each.slots_total - each.slots_available} of ${each.slots_total} slots</span></div>
      <div class="dim parts">${told(each)}</div>
    </div>`)}
    <div class="row small">
      ${others > 0 && html`<span class="dim"><span class="key foreign"></span>other programs ${size(others)}</span>`}
      <span class="end">
        ${yielded
          ? html`<${Action} label="Resume" title="Use the device again" run=${() => json("POST", "v2/hives/resume", place)} />`
          : html`<${Action} label="Yield" title="Empty the device for another program" confirm=${`End the workers on ${node.node} ${device.backend}:${device.index}, once their requests have ended?`} run=${() => json("POST", "v2/hives/yield", place)} />`}
      </span>
    </div>
    ${yielded && html`<p class="warn small">Yielded to another program.</p>`}
  </div>`;
}
