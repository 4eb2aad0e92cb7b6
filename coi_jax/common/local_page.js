"use strict";
const start = JSON.parse(document.getElementById("start").textContent);
const pick = name => document.getElementById(name);
let busy = false;

async function talk(path, options) {
  busy = true;  // no key decides over what is not shown yet
  const reply = await fetch(path, options).catch(() => null);
  const answer = reply && await reply.json().catch(() => null);
  busy = false;
  if (reply && reply.ok) return answer;
  pick("said").textContent = answer && answer.error || "the command that serves this page has ended; start it again";
  return null;
}

function send(path, body) {
  return talk(path, { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json", "X-Token": start.token } });
}
