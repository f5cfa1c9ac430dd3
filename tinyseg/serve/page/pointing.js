// Mouse, finger, pen and keyboard on the picture -> clicks and boxes.

const DRAG = 8; // css pixels after which a press is a box

/** onClick(x, y, correct), onBox([x0, y0, x1, y1], correct); correct: Shift was held. */
export function watchPointing(view, onClick, onBox) {
  const canvas = view.canvas;
  let start = null; // of a press: {place, x, y, id}

  const giveUp = () => {
    start = null;
    view.box = null;
    view.draw();
  };

  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    canvas.setPointerCapture(event.pointerId);
    start = { place: view.place(event), x: event.clientX, y: event.clientY, id: event.pointerId };
    view.cross = null;
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!start || event.pointerId !== start.id) return;
    if (Math.hypot(event.clientX - start.x, event.clientY - start.y) < DRAG && !view.box) return;
    view.box = [...start.place, ...view.place(event)];
    view.draw();
  });
  canvas.addEventListener("pointerup", (event) => {
    if (!start || event.pointerId !== start.id) return;
    const box = view.box;
    const [x, y] = start.place;
    giveUp();
    if (box) finishBox(box, event.shiftKey);
    else onClick(x, y, event.shiftKey);
  });
  canvas.addEventListener("pointercancel", giveUp);

  const finishBox = (box, correct) => {
    const [x0, x1] = [box[0], box[2]].sort((a, b) => a - b);
    const [y0, y1] = [box[1], box[3]].sort((a, b) => a - b);
    if (x1 - x0 >= 1 && y1 - y0 >= 1) onBox([x0, y0, x1 + 1, y1 + 1], correct);
  };

  let corner = null; // of the keyboard's box
  canvas.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const move = moves[event.key];
    if (move) {
      const step = (event.shiftKey ? 1 : 16) * Math.max(1, canvas.width / 640);
      const [x, y] = view.cross ?? [canvas.width / 2, canvas.height / 2];
      view.cross = view.inside(x + move[0] * step, y + move[1] * step);
      if (corner) view.box = [...corner, ...view.cross];
    } else if (event.key === "Enter" && view.cross) {
      onClick(...view.cross, event.shiftKey);
    } else if (event.key.toLowerCase() === "b" && view.cross) {
      if (corner) {
        finishBox([...corner, ...view.cross], event.shiftKey);
        corner = view.box = null;
      } else {
        corner = view.cross;
        view.box = [...corner, ...corner];
      }
    } else if (event.key === "Escape") {
      corner = null;
      giveUp();
    } else {
      return;
    }
    event.preventDefault();
    view.draw();
  });
  canvas.addEventListener("blur", () => {
    view.cross = corner = null;
    giveUp();
  });
}
