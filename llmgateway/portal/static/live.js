// Keeps the live page as it is now: the server sends what has changed as HTML of its own template.
"use strict";

const live = document.querySelector("[data-live]"), follow = document.querySelector("[data-follow]");
let source = null;

function listen() {
  source = new EventSource(live.dataset.live);
  source.addEventListener("message", (event) => {
    if (!live.contains(document.activeElement)) live.innerHTML = event.data;
  });
}

document.querySelector("[data-still]").hidden = true;
document.querySelector("[data-switch]").hidden = false;
follow.addEventListener("change", () => { if (follow.checked) listen(); else source.close(); });
listen();
