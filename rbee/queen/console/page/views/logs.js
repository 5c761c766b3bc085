// The logs of a machine's hive and workers, as they are written.

import { html, useEffect, useRef, useState } from "../vendor/htm-preact-3.1.1.js";
import { of } from "../state.js";
import { nameOf } from "../parts.js";

const KEPT = 2000;

export function Logs() {
  const nodes = [...of("node")].sort((a, b) => b.connected - a.connected).map((each) => each.node);
  const [node, setNode] = useState("");
  const [source, setSource] = useState("");
  const [lines, setLines] = useState([]);
  const [problem, setProblem] = useState("");
  const view = useRef(null);
  const atEnd = useRef(true);
  const chosen = nodes.includes(node) ? node : nodes[0];
  useEffect(() => {
    setLines([]);
    setProblem("");
    if (!chosen) return undefined;
    const events = new EventSource(`v2/logs?follow=true&lines=200&node=${encodeURIComponent(chosen)}`);
    let held = [];
    const timer = setInterval(() => {
      if (held.length) {
        const more = held;
        held = [];
        setLines((now) => [...now, ...more].sort((a, b) => (a.time < b.time ? -1 : a.time > b.time ? 1 : 0)).slice(-KEPT));
      }
    }, 250);
    const times = {};
    events.onmessage = (event) => event.data !== "[DONE]" && held.push(parsed(JSON.parse(event.data), times));
    events.addEventListener("error", (event) => {
      if (event.data) setProblem(JSON.parse(event.data).error.message);
      events.close(); // once more it would send all lines again
    });
    return () => {
      clearInterval(timer);
      events.close();
    };
  }, [chosen]);
  useEffect(() => {
    const box = view.current;
    if (box && atEnd.current) box.scrollTop = box.scrollHeight;
  }, [lines]);
  const sources = [...new Set(lines.map((each) => each.source))].sort();
  const names = new Map(of("worker").map((each) => [each.worker_id, nameOf(each)]));
  const shown = lines.filter((each) => !source || each.source === source);
  return html`<section>
    <div class="row">
      <label>Machine <select value=${chosen} onChange=${(event) => setNode(event.target.value)}>${nodes.map((name) => html`<option value=${name}>${name}</option>`)}</select></label>
      <label>From <select value=${source} onChange=${(event) => setSource(event.target.value)}><option value="">all</option>${sources.map((id) => html`<option value=${id}>${names.has(id) ? `${names.get(id)} (${id})` : id}</option>`)}</select></label>
    </div>
    ${problem && html`<p class="bad" role="alert">${problem}</p>`}
    <div class="log mono" ref=${view} onScroll=${({ target }) => { atEnd.current = target.scrollHeight - target.scrollTop - target.clientHeight < 40; }} tabindex="0" role="log" aria-label="Log">${shown.map((each) => html`<${Line} ...${each} />`)}</div>
  </section>`;
}

const LEVELS = { warning: "warn", error: "bad", critical: "bad" };
const LEFT_OUT = ["time", "level", "daemon", "logger", "message", "trace_id", "request_id"];

// A line of a daemon is JSON. What is none, as a traceback, belongs to the line of its log before.
function parsed({ source, line }, times) {
  try {
    const fields = JSON.parse(line);
    if (typeof fields.message !== "string") throw new TypeError("not a line of a daemon");
    times[source] = typeof fields.time === "string" ? fields.time : "";
    return { source, fields, time: times[source] };
  } catch {
    return { source, text: line, time: times[source] || "" };
  }
}

function Line({ source, fields, text, time }) {
  if (!fields) return html`<div><span class="dim">${source}</span> ${text}</div>`;
  const rest = Object.entries(fields).filter(([name]) => !LEFT_OUT.includes(name));
  const told = rest.map(([name, value]) => `${name} ${typeof value === "object" ? JSON.stringify(value) : value}`).join(", ");
  return html`<div><span class="dim" title=${time}>${time.slice(11, 19)} ${source}</span> <span class=${LEVELS[fields.level] || ""}>${fields.message}</span> <span class="dim">${told}</span></div>`;
}
