// Replaces what is shown by what the server shows now, every few seconds. Without this file, or
// while updates are paused, the page stays as it was loaded.
"use strict";
(() => {
  const EVERY = 5000;
  const live = document.getElementById("live");
  const state = document.getElementById("updates");
  const button = document.getElementById("pause");
  if (!live || !state || !button) return;
  let paused = false;
  let asking = false;
  let shown = live.innerHTML;

  // One of several parts that a person opened stays open.
  const open = () => [...live.querySelectorAll("details[id]")].filter((each) => each.open).map((each) => each.id);

  // Text that is being selected, or a control in use, is not taken away.
  const inUse = () => {
    const selection = document.getSelection();
    return selection && !selection.isCollapsed && live.contains(selection.anchorNode);
  };

  const replace = (text) => {
    const fresh = new DOMParser().parseFromString(text, "text/html").getElementById("live");
    if (!fresh || fresh.innerHTML === shown) return;
    const opened = open();
    const closed = [...live.querySelectorAll("details[id]")].filter((each) => !each.open).map((each) => each.id);
    const focused = live.contains(document.activeElement) ? document.activeElement.getAttribute("href") || document.activeElement.id : null;
    shown = fresh.innerHTML;
    live.replaceChildren(...fresh.childNodes);
    for (const each of live.querySelectorAll("details[id]")) {
      if (opened.includes(each.id)) each.open = true;
      if (closed.includes(each.id)) each.open = false;
    }
    if (focused) {
      const again = [...live.querySelectorAll("a[href], summary, [id]")].find((each) => each.getAttribute("href") === focused || each.id === focused);
      if (again) again.focus({ preventScroll: true });
    }
  };

  const update = async () => {
    if (paused || asking || document.hidden || inUse()) return;
    asking = true;
    try {
      const answer = await fetch(location.href, { credentials: "same-origin", cache: "no-store" });
      if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
      const text = await answer.text();
      if (!paused) replace(text);
      state.textContent = "";
    } catch (error) {
      const message = `Not updated: the server does not answer (${error.message}).`;
      if (state.textContent !== message) state.textContent = message;
    } finally {
      asking = false;
    }
  };

  button.hidden = false;
  button.addEventListener("click", () => {
    paused = !paused;
    button.setAttribute("aria-pressed", String(paused));
    button.textContent = paused ? "Resume updates" : "Pause updates";
    if (!paused) update();
  });
  setInterval(update, EVERY);
})();
