// The worker as functions that give promises.

export class Engine {
  /** onProgress(done, all): of what takes long. onBusy(busy): whether anything is asked. */
  constructor(onProgress, onBusy) {
    this._worker = new Worker("worker.js", { type: "module" });
    this._waiting = new Map();
    this._last = 0;
    this._broken = null; // why nothing can be asked any more
    this._onBusy = onBusy;
    this._worker.addEventListener("message", ({ data }) => {
      if (data.progress) onProgress(data.progress.done, data.progress.all);
      else this._settle(data);
    });
    this._worker.addEventListener("error", (event) => {
      event.preventDefault();
      this._broken = `the worker stopped (${event.message ?? "it does not load"}); load the page again`;
      for (const id of [...this._waiting.keys()]) this._settle({ id, error: this._broken });
    });
  }

  load(site, engine, threads) {
    return this._do("load", { site, engine, threads });
  }

  open({ data, width, height }) {
    return this._do("open", { data, width, height }, [data.buffer]);
  }

  ask(prompt, multimask) {
    return this._do("ask", { prompt, multimask });
  }

  everything() {
    return this._do("everything", {});
  }

  _do(action, fields, transfer = []) {
    if (this._broken) return Promise.reject(new Error(this._broken));
    return new Promise((resolve, reject) => {
      const id = ++this._last;
      this._waiting.set(id, { resolve, reject });
      this._onBusy(true);
      this._worker.postMessage({ id, do: action, ...fields }, transfer);
    });
  }

  _settle({ id, result, error }) {
    const { resolve, reject } = this._waiting.get(id);
    this._waiting.delete(id);
    if (this._waiting.size === 0) this._onBusy(false);
    if (error === undefined) resolve(result);
    else reject(new Error(error));
  }
}
