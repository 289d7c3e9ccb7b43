"use strict";
// Keys for a desk: j and k go from row to row, Enter opens one, t takes it, / searches, ? says so.
const rows = () => [...document.querySelectorAll(".t a")];
const here = () => document.activeElement?.closest("li");

function go(step) {
  const all = rows();
  const at = all.findIndex((link) => link.closest("li") === here());
  all[Math.min(Math.max(at + step, 0), all.length - 1)]?.focus();
}

// A menu closes when something else is pressed, or by Escape.
function shut(but) {
  const open = [...document.querySelectorAll(".more[open], .account[open]")].filter((each) => !each.contains(but));
  for (const each of open) each.open = false;
  return open;
}

document.addEventListener("click", (event) => { shut(event.target); });
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") shut(null).at(-1)?.querySelector("summary").focus();
  const typing = event.target.closest("input, select, textarea, dialog");
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const acts = {
    j: () => go(1),
    k: () => go(-1),
    t: () => (here() ?? document.querySelector(".bar-acts"))?.querySelector("button[value=taken]")?.click(),
    "/": () => document.querySelector("main [type=search]")?.focus(),
    "?": () => document.querySelector("#keys").showModal(),
  };
  if (!(event.key in acts)) return;
  event.preventDefault();
  acts[event.key]();
});
