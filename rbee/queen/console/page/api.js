// Requests to the queen that sent this page, with the session of this browser. Paths are relative, so that the page
// works under any prefix of a reverse proxy.

let csrf = "";
let over = null;

// From now on requests are of this session; onOver is called once the queen knows it no more.
export function useSession(session, onOver) {
  csrf = session.csrf;
  over = onOver;
}

export class Refusal extends Error {
  constructor(message, hint, status) {
    super(message);
    this.hint = hint;
    this.status = status;
  }
}

export async function send(method, path, body, signal) {
  const headers = { Accept: "application/json" };
  if (method !== "GET") headers["X-Rbee-Csrf"] = csrf;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, { method, headers, signal, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal("The queen does not answer.", "", 0);
  }
  if (response.status === 401 && over) over();
  if (!response.ok) throw refusal(await response.text(), response.status);
  return response;
}

function refusal(text, status) {
  try {
    const error = JSON.parse(text).error;
    return new Refusal(error.message, error.hint || "", status);
  } catch {
    return new Refusal(`The queen answered with status ${status}.`, "", status);
  }
}

export async function json(method, path, body) {
  const response = await send(method, path, body);
  return response.status === 204 ? null : response.json();
}

function cut(error) {
  if (error && error.name === "AbortError") throw error;
  throw new Refusal("The answer was cut off: the connection to the queen has ended.", "Regenerate asks again.", 0);
}

// The data of each event of a stream that answers a POST, which EventSource cannot send. One that ends without its mark
// was cut off.
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read().catch(cut);
      if (done) cut();
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        if (line === "data: [DONE]") return;
        if (line.startsWith("data: ")) yield JSON.parse(line.slice(6));
      }
    }
  } finally {
    reader.cancel().catch(() => {}); // it fails where the request was aborted
  }
}
