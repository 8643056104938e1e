// What pages do better with a script: copying, and a menu that is open where there is room. All of it works without.
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
}
