// Conversations with any model.

import { html, useEffect, useRef, useState } from "../vendor/htm-preact-3.1.1.js";
import { again, ask, begin, change, choose, conversations, current, forget, isRunning, models, problem, stop, title } from "../conversations.js";
import { Markdown } from "../markdown.js";

const SETTINGS = [
  ["Temperature", "temperature", { min: 0, max: 2, step: 0.1 }],
  ["Top p", "top_p", { min: 0, max: 1, step: 0.05 }],
  ["Most tokens", "max_tokens", { min: 1, step: 1 }],
];
const NEAR_END_PX = 200;

export function Chat() {
  const [cards, setCards] = useState([]);
  const [unknown, setUnknown] = useState("");
  const end = useRef(null);
  useEffect(() => {
    models(true).then(setCards, (error) => setUnknown(error.message));
  }, []);
  const talk = current();
  const runs = isRunning(talk);
  const wrong = problem(talk) || unknown;
  useEffect(() => {
    const left = document.documentElement.scrollHeight - window.scrollY - window.innerHeight;
    if (runs && left < NEAR_END_PX) end.current.scrollIntoView({ block: "end" }); // who reads further up is left there
  });
  const asked = talk.messages.filter((each) => each.role === "user").length;
  useEffect(() => {
    if (asked) end.current.scrollIntoView({ block: "end" }); // the last of what was said, and what was asked just now
  }, [talk.id, asked]);
  return html`<section class="talks">
    <${Conversations} />
    <div class="chat">
      <${Settings} talk=${talk} cards=${cards} />
      <div aria-live="polite" aria-busy=${runs}>
        ${talk.messages.map((each, index) => html`<${Turn} key=${index} said=${each} />`)}
        ${runs && talk.messages.at(-1).role === "user" && html`<p class="dim" role="status">Waiting for the first token…</p>`}
      </div>
      ${wrong && html`<p class="bad wrap" role="alert">${wrong}</p>`}
      <${Composer} key=${talk.id} talk=${talk} sees=${sees(cards, talk)} />
      <div ref=${end}></div>
    </div>
  </section>`;
}

function sees(cards, talk) {
  const card = cards.find((each) => each.id === talk.model) || cards[0];
  return card?.capabilities.includes("vision");
}

function Conversations() {
  const shown = current();
  return html`<nav class="side" aria-label="Conversations">
    <button onClick=${begin}>New conversation</button>
    ${conversations().map((talk) => html`<div class="row" key=${talk.id}>
      <button class="plain cut grow" aria-current=${talk === shown ? "true" : undefined} title=${title(talk)} onClick=${() => choose(talk.id)}>${title(talk)}</button>
      <button class="plain" aria-label=${`Delete: ${title(talk)}`} title="Delete" onClick=${() => confirm("Delete this conversation?") && forget(talk)}>×</button>
    </div>`)}
  </nav>`;
}

function Settings({ talk, cards }) {
  const model = talk.model || cards[0]?.id;
  const known = cards.some((each) => each.id === talk.model) || !talk.model ? cards : [{ id: talk.model }, ...cards];
  const set = SETTINGS.filter(([, name]) => (talk.settings[name] ?? "") !== "").length + Number(Boolean(talk.system));
  return html`<div class="row">
    <label class="grow">Model <select value=${model} onChange=${(event) => change(talk, { model: event.target.value })}>${known.map(({ id }) => html`<option value=${id}>${id}</option>`)}</select></label>
  </div>
  <details><summary>System prompt and sampling${set > 0 && html` <span class="small">(${set} set)</span>`}</summary>
    <textarea rows="3" aria-label="System prompt" placeholder="What the model is told before the conversation" value=${talk.system} onInput=${(event) => change(talk, { system: event.target.value })}></textarea>
    <div class="row">${SETTINGS.map(([label, name, bounds]) => html`<label>${label} <input type="number" ...${bounds} placeholder="default" value=${talk.settings[name] ?? ""}
      onInput=${(event) => change(talk, { settings: { ...talk.settings, [name]: event.target.value } })} /></label>`)}</div>
  </details>`;
}

function Composer({ talk, sees: takesImages }) {
  const [text, setText] = useState("");
  const [images, setImages] = useState([]);
  const runs = isRunning(talk);
  function submit(event) {
    event.preventDefault();
    if (!text.trim() || runs) return;
    ask(talk, text, images);
    setText("");
    setImages([]);
  }
  // Return also ends a word of an input method, which is no end of the message.
  const onKeyDown = (event) => event.key === "Enter" && !event.shiftKey && !event.isComposing && submit(event);
  function attach(event) {
    for (const file of event.target.files) {
      const reader = new FileReader();
      reader.onload = () => setImages((now) => [...now, reader.result]);
      reader.readAsDataURL(file);
    }
    event.target.value = "";
  }
  return html`<form class="composer" onSubmit=${submit}>
    <textarea rows="3" aria-label="Message" placeholder="Ask something. Enter sends, Shift+Enter begins a new line." value=${text} onInput=${(event) => setText(event.target.value)} onKeyDown=${onKeyDown}></textarea>
    ${images.length > 0 && html`<div class="row">${images.map((url, index) => html`<button type="button" class="plain" title="Remove" onClick=${() => setImages(images.filter((each) => each !== url))}><img src=${url} alt=${`attached image ${index + 1}`} /></button>`)}</div>`}
    <div class="row">
      ${runs ? html`<button type="button" onClick=${() => stop(talk)}>Stop</button>` : html`<button disabled=${!text.trim()}>Send</button>`}
      <button type="button" disabled=${runs || !talk.messages.length} onClick=${() => again(talk)}>Regenerate</button>
      ${takesImages && html`<label class="dim small">Images <input type="file" accept="image/*" multiple onChange=${attach} /></label>`}
    </div>
  </form>`;
}

function Turn({ said }) {
  return html`<div class="turn">
    <div class="who">${said.role === "user" ? "You" : "Model"}${said.summary && ` · ${said.summary}`}</div>
    ${said.thought && html`<details open=${!said.content}><summary>Thoughts</summary><p class="dim">${said.thought}</p></details>`}
    ${(said.images || []).map((url) => html`<img src=${url} alt="attached" />`)}
    ${said.role === "user" ? html`<p>${said.content}</p>` : html`<${Markdown} text=${said.content} />`}
    ${(said.calls || []).map((call) => html`<details class="call"><summary>Calls <code>${call.name}</code></summary><pre tabindex="0">${call.arguments}</pre></details>`)}
  </div>`;
}
