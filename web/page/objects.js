// What the user pointed at: prompts, their answers, and the way back.

// Colours that stay apart for most colour-blind eyes (Okabe and Ito), as in the other pictures of tinyseg.
const COLORS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#f0e442"];

export class Objects {
  constructor() {
    this.all = [];
    this._undo = []; // what the list was before each change
    this._last = 0;
  }

  get canUndo() {
    return this._undo.length > 0;
  }

  find(id) {
    return this.all.find((one) => one.id === id) ?? null;
  }

  /** A new object of a prompt and its answer (masks, best). */
  add(prompt, { masks, best }, name = "object") {
    this._remember();
    return this._make(prompt, masks, best, name);
  }

  /** Many objects at once, each of one mask; one step back. Their names are not drawn until the user gives them one. */
  replaceAll(answers) {
    this._remember();
    this.all = [];
    for (const { prompt, mask } of answers) this._make(prompt, [mask], 0, "region").unnamed = true;
  }

  /** Other fields of an object: what it was stays in the way back. */
  change(id, fields) {
    this._remember();
    this.all = this.all.map((one) => (one.id === id ? { ...one, ...fields } : one));
  }

  remove(id) {
    this._remember();
    this.all = this.all.filter((one) => one.id !== id);
  }

  clear() {
    this._remember();
    this.all = [];
  }

  undo() {
    this.all = this._undo.pop() ?? this.all;
  }

  /** Another picture: nothing is left, not even the way back. */
  forget() {
    this.all = [];
    this._undo = [];
    this._last = 0;
  }

  _make(prompt, masks, chosen, name) {
    const id = ++this._last;
    const color = COLORS[(id - 1) % COLORS.length];
    const made = { id, name: `${name} ${id}`, color, prompt, masks, chosen };
    this.all = [...this.all, made];
    return made;
  }

  _remember() {
    this._undo.push(this.all);
    if (this._undo.length > 50) this._undo.shift();
  }
}

/** A prompt with another one's clicks and box added. */
export function joined(prompt, added) {
  return {
    points: [...prompt.points, ...(added.points ?? [])],
    labels: [...prompt.labels, ...(added.labels ?? [])],
    box: added.box ?? prompt.box,
  };
}
