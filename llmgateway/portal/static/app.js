// What pages do better with a script: copying, and a menu that is open where there is
// room. All of it works without.
"use strict";

for (const button of document.querySelectorAll("[data-copy]")) {
  const text = button.closest("[data-copied]").querySelector("pre, #secret").textContent.trim();
  const label = button.querySelector("span");
  const before = label.textContent;
  button.hidden = !navigator.clipboard;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(text);
    label.textContent = button.dataset.done;
    label.setAttribute("role", "status");
    setTimeout(() => { label.textContent = before; }, 2000);
  });
}

const menu = document.querySelector("[data-menu]");
if (menu) {
  const wide = window.matchMedia("(min-width: 60rem)");
  const follow = () => { menu.open = wide.matches; };
  wide.addEventListener("change", follow);
  follow();
  const here = menu.querySelector("[aria-current]");
  if (here && wide.matches) here.scrollIntoView({ block: "nearest" });
}

// A key of the person's own for a page's script: it is kept in the page's memory only.
async function freshKey(url) {
  const token = document.querySelector("meta[name=csrf-token]").content;
  const answer = await fetch(url, { method: "POST", headers: { "x-csrf-token": token } });
  if (answer.redirected) { // the session is over: to the sign-in
    window.location.assign(answer.url);
    throw new Error(String(answer.status));
  }
  const told = await answer.json();
  if (!answer.ok) throw new Error(told.error.message);
  return told.key;
}
