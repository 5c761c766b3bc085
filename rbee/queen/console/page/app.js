// The frame of the page: signing in, the views, and what is wrong.

import { html, render, useEffect, useErrorBoundary, useState } from "./vendor/htm-preact-3.1.1.js";
import { json, useSession } from "./api.js";
import { openFor, stopAll } from "./conversations.js";
import { keepFocus } from "./focus.js";
import { changed, follow, forget, later, listen, mayOperate, of, state, stopFollowing } from "./state.js";
import { Activity } from "./views/activity.js";
import { Chat } from "./views/chat.js";
import { Fleet } from "./views/fleet.js";
import { Keys } from "./views/keys.js";
import { Logs } from "./views/logs.js";
import { Models } from "./views/models.js";

const VIEWS = { fleet: Fleet, models: Models, activity: Activity, chat: Chat, logs: Logs, keys: Keys };
const OF_CLIENTS = ["chat"];

function Frame() {
  const [, redraw] = useState(0);
  useEffect(() => {
    listen(() => redraw(state.version));
    changed(); // maybe some came before
    window.addEventListener("hashchange", changed);
  }, []);
  if (state.session === null) return html`<${SignIn} />`;
  const names = mayOperate() ? Object.keys(VIEWS) : OF_CLIENTS;
  const wanted = location.hash.slice(1);
  const current = names.includes(wanted) ? wanted : names[0];
  const queen = of("queen")[0] || {};
  return html`
    <header>
      <h1>rbee</h1>
      <nav aria-label="Views">
        ${names.map((name) => html`<a href="#${name}" aria-current=${name === current ? "page" : undefined}>${name[0].toUpperCase() + name.slice(1)}</a>`)}
      </nav>
      <span class="right small">
        ${queen.tasks_running !== undefined && html`<span>${queen.tasks_running - queen.tasks_waiting} running, ${queen.tasks_waiting} waiting</span>`}
        <span>${state.session.client}</span>
        <button class="plain" onClick=${signOut}>Sign out</button>
      </span>
    </header>
    ${mayOperate() && state.trouble && html`<div class="banner warn" role="status">${state.trouble} Trying again. What is shown was known last.</div>`}
    ${queen.draining && html`<div class="banner warn" role="status">The queen is stopping and takes no new requests.</div>`}
    <main><${View} key=${current} of=${VIEWS[current]} /></main>`;
}

// One view that fails leaves the others.
function View({ of: Shown }) {
  const [error, again] = useErrorBoundary(console.error);
  if (error) return html`<p class="bad" role="alert">This view failed: ${error.message}. <button onClick=${again}>Try again</button></p>`;
  return html`<${Shown} />`;
}

function SignIn() {
  const [key, setKey] = useState("");
  const [refused, setProblem] = useState("");
  const problem = refused || state.problem;
  async function enter(event) {
    event.preventDefault();
    try {
      begin(await json("POST", "v2/console/sign-in", { key }));
    } catch (error) {
      setProblem(error.message);
    }
  }
  return html`<main class="sign">
    <form class="panel" onSubmit=${enter}>
      <h1>rbee</h1>
      <p class="dim">Open the link that <code>rbee-keeper console</code> prints, or sign in with a key.</p>
      <div class="row">
        <input class="grow" type="password" aria-label="Key" autocomplete="off" value=${key} onInput=${(event) => setKey(event.target.value)} />
        <button disabled=${!key}>Sign in</button>
      </div>
      ${problem && html`<p class="bad" role="alert">${problem}</p>`}
    </form>
  </main>`;
}

function begin(session) {
  useSession(session, () => leave("The session is over."));
  openFor(session.client);
  state.session = session;
  state.problem = "";
  if (mayOperate()) follow(resume);
  changed();
}

function leave(problem) {
  stopAll();
  useSession({ csrf: "" }, null);
  forget();
  state.session = null;
  state.problem = problem;
  state.trouble = "";
  changed();
}

async function signOut() {
  await json("DELETE", "v2/console/session").catch(() => null);
  leave("");
}

async function check() {
  const session = await json("GET", "v2/console/session");
  if (session.client) begin(session);
  else leave(state.session ? "The session is over." : "");
}

// The events were refused: the session is over, or the queen cannot answer now, and is asked again.
async function resume() {
  stopFollowing();
  try {
    await check();
  } catch (error) {
    if (state.session === null) return;
    state.trouble = error.message;
    changed();
    later(resume);
  }
}

async function start() {
  const ticket = new URLSearchParams(location.hash.slice(1)).get("ticket");
  // Whose session the browser's is; nobody's to the queen where the browser comes by a link of another site.
  const known = JSON.parse(document.getElementById("session").textContent);
  if (ticket !== null) history.replaceState(null, "", location.pathname);
  keepFocus(document.getElementById("app"));
  if (ticket === null && known.client) begin(known);
  render(html`<${Frame} />`, document.getElementById("app"));
  if (state.session) return;
  try {
    if (ticket !== null) begin(await json("POST", "v2/console/sign-in", { ticket }));
    else await check();
  } catch (error) {
    leave([error.message, error.hint].filter(Boolean).join(" "));
  }
}

start();
