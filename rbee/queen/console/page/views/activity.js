// Requests: those that run and wait, and those that ended last.

import { html } from "../vendor/htm-preact-3.1.1.js";
import { json } from "../api.js";
import { of } from "../state.js";
import { Action, Empty, State, seconds, short } from "../parts.js";

const OPEN = ["running", "waiting"];

export function Activity() {
  const tasks = of("task").sort((a, b) => a.arrived_unix - b.arrived_unix);
  const shown = [...tasks.filter((each) => OPEN.includes(each.state)), ...tasks.filter((each) => !OPEN.includes(each.state)).reverse()];
  if (!shown.length) return html`<${Empty}>No request came yet. Try one in the chat.</${Empty}>`;
  return html`<section class="panel"><h2>Requests</h2><div class="scroll" tabindex="0" role="region" aria-label="Requests"><table>
    <thead><tr><th>State</th><th>Client</th><th>Model</th><th>Machine</th><th class="num">Waited</th><th class="num">First token</th><th class="num">Tokens</th><th class="num">Tokens/s</th><th class="num">Cached</th><td></td></tr></thead>
    <tbody>${shown.map((task) => html`<tr key=${task.id}>
      <td>${task.position ? `${task.position}. of ${task.queue_length}` : html`<${State} of=${task.state} />`}${task.error && html`<div class="small bad">${task.error}</div>`}</td>
      <td>${task.client}</td><td class="cut" title=${task.model}>${short(task.model)}</td><td>${task.node || ""}</td>
      <td class="num" data-is="waited">${seconds(task.waited_s)}</td><td class="num" data-is="first token">${seconds(task.first_token_s)}</td>
      <td class="num" data-is="tokens">${task.tokens}</td><td class="num" data-is="tokens/s">${pace(task)}</td>
      <td class="num" data-is="cached">${task.prompt_tokens ? `${task.cached_tokens} of ${task.prompt_tokens}` : ""}</td>
      <td>${OPEN.includes(task.state) && html`<${Action} label="Cancel" run=${() => json("DELETE", `v2/tasks/${task.id}`)} />`}</td>
    </tr>`)}</tbody></table></div></section>`;
}

function pace(task) {
  const took = task.state === "running" ? Date.now() / 1000 - task.arrived_unix : task.took_s;
  const writing = took - task.first_token_s;
  return task.tokens > 1 && writing > 0 ? ((task.tokens - 1) / writing).toFixed(1) : "";
}
