// Reads MJPEG with fetch instead of <img>: a part's X-Frame header says which masks belong to the picture.

const END = [13, 10, 13, 10];

function find(bytes, pattern, from) {
  outer: for (let i = from; i <= bytes.length - pattern.length; i++) {
    for (let j = 0; j < pattern.length; j++) if (bytes[i + j] !== pattern[j]) continue outer;
    return i;
  }
  return -1;
}

/** Calls `take(frame, blob)` for every picture, until the stream ends; throws where it breaks. */
export async function readFrames(url, signal, take) {
  const answer = await fetch(url, { signal });
  if (!answer.ok) throw Object.assign(new Error(`the stream answers ${answer.status}`), { status: answer.status });
  const reader = answer.body.getReader();
  const text = new TextDecoder();
  let waiting = new Uint8Array(0);
  const fill = async () => {
    const { value, done } = await reader.read();
    if (done) return false;
    const joined = new Uint8Array(waiting.length + value.length);
    joined.set(waiting);
    joined.set(value, waiting.length);
    waiting = joined;
    return true;
  };
  for (;;) {
    let end;
    while ((end = find(waiting, END, 0)) < 0) if (!(await fill())) return;
    const head = text.decode(waiting.subarray(0, end));
    const length = Number(/content-length: (\d+)/i.exec(head)?.[1]);
    const frame = Number(/x-frame: (\d+)/i.exec(head)?.[1]);
    if (!Number.isFinite(length)) throw new Error("the stream is not MJPEG");
    const start = end + END.length;
    if (waiting.length < start + length) {
      // One buffer for the whole picture: chunks are not joined again and again.
      const whole = new Uint8Array(start + length);
      whole.set(waiting);
      let at = waiting.length;
      let rest = new Uint8Array(0);
      while (at < whole.length) {
        const { value, done } = await reader.read();
        if (done) return;
        const part = value.subarray(0, whole.length - at);
        whole.set(part, at);
        at += part.length;
        rest = value.subarray(part.length);
      }
      take(frame, new Blob([whole.subarray(start)], { type: "image/jpeg" }));
      waiting = rest.slice();
    } else {
      take(frame, new Blob([waiting.subarray(start, start + length)], { type: "image/jpeg" }));
      waiting = waiting.slice(start + length);
    }
  }
}
