// Spares a reload: sends the form, shows messages in place, and waits for the answer on an event
// stream. Without this script the same pages work by redirect and reload. All HTML, the cards
// included, is made on the server.
"use strict";

(() => {
  const form = document.getElementById("question");
  const panel = document.getElementById("answer");
  const failure = document.getElementById("failure");
  const waiting = document.getElementById("waiting");
  if (!form || !panel || !failure || !waiting) return;

  // after the server turned a stream away; it reconnects by itself after a broken connection
  const RECONNECT_MS = 5000;
  const NOT_SENT = "Your question could not be sent. Please check the connection and try again.";
  const button = form.querySelector("button");
  let stream = null;
  let sending = false;
  let shown = location.search;

  function reveal() {
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    panel.scrollIntoView({ block: "nearest", behavior: still ? "auto" : "smooth" });
  }

  function listen(id) {
    if (stream) stream.close();
    const own = new EventSource(`${form.action}/response/${id}/events`);
    stream = own;
    const show = (event) => {
      own.close();
      // made and escaped by the server
      panel.innerHTML = JSON.parse(event.data).card;
      reveal();
    };
    own.addEventListener("answer", show);
    own.addEventListener("late", show);
    own.addEventListener("error", () => {
      const turnedAway = own.readyState === EventSource.CLOSED;
      if (turnedAway) setTimeout(() => stream === own && look(id, own), RECONNECT_MS);
    });
  }

  // the answer may be there although there is no room for a stream
  async function look(id, own) {
    let isThere = false;
    try {
      const response = await fetch(`${form.action}/response/${id}`);
      isThere = response.ok && (await response.json()).status !== "WAIT";
    } catch {
      // the stream says when the server is back
    }
    // another question may have been asked meanwhile
    if (stream !== own) return;
    if (isThere) location.reload();
    else listen(id);
  }

  function say(element, text) {
    element.textContent = text;
    element.hidden = !text;
  }

  function showErrors(errors) {
    let first = null;
    for (const input of form.querySelectorAll("input")) {
      const text = errors[input.name] || "";
      say(document.getElementById(`${input.name}-error`), text);
      if (text) input.setAttribute("aria-invalid", "true");
      else input.removeAttribute("aria-invalid");
      if (text && !first) first = input;
    }
    if (first) first.focus();
  }

  function showWaiting(id) {
    panel.replaceChildren(waiting.content.cloneNode(true));
    reveal();
    // the address holds the question, so that it is there again after a reload
    const question = new URLSearchParams(new FormData(form));
    history.pushState(null, "", `${form.dataset.page}?id=${id}&${question}`);
    shown = location.search;
    listen(id);
  }

  async function send() {
    const response = await fetch(form.action, {
      method: "POST",
      headers: { Accept: "application/json" },
      body: new URLSearchParams(new FormData(form)),
    });
    const state = await response.json();
    showErrors(state.errors || {});
    say(failure, response.ok || state.errors ? "" : state.detail);
    if (state.status === "OK") showWaiting(state.id);
  }

  document.addEventListener("submit", async (event) => {
    const asked = event.target;
    if (!("ask" in asked.dataset)) return;
    event.preventDefault();
    if (sending) return;
    // "what if" asks the same with another delay; its messages belong to the fields of the form
    for (const [name, value] of new FormData(asked)) form.elements[name].value = value;
    sending = true;
    // not `disabled`, which would take the focus away
    button.setAttribute("aria-disabled", "true");
    try {
      await send();
    } catch {
      say(failure, NOT_SENT);
    } finally {
      sending = false;
      button.removeAttribute("aria-disabled");
    }
  });

  // the address names the question, so that going back shows the one before; a link into the page
  // leads to no other
  addEventListener("popstate", () => location.search !== shown && location.reload());

  if (panel.dataset.waitingFor) listen(panel.dataset.waitingFor);
})();
