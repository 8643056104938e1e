// Asks the API what the form says, with a key that this page alone holds, and shows the answer as it comes.
"use strict";

const place = document.querySelector("[data-api]");
const one = (name) => place.querySelector(name);
const what = one("#what"), body = one("#body"), send = one("[data-send]"), stop = one("[data-stop]");
const told = one("[data-status]"), answer = one("[data-answer]"), words = one("[data-answer] code");
let key = null, asking = null;
place.hidden = false;

function show() {
  const { body: text, method } = what.selectedOptions[0].dataset;
  body.value = text;
  body.hidden = method === "GET";
}

async function ask(signal) {
  const { method, path } = what.selectedOptions[0].dataset;
  key ??= await freshKey(place.dataset.keyUrl);
  const began = performance.now();
  const headers = { authorization: `Bearer ${key}`, "content-type": "application/json" };
  const reply = await fetch(path, { method, signal, credentials: "omit", headers, body: method === "GET" ? null : body.value });
  if (reply.status === 401) key = null;
  answer.hidden = false;
  words.textContent = "";
  const isJson = (reply.headers.get("content-type") ?? "").startsWith("application/json");
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let part = await reader.read(); !part.done; part = await reader.read()) words.textContent += part.value;
  if (isJson) words.textContent = JSON.stringify(JSON.parse(words.textContent), null, 2);
  const id = reply.headers.get("x-request-id") ?? "";
  told.textContent = `${reply.status} · ${Math.round(performance.now() - began)} ms · ${id}`;
}

what.addEventListener("change", show);
show();
stop.addEventListener("click", () => asking?.abort());
one("[data-try]").addEventListener("submit", async (event) => {
  event.preventDefault();
  if (asking) return;
  asking = new AbortController();
  send.disabled = true;
  stop.hidden = false;
  told.textContent = "…";
  try {
    await ask(asking.signal);
  } catch (error) {
    told.textContent = asking.signal.aborted ? place.dataset.stopped : `${place.dataset.failed} ${error.message}`;
  }
  asking = null;
  send.disabled = false;
  stop.hidden = true;
});
