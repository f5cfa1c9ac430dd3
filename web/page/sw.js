// Keeps the site's files by their sha256 and answers with the headers that threads need.
/* global SITE */
importScripts("files.js"); // SITE: { files: { name: sha256 } }, written by `tinyseg web build`

const SMALL = 1 << 20; // bytes; larger files are kept when the page first asks for them
const base = new URL("./", self.location.href);
// Caches belong to the host: another site of ours in another folder of it has its own.
const CACHE = `tinyseg ${base.pathname}`;

const key = (name) => new URL(`${name}?sha256=${SITE.files[name].sha256}`, base).href;

self.addEventListener("install", (event) => {
  event.waitUntil(install());
});

async function install() {
  const cache = await caches.open(CACHE);
  const names = Object.keys(SITE.files).filter((name) => SITE.files[name].bytes < SMALL);
  await Promise.all(names.map(async (name) => (await cache.match(key(name))) ?? (await keep(cache, name))));
  if (!self.registration.active) await self.skipWaiting();
}

self.addEventListener("message", (event) => {
  if (event.data === "take over") self.skipWaiting();
});

self.addEventListener("activate", (event) => {
  event.waitUntil(activate());
});

async function activate() {
  const cache = await caches.open(CACHE);
  const known = new Set(Object.keys(SITE.files).map(key));
  const old = (await cache.keys()).filter((request) => !known.has(request.url));
  await Promise.all(old.map((request) => cache.delete(request)));
  await self.clients.claim();
}

/** Fetch a file and keep it. */
async function keep(cache, name) {
  const response = await load(name);
  if (!response.ok) throw new Error(`${name}: the host answered ${response.status}`);
  await store(cache, name, response);
}

function load(name) {
  return fetch(new URL(name, base), { cache: "no-cache" });
}

/** Keep a file if it is the one that belongs to this version; another one is only passed on. */
async function store(cache, name, response) {
  const bytes = await response.arrayBuffer();
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  const found = [...digest].map((b) => b.toString(16).padStart(2, "0")).join("");
  if (found !== SITE.files[name].sha256) return;
  await cache.put(key(name), new Response(bytes, { headers: { "Content-Type": response.headers.get("Content-Type") ?? "" } }));
}

self.addEventListener("fetch", (event) => {
  const url = new URL(event.request.url);
  if (event.request.method !== "GET" || url.origin !== base.origin || !url.pathname.startsWith(base.pathname)) return;
  const name = url.pathname.slice(base.pathname.length) || "index.html";
  if (name in SITE.files) event.respondWith(answer(event, name));
});

async function answer(event, name) {
  const cache = await caches.open(CACHE);
  let response = await cache.match(key(name));
  if (!response) {
    response = await load(name);
    // The page reads it while it comes; it is kept when it is whole, if the browser has room.
    if (response.ok) event.waitUntil(store(cache, name, response.clone()).catch(() => {}));
  }
  const headers = new Headers(response.headers);
  headers.set("Cross-Origin-Opener-Policy", "same-origin");
  headers.set("Cross-Origin-Embedder-Policy", "require-corp");
  headers.set("Cross-Origin-Resource-Policy", "same-origin");
  headers.set("X-Content-Type-Options", "nosniff");
  return new Response(response.body, { status: response.status, statusText: response.statusText, headers });
}
