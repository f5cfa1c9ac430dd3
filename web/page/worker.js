// The network, away from the page's own thread. Messages { id, do, ... } are answered in order by { id, result } or
// { id, error }; { progress } tells how far a long one is.

import { Segmenter, checkOverlap } from "./tinyseg/index.js";

const LEAST_OVERLAP = 0.95; // with the Python runtime's answer to the check: lower precisions move edges

const RUNTIMES = {
  wasm: { module: "./ort/ort.wasm.min.mjs", glue: "ort-wasm-simd-threaded" },
  webgpu: { module: "./ort/ort.webgpu.min.mjs", glue: "ort-wasm-simd-threaded.asyncify" },
};
let segmenter = null;
let embedding = null;
let queue = Promise.resolve();

const actions = {
  /** Loads an engine of the site, or "auto": WebGPU where the site and the browser have it in fp16, else WASM. */
  async load({ site, engine, threads }) {
    const wanted = engine === "auto" ? ((await hasWebgpu(site)) ? "webgpu" : "wasm") : engine;
    if (!Object.hasOwn(site.engines, wanted)) throw new Error(`this site has no engine ${wanted}; it has ${Object.keys(site.engines)}`);
    try {
      return await start(site, wanted, threads);
    } catch (error) {
      if (engine !== "auto" || wanted === "wasm") throw error;
      const started = await start(site, "wasm", threads);
      return { ...started, note: `WebGPU is not used here: ${error.message}` };
    }
  },

  /** Encodes a picture; the one before is forgotten. */
  async open({ data, width, height }) {
    embedding?.free();
    embedding = null;
    const start = performance.now();
    embedding = await segmenter.embed({ data, width, height });
    return { milliseconds: performance.now() - start };
  },

  async ask({ prompt, multimask }) {
    const start = performance.now();
    const answer = await opened().predict(prompt, { multimask });
    return { ...answer, milliseconds: performance.now() - start };
  },

  async everything() {
    const start = performance.now();
    const regions = await opened().everything(undefined, (done, all) => postMessage({ progress: { done, all } }));
    return { regions, milliseconds: performance.now() - start };
  },
};

function opened() {
  if (!embedding) throw new Error("the picture could not be encoded; open it again, or a smaller one");
  return embedding;
}

async function hasWebgpu(site) {
  if (!site.engines.webgpu || !navigator.gpu) return false;
  const adapter = await navigator.gpu.requestAdapter().catch(() => null);
  return Boolean(adapter?.features.has("shader-f16"));
}

async function start(site, engine, threads) {
  const { encoder, decoder, provider } = site.engines[engine];
  const { module, glue } = RUNTIMES[provider];
  const wasm = `ort/${glue}.wasm`;
  const fetched = await fetchAll(site, [wasm, encoder, decoder, "tinyseg/core.wasm", "model/model.json"]);
  const ort = await import(module);
  ort.env.logLevel = "error";
  ort.env.wasm.wasmPaths = { mjs: new URL(`./ort/${glue}.mjs`, import.meta.url).href };
  ort.env.wasm.wasmBinary = fetched[wasm];
  const most = self.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency || 1) : 1;
  ort.env.wasm.numThreads = provider === "wasm" ? Math.min(threads ?? most, most) : 1;
  segmenter = await Segmenter.load({
    ort,
    core: fetched["tinyseg/core.wasm"],
    card: JSON.parse(new TextDecoder().decode(fetched["model/model.json"])),
    graphs: { encoder: new Uint8Array(fetched[encoder]), decoder: new Uint8Array(fetched[decoder]) },
    providers: [provider],
  });
  const overlap = await checkOverlap(segmenter, site.check);
  if (!(overlap >= LEAST_OVERLAP)) {
    throw new Error(`its masks are not the runtime's (IoU ${overlap.toFixed(3)} in a check)`);
  }
  return { ...site.engines[engine], threads: ort.env.wasm.numThreads, note: "" };
}

/** Files of the site by name, all at once; progress is told in bytes. */
async function fetchAll(site, names) {
  const all = names.reduce((sum, name) => sum + site.files[name].bytes, 0);
  let done = 0;
  const fetchOne = async (name) => {
    const response = await fetch(new URL(name, import.meta.url));
    if (!response.ok) throw new Error(`${name} does not load: the host answered ${response.status}`);
    const bytes = new Uint8Array(site.files[name].bytes);
    let at = 0;
    for (const reader = response.body.getReader(); ; ) {
      const { done: ended, value } = await reader.read();
      if (ended) break;
      if (at + value.length > bytes.length) throw new Error(`${name} is not this site's; load the page again`);
      bytes.set(value, at);
      at += value.length;
      postMessage({ progress: { done: (done += value.length), all } });
    }
    if (at < bytes.length) throw new Error(`${name} is not whole; load the page again`);
    // Browsers have no sums on plain http, where the check of the engine remains.
    if (crypto.subtle && (await sha256(bytes)) !== site.files[name].sha256) {
      throw new Error(`${name} is damaged, or of another version of the site; load the page again, or put the whole folder on the host again`);
    }
    return [name, bytes.buffer];
  };
  return Object.fromEntries(await Promise.all(names.map(fetchOne)));
}

async function sha256(bytes) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return [...digest].map((b) => b.toString(16).padStart(2, "0")).join("");
}

self.addEventListener("message", ({ data: { id, do: action, ...fields } }) => {
  queue = queue.then(async () => {
    try {
      postMessage({ id, result: await actions[action](fields) });
    } catch (error) {
      postMessage({ id, error: error.message ?? String(error) });
    }
  });
});
