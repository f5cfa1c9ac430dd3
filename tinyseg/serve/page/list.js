// The objects beside the picture: selected, renamed, coloured and removed there.

export class ObjectList {
  /** act: onSelect(id), onEdit(id, fields), onRemove(id). */
  constructor(list, act) {
    this.list = list;
    this.act = act;
    this.rows = new Map();
  }

  show(objects, selected) {
    for (const [id, row] of this.rows) {
      if (objects.some((one) => one.id === id)) continue;
      row.remove();
      this.rows.delete(id);
    }
    for (const object of objects) {
      const row = this.rows.get(object.id) ?? this.make(object);
      row.toggleAttribute("data-selected", object.id === selected);
      const [choose, color, name] = row.querySelectorAll("input");
      choose.checked = object.id === selected;
      // What is being edited is the user's.
      if (document.activeElement !== name) name.value = object.name;
      if (document.activeElement !== color) color.value = object.color;
      const score = object.visible ? object.score.toFixed(2) : "hidden";
      const shown = row.querySelector(".score");
      if (shown.textContent !== score) shown.textContent = score;
    }
  }

  make(object) {
    const row = document.createElement("li");
    const input = (type, label) => {
      const made = document.createElement("input");
      made.type = type;
      made.setAttribute("aria-label", label);
      row.append(made);
      return made;
    };
    const choose = input("radio", `Select ${object.name}`);
    choose.name = "selected";
    choose.addEventListener("change", () => this.act.onSelect(object.id));
    const color = input("color", `Colour of ${object.name}`);
    color.addEventListener("change", () => this.act.onEdit(object.id, { color: color.value }));
    const name = input("text", "Name");
    name.maxLength = 80;
    name.addEventListener("change", () => name.value.trim() && this.act.onEdit(object.id, { name: name.value.trim() }));
    name.addEventListener("keydown", (event) => event.key === "Enter" && name.blur());
    name.addEventListener("focus", () => this.act.onSelect(object.id));
    const score = document.createElement("span");
    score.className = "score";
    const remove = document.createElement("button");
    remove.type = "button";
    remove.textContent = "×";
    remove.setAttribute("aria-label", `Remove ${object.name}`);
    remove.addEventListener("click", () => this.act.onRemove(object.id));
    row.append(score, remove);
    this.rows.set(object.id, row);
    this.list.append(row);
    return row;
  }
}
