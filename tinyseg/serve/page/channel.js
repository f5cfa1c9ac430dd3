// The websocket: states come in, actions go out; it comes back by itself.

const FIRST_WAIT = 250, LAST_WAIT = 5000;

export class Channel {
  /** onState(state), onLink(connected). */
  constructor(onState, onLink) {
    this.onState = onState;
    this.onLink = onLink;
    this.wait = FIRST_WAIT;
    this.next = 1;
    this.asked = new Map();
    this.open();
  }

  open() {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    this.socket = new WebSocket(`${scheme}://${location.host}/api/channel`);
    this.socket.onopen = () => {
      this.wait = FIRST_WAIT;
      this.onLink(true);
    };
    this.socket.onmessage = (event) => {
      const message = JSON.parse(event.data);
      if (message.type === "state") return this.onState(message);
      const waiting = this.asked.get(message.id);
      this.asked.delete(message.id);
      if (message.type === "done") waiting?.resolve(message.result);
      else waiting?.reject(new Error(message.error));
    };
    this.socket.onclose = () => {
      this.onLink(false);
      for (const waiting of this.asked.values()) waiting.reject(new Error("The connection was lost; nothing may have changed."));
      this.asked.clear();
      setTimeout(() => this.open(), this.wait);
      this.wait = Math.min(2 * this.wait, LAST_WAIT);
    };
  }

  /** Asks for an action; resolves with its result, rejects with what the server says. */
  do(action, fields = {}) {
    if (this.socket.readyState !== WebSocket.OPEN) return Promise.reject(new Error("There is no connection to the server."));
    const id = this.next++;
    return new Promise((resolve, reject) => {
      this.asked.set(id, { resolve, reject });
      this.socket.send(JSON.stringify({ action, id, ...fields }));
    });
  }
}
