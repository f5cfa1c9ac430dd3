// The service worker: it keeps the page for use without a network, and adds the headers that threads need where the host
// does not send them. A page gets them only when it is loaded through it, so the first visit loads twice.

// Of this site alone: the host may have another one in another folder.
const TRIED = `tinyseg-isolated ${new URL("./", location).pathname}`;

const TAKE_MS = 5000;

/** Resolves when the page may start; a reload may come first. Gives what the page has to do without, or "". */
export async function isolate() {
  if (!window.isSecureContext || !navigator.serviceWorker) {
    return "this address is not https: one thread, and not offline";
  }
  try {
    const registration = await navigator.serviceWorker.register("sw.js", { updateViaCache: "none" });
    if (registration.waiting && navigator.serviceWorker.controller) {
      // A newer version has come since the last visit: it takes over before anything of the old one has started.
      if (await take(registration.waiting)) return reload();
    }
    // By itself a browser looks a second after the page has loaded: who reloads before that would never see a newer version.
    if (registration.active) registration.update().catch(() => {}); // offline there is none to see
    await Promise.race([navigator.serviceWorker.ready, refused(registration)]);
  } catch (error) {
    return `the service worker does not start (${error.message}): ${crossOriginIsolated ? "" : "one thread, and "}not offline`;
  }
  if (navigator.serviceWorker.controller && crossOriginIsolated) {
    sessionStorage.removeItem(TRIED);
    return "";
  }
  // Once only: where the browser isolates nothing, the page works on one thread.
  if (sessionStorage.getItem(TRIED)) return crossOriginIsolated ? "" : "this browser gives the page one thread";
  sessionStorage.setItem(TRIED, "1");
  return reload();
}

/** Rejects where the first service worker cannot be installed: `ready` would wait for one for ever. */
function refused({ installing, waiting, active }) {
  return new Promise((_, reject) => {
    const check = () => {
      const gone = !installing || installing.state === "redundant";
      if (gone && !waiting && !active) reject(new Error("a file of the site did not load, or the browser keeps none"));
    };
    installing?.addEventListener("statechange", check);
    check();
  });
}

/** Whether the worker took over. One that still serves may keep it waiting for long: the page then starts with the old one. */
function take(worker) {
  const taken = new Promise((resolve) => {
    navigator.serviceWorker.addEventListener("controllerchange", () => resolve(true), { once: true });
  });
  worker.postMessage("take over");
  return Promise.race([taken, new Promise((resolve) => setTimeout(resolve, TAKE_MS, false))]);
}

function reload() {
  location.reload();
  return new Promise(() => {});
}
