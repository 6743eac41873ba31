// Decisions on their way: written to the browser's own storage first, one key each, then sent in batches. The page never
// waits for the server. What the server has acknowledged is removed; all else survives a reload and a dead server.

export const NO_LINK = "this link is no longer valid: open the new one";
const BATCH = 50;
const PAUSE_MS = 400;
const MAX_PAUSE_MS = 15000;

export class Outbox {
  constructor(name, {onAnswer, onState}) {
    this.prefix = `outbox:${name}:`;
    this.onAnswer = onAnswer;
    this.onState = onState;
    this.memory = new Map(); // where the browser's storage is full or switched off
    this.sequence = 0;
    this.pauseMs = PAUSE_MS;
    this.sending = false;
    this.timer = null;
  }

  add(decision) {
    const key = `${this.prefix}${Date.now().toString().padStart(14, "0")}.${String(this.sequence++).padStart(6, "0")}.${decision.decision_id}`;
    const text = JSON.stringify(decision);
    try {
      localStorage.setItem(key, text);
    } catch {
      this.memory.set(key, text);
    }
    this.plan(this.pauseMs);
  }

  waiting() {
    const keys = [...this.memory.keys()];
    for (let at = 0; at < localStorage.length; at++) {
      const key = localStorage.key(at);
      if (key.startsWith(this.prefix)) keys.push(key);
    }
    return keys.sort();
  }

  plan(pauseMs) {
    if (this.timer === null) this.timer = setTimeout(() => { this.timer = null; this.send(); }, pauseMs);
  }

  // Resolves when nothing is left, or a try has failed.
  async send(leaving = false) {
    if (this.sending) return;
    this.sending = true;
    try {
      for (let keys = this.waiting(); keys.length; keys = this.waiting()) {
        if (!(await this.sendBatch(keys.slice(0, BATCH), leaving))) break;
      }
    } finally {
      this.sending = false;
    }
  }

  async sendBatch(keys, leaving) {
    const decisions = [];
    for (const key of keys) {
      try {
        const decision = JSON.parse(this.memory.get(key) ?? localStorage.getItem(key));
        decision.age_s = Math.max(0, (Date.now() - decision.at_ms) / 1000);
        decisions.push(decision);
      } catch {
        this.forget(key);
      }
    }
    try {
      const response = await fetch("/decisions", {
        method: "POST", headers: {"content-type": "application/json"}, body: JSON.stringify({decisions}), keepalive: leaving,
      });
      if (!response.ok) throw new Error(response.status === 403 ? NO_LINK : `answer ${response.status}: ${(await response.text()).slice(0, 200)}`);
      const answer = await response.json();
      const settled = new Set([...answer.taken, ...answer.refused.map((r) => r.decision_id)]);
      for (const key of keys) if (settled.has(key.slice(key.lastIndexOf(".") + 1))) this.forget(key);
      this.pauseMs = PAUSE_MS;
      this.onAnswer(answer);
      this.onState("");
      return settled.size > 0;
    } catch (error) {
      const count = this.waiting().length;
      this.onState(`${count} decisions are kept here until the server answers (${error.message})`);
      this.pauseMs = Math.min(MAX_PAUSE_MS, 2 * this.pauseMs);
      this.plan(this.pauseMs);
      return false;
    }
  }

  forget(key) {
    this.memory.delete(key);
    localStorage.removeItem(key);
  }
}
