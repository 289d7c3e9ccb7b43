"use strict";
// Fetches this page again when the server names something that it shows. Not while somebody is in
// it with the keyboard, reads its details, or has typed something: nothing moves under their hands.
const main = () => document.querySelector("main");
const offer = document.querySelector("#fresh"); // who reads further down decides when it moves
const shows = main().dataset.live.split(" ");
let source = null;
let opened = 0;
let stale = false;
let typed = false;

function busy() {
  return typed || main().contains(document.activeElement) || main().querySelector("details[open]");
}

function follow() {
  source?.close();
  source = document.hidden ? null : new EventSource("/console/events");
  if (source === null) return;
  source.onopen = () => { stale ||= opened++ > 0; }; // it may have missed something meanwhile
  source.onmessage = (event) => { stale ||= shows.includes(event.data); };
  source.onerror = () => { if (source?.readyState === EventSource.CLOSED) setTimeout(follow, 10_000); };
  source.addEventListener("end", (event) => {
    source.close();
    if (event.data === "session" && !typed) location.reload();
  });
}

async function refresh() {
  const answer = await fetch(location.href, { headers: { "X-Refresh": "1" } });
  if (answer.redirected) return location.reload();
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const fresh = page.querySelector("main[data-live]");
  if (busy()) stale = true;
  else if (fresh === null || fresh.innerHTML === main().innerHTML) return;
  else if (scrollY > 0) offer.hidden = false;
  else main().replaceWith(fresh);
}

offer?.addEventListener("click", () => location.reload());
document.addEventListener("input", () => { typed = true; });
document.addEventListener("visibilitychange", follow);
setInterval(() => {
  if (!stale || document.hidden || busy()) return;
  stale = false;
  refresh().catch(() => {}); // without the network there is no stream either: see onopen
}, 1000);
follow();
