// What the queen's events say, and who looks at it. Views read it; whoever changes it calls changed().

export const state = { session: null, problem: "", connected: false, version: 0 };

const rows = new Map();
let listeners = [];
let scheduled = false;
let source = null;

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
  return [...(rows.get(kind) || new Map()).entries()].sort(([a], [b]) => (a < b ? -1 : 1));
}

export const of = (kind) => entries(kind).map(([, row]) => row);

export function mayOperate() {
  return state.session !== null && state.session.rights.includes("operate");
}

// Follow the queen's events; where the connection is cut, the browser goes on with the last id by itself.
export function follow(onRefused) {
  let replace = false;
  source = new EventSource("v2/events");
  source.onopen = () => {
    replace = true;
    state.connected = true;
    changed();
  };
  source.onerror = ({ data }) => {
    const ended = data && JSON.parse(data).error.type === "authentication_error"; // said by the queen, not by the browser
    state.connected = false;
    changed();
    if (ended || source.readyState === EventSource.CLOSED) onRefused();
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

export function stopFollowing() {
  if (source !== null) source.close();
  source = null;
  rows.clear();
}

function apply(event) {
  for (const { kind, id, row } of JSON.parse(event.data).changes) {
    if (!rows.has(kind)) rows.set(kind, new Map());
    if (row === null) rows.get(kind).delete(id);
    else rows.get(kind).set(id, row);
  }
  changed();
}
