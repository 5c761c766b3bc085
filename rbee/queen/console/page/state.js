// What the queen's events say, and who looks at it. Views read it; whoever changes it calls changed().

const RETRY_MS = 3000;

export const state = { session: null, problem: "", trouble: "", version: 0 };

const rows = new Map();
let listeners = [];
let scheduled = false;
let source = null;
let retry = 0;

export function listen(listener) {
  listeners.push(listener);
}

export function changed() {
  state.version += 1;
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(() => {
    scheduled = false;
    listeners.forEach((listener) => listener());
  });
}

export function entries(kind) {
  return [...(rows.get(kind) || [])].sort(([a], [b]) => (a < b ? -1 : 1));
}

export const of = (kind) => entries(kind).map(([, row]) => row);

export function mayOperate() {
  return state.session !== null && state.session.rights.includes("operate");
}

// Follow the queen's events. Where the connection is cut, the browser goes on with the last id by itself; where the
// events are refused it gives up, and onRefused is called.
export function follow(onRefused) {
  let replace = false;
  source = new EventSource("v2/events");
  source.onopen = () => {
    replace = true;
  };
  source.onerror = ({ data }) => {
    const said = data ? JSON.parse(data).error : null; // by the queen; the browser says nothing
    state.trouble = said ? said.message : state.trouble || "The queen does not answer.";
    changed();
    if (said && said.type === "authentication_error") onRefused();
    else if (source.readyState === EventSource.CLOSED) later(onRefused);
  };
  source.addEventListener("snapshot", (event) => {
    if (replace) rows.clear();
    replace = false;
    apply(event);
  });
  source.addEventListener("changes", (event) => {
    replace = false;
    apply(event);
  });
}

// Do it in a moment, unless the page is left before.
export function later(what) {
  retry = setTimeout(what, RETRY_MS);
}

export function stopFollowing() {
  clearTimeout(retry);
  if (source !== null) source.close();
  source = null;
}

export function forget() {
  stopFollowing();
  rows.clear();
}

function apply(event) {
  state.trouble = "";
  for (const { kind, id, row } of JSON.parse(event.data).changes) {
    if (!rows.has(kind)) rows.set(kind, new Map());
    if (row === null) rows.get(kind).delete(id);
    else rows.get(kind).set(id, row);
  }
  changed();
}
