// The playground: asks one or two models through /v1, with a key that this page alone holds, and shows the stream.
"use strict";

const place = document.querySelector("[data-playground]");
const texts = place.dataset;
const numbers = new Intl.NumberFormat(texts.language, { maximumFractionDigits: 1 });
const one = (name) => place.querySelector(name);
const question = one("#question"), send = one("[data-send]"), stop = one("[data-stop]"), compare = one("[data-compare]");
let key = null, asking = null;
place.hidden = false;
document.querySelector("[data-without]").hidden = true;

class Pane {
  constructor(element) {
    this.element = element;
    this.talk = element.querySelector("[data-talk]");
    this.figures = element.querySelector("[data-figures]");
    this.model = element.querySelector("[data-model]");
    this.hello = this.talk.querySelector("[data-hello]");
    this.clear();
  }

  clear() {
    this.messages = [];
    this.talk.replaceChildren(this.hello);
    this.figures.textContent = "";
  }

  bubble(who, kind) {
    this.hello.remove();
    const element = document.createElement("div"), name = document.createElement("p"), words = document.createElement("div");
    element.className = `bubble ${kind}`;
    name.className = "bubble-who";
    name.textContent = who;
    words.className = "bubble-words";
    element.append(name, words);
    this.talk.append(element);
    this.talk.scrollTop = this.talk.scrollHeight;
    return words;
  }

  async ask(text, signal) {
    this.messages.push({ role: "user", content: text });
    this.bubble(texts.you, "mine").textContent = text;
    const words = this.bubble(this.model.value, "theirs");
    words.classList.add("is-coming");
    const began = performance.now();
    const seen = { said: "", first: null, usage: null };
    try {
      for await (const event of events(await exchange(this.request(), signal))) this.take(event, seen, words, began);
    } catch (error) {
      const note = document.createElement("p");
      note.className = "wrong";
      note.textContent = signal.aborted ? texts.stopped : `${texts.failed} ${error.message}`;
      words.after(note);
    }
    words.classList.remove("is-coming");
    if (seen.said) this.messages.push({ role: "assistant", content: seen.said });
    else this.messages.pop();
    this.tell(seen, performance.now() - began);
  }

  request() {
    const system = one("#system").value.trim(), temperature = one("#temperature").value, most = one("#most").value;
    const messages = system ? [{ role: "system", content: system }, ...this.messages] : this.messages;
    const request = { model: this.model.value, messages, stream: true, stream_options: { include_usage: true } };
    if (temperature !== "") request.temperature = Number(temperature);
    if (most !== "") request.max_tokens = Number(most);
    return request;
  }

  take(event, seen, words, began) {
    if (event.error) throw new Error(event.error.message);
    seen.usage = event.usage ?? seen.usage;
    const more = event.choices?.[0]?.delta?.content;
    if (!more) return;
    seen.first ??= performance.now() - began;
    seen.said += more;
    const isAtEnd = this.talk.scrollTop + this.talk.clientHeight >= this.talk.scrollHeight - 40;
    words.textContent = seen.said;
    if (isAtEnd) this.talk.scrollTop = this.talk.scrollHeight;
  }

  tell({ usage, first }, total) {
    if (!usage) { this.figures.textContent = ""; return; }
    const seconds = Math.max(total - (first ?? 0), 1) / 1000;
    const figures = {
      prompt: usage.prompt_tokens, completion: usage.completion_tokens, first: Math.round(first ?? total),
      total: Math.round(total), speed: usage.completion_tokens / seconds,
    };
    this.figures.textContent = texts.figures.replace(/\{(\w+)\}/g, (_, name) => numbers.format(figures[name]));
  }
}

async function exchange(request, signal, isSecond = false) {
  key ??= freshKey(texts.keyUrl);
  const secret = await key.catch((error) => { key = null; throw error; });
  const answer = await fetch("/v1/chat/completions", {
    method: "POST", signal, body: JSON.stringify(request), credentials: "omit",
    headers: { authorization: `Bearer ${secret}`, "content-type": "application/json" },
  });
  if (answer.status === 401 && !isSecond) {
    key = null;
    return exchange(request, signal, true);
  }
  if (!answer.ok) throw new Error((await answer.json()).error.message);
  return answer;
}

async function* events(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split(/\r\n|\n|\r/);
    rest = lines.pop();
    for (const line of lines) {
      if (line.startsWith("data: ") && line !== "data: [DONE]") yield JSON.parse(line.slice(6));
    }
  }
}

const panes = [...place.querySelectorAll("[data-pane]")].map((element) => new Pane(element));
const shown = () => panes.filter((pane) => !pane.element.hidden);
if (panes.length > 1 && panes[1].model.value === panes[0].model.value) {
  panes[1].model.selectedIndex = panes[0].model.selectedIndex ? 0 : 1;
}

compare?.addEventListener("change", () => { panes[1].element.hidden = !compare.checked; });

one("[data-ask]").addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = question.value.trim();
  if (!text || asking) return;
  asking = new AbortController();
  question.value = "";
  send.disabled = true;
  stop.hidden = false;
  await Promise.all(shown().map((pane) => pane.ask(text, asking.signal)));
  asking = null;
  send.disabled = false;
  stop.hidden = true;
  question.focus();
});
stop.addEventListener("click", () => asking?.abort());
one("[data-clear]").addEventListener("click", () => { asking?.abort(); panes.forEach((pane) => pane.clear()); question.focus(); });
question.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) one("[data-ask]").requestSubmit();
});
