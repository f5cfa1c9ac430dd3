// Puts the page together.

import { Channel } from "./channel.js";
import { readFrames } from "./frames.js";
import { ObjectList } from "./list.js";
import { watchPointing } from "./pointing.js";
import { View } from "./view.js";

const at = (id) => document.getElementById(id);
const view = new View(at("picture"));
let state = null;
let spokenStatus = "";

function say(text) {
  at("spoken").textContent = text;
}

function complain(error) {
  at("message").textContent = error.message;
}

async function ask(action, fields) {
  at("message").textContent = "";
  try {
    return await channel.do(action, fields);
  } catch (error) {
    complain(error);
    return null;
  }
}

function select(id) {
  view.selected = id;
  if (state) list.show(state.objects, id);
  view.draw();
}

const list = new ObjectList(at("objects"), {
  onSelect: select,
  onEdit: (id, fields) => ask("edit", { object: id, ...fields }),
  onRemove: (id) => ask("remove", { object: id }),
});

const channel = new Channel(
  (next) => {
    state = next;
    view.take(next);
    if (view.selected !== null && !next.objects.some((one) => one.id === view.selected)) view.selected = null;
    showState(next);
  },
  (connected) => {
    at("link").textContent = connected ? "live" : "no connection, trying again";
    at("link").toggleAttribute("data-bad", !connected);
    if (connected) at("message").textContent = "";
  },
);

function showState(next) {
  at("source").textContent = next.source;
  const words = { waiting: "waiting for a picture", playing: "playing", paused: "paused", ended: "at its end", failed: "failed" };
  at("link").textContent = words[next.status];
  at("link").toggleAttribute("data-bad", next.status === "failed");
  if (spokenStatus !== next.status) {
    spokenStatus = next.status;
    say(words[next.status]);
  }
  const play = next.status === "playing" ? "Pause" : next.status === "ended" ? "Again" : "Play";
  if (at("play").textContent !== play) at("play").textContent = play;
  at("step").disabled = next.status === "ended" || next.status === "failed";
  const recording = Boolean(next.recording?.running);
  at("record").setAttribute("aria-pressed", String(recording));
  const label = recording ? `Stop (${next.recording.frames})` : "Record";
  if (at("record").textContent !== label) at("record").textContent = label;
  at("clear").disabled = next.objects.length === 0;
  at("none").hidden = next.objects.length > 0;
  at("hint").textContent = next.objects.length ? "" : "Click an object to follow it, or drag a box around it.";
  list.show(next.objects, view.selected);
  showFigures(next.figures);
  if (next.message && at("message").dataset.server !== next.message) at("message").textContent = next.message;
  at("message").dataset.server = next.message;
  const known = JSON.stringify([next.recording?.number, next.recording?.running]);
  if (at("recordings").dataset.known !== known) {
    at("recordings").dataset.known = known;
    showRecordings();
  }
}

function showFigures(figures) {
  const rows = [["frames/s", figures.fps.toFixed(1)], ["latency", `${figures.latency_ms.toFixed(0)} ms`]];
  for (const [name, spent] of Object.entries(figures.stages)) rows.push([name, `${spent.toFixed(1)} ms`]);
  rows.push(["dropped", figures.dropped], ["viewers", figures.viewers]);
  const shown = at("figures");
  while (shown.children.length > rows.length) shown.lastElementChild.remove();
  rows.forEach(([name, value], i) => {
    let row = shown.children[i];
    if (!row) {
      row = document.createElement("div");
      row.append(document.createElement("dt"), document.createElement("dd"));
      shown.append(row);
    }
    row.children[0].textContent = name;
    row.children[1].textContent = value;
  });
}

async function showRecordings() {
  try {
    const answer = await fetch("/api/recordings");
    if (!answer.ok) return;
    const rows = (await answer.json()).filter((one) => !one.running).map((one) => {
      const row = document.createElement("li");
      const text = document.createElement("span");
      const lost = one.lost ? `, ${one.lost} lost` : "";
      text.textContent = `Recording ${one.number} (${one.frames} frames${lost})${one.message ? `: ${one.message}` : ""} `;
      row.append(text);
      if (one.frames) row.append(link(`/api/recordings/${one.number}/video.mp4`, "Video"), " ", link(`/api/recordings/${one.number}/coco.json`, "COCO"));
      return row;
    });
    at("recordings").replaceChildren(...rows);
  } catch {
    at("recordings").dataset.known = ""; // asked for again with the next state
  }
}

function link(href, text) {
  const made = document.createElement("a");
  made.href = href;
  made.download = "";
  made.textContent = text;
  return made;
}

function mode() {
  return document.querySelector("input[name=mode]:checked").value;
}

async function point(fields, correct, label) {
  const frame = view.frame || undefined;
  if (correct || mode() !== "new") {
    if (view.selected === null) return complain(new Error("Select the object to correct first."));
    const done = await ask("correct", { object: view.selected, frame, ...fields });
    if (done) say(`${done.name} corrected`);
    return null;
  }
  const made = await ask("add", { frame, ...fields });
  if (made) {
    select(made.id);
    say(`${made.name} followed${label ? ` from ${label}` : ""}`);
  }
  return null;
}

watchPointing(
  view,
  (x, y, shift) => {
    const corrects = shift || mode() !== "new";
    // Shift alone decides by what was clicked; the modes are for those who have no Shift.
    const off = corrects && (mode() === "cut" || (mode() === "new" && view.onSelected(x, y)));
    return point({ points: [[x, y]], labels: [off ? 0 : 1] }, shift, "a click");
  },
  (box, shift) => point({ box }, shift, "a box"),
);

const toggle = () => ask(state?.status === "playing" ? "pause" : "play");
const record = () => ask(state?.recording?.running ? "stop_recording" : "record");
at("play").addEventListener("click", toggle);
at("step").addEventListener("click", () => ask("step"));
at("record").addEventListener("click", record);
at("clear").addEventListener("click", () => ask("clear"));

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const busy = event.target.matches("input[type=text], input[type=color], textarea");
  if (busy || (event.key === " " && event.target.matches("button, summary, input"))) return;
  const ids = state ? state.objects.map((one) => one.id) : [];
  const here = ids.indexOf(view.selected);
  if (event.key === " ") toggle();
  else if (event.key === ".") ask("step");
  else if (event.key.toLowerCase() === "r") record();
  else if (event.key === "Delete" && view.selected !== null) ask("remove", { object: view.selected });
  else if (event.key === "]" && ids.length) select(ids[(here + 1) % ids.length]);
  else if (event.key === "[" && ids.length) select(ids[(here + ids.length - 1 + (here < 0)) % ids.length]);
  else return;
  event.preventDefault();
});

async function watch() {
  for (let wait = 250; ; wait = Math.min(2 * wait, 5000)) {
    try {
      await readFrames("/api/stream.mjpg", undefined, (frame, blob) => {
        wait = 250;
        view.show(frame, blob).catch(() => {}); // a broken picture gives way to the next
      });
    } catch (error) {
      if (error.status === 401) location.assign("/login");
    }
    await new Promise((resolve) => setTimeout(resolve, wait));
  }
}

watch();
