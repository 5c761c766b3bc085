// What several views show the same way.

import { html, useState } from "./vendor/htm-preact-3.1.1.js";
import { of } from "./state.js";

export function size(bytes) {
  if (bytes === undefined || bytes === null) return "";
  let amount = bytes;
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (amount < 1000) return unit === "B" ? `${amount} B` : `${amount.toFixed(1)} ${unit}`;
    amount /= 1000;
  }
  return `${amount.toFixed(1)} TB`;
}

export const count = (number) => number.toLocaleString("en");

export function seconds(value) {
  return value === undefined || value === null ? "" : value < 10 ? `${value.toFixed(2)} s` : `${Math.round(value)} s`;
}

export function ago(unix) {
  if (!unix) return "never";
  const past = Math.max(0, Date.now() / 1000 - unix);
  for (const [length, unit] of [[86400, "d"], [3600, "h"], [60, "min"]]) {
    if (past >= length) return `${Math.floor(past / length)} ${unit} ago`;
  }
  return `${Math.floor(past)} s ago`;
}

export function short(reference) {
  return reference.replace(/\/$/, "").split("/").pop() || reference;
}

export function nameOf(worker) {
  return worker.served || short(worker.model_ref);
}

const GOOD = ["idle", "serving", "done", "connected"];
const BAD = ["crashed", "missing", "degraded", "failed", "not connected"];

export function State({ of }) {
  const kind = GOOD.includes(of) ? "good" : BAD.includes(of) ? "bad" : of === "on demand" ? "dim" : "warn";
  return html`<span class=${kind}>${of}</span>`;
}

// The state of a worker, and how much of its model is loaded.
export function WorkerState({ of: worker }) {
  const load = of("load").find((each) => each.worker_id === worker.worker_id);
  return html`<${State} of=${worker.state} />${load && load.layers_total > 0 && html` <progress max=${load.layers_total} value=${load.layers_loaded} aria-label="loaded"></progress>`}`;
}

// A button that does something on the queen, and says beside itself why it could not. It is never disabled, which
// would take the focus from it.
export function Action({ label, run, confirm: question, title, disabled }) {
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState("");
  async function act() {
    if (busy || disabled) return;
    if (question && !window.confirm(question)) return;
    setBusy(true);
    setProblem("");
    try {
      await run();
    } catch (error) {
      setProblem([error.message, error.hint].filter(Boolean).join(" "));
    }
    setBusy(false);
  }
  return html`<span>
    <button aria-disabled=${Boolean(busy || disabled)} title=${title || ""} onClick=${act}>${busy ? "…" : label}</button>
    ${problem && html`<span class="bad small wrap" role="alert"> ${problem}</span>`}
  </span>`;
}

// Fields whose button is pressed by Enter too; what is wrong with them is said by the queen.
export function Form({ class: kind, children }) {
  return html`<form class=${kind} noValidate onSubmit=${(event) => event.preventDefault()}>${children}</form>`;
}

export function Empty({ children }) {
  return html`<div class="empty">${children}</div>`;
}
