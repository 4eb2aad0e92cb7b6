/** What the page asks of the server. */

const KEY = "coi-serve-key";
const UNAUTHORIZED = 401;

/** An error that is shown as it is. */
export class Fault extends Error {
  constructor(message, status = 0) {
    super(message);
    this.isKeyWrong = status === UNAUTHORIZED;
  }
}

export const key = () => sessionStorage.getItem(KEY) || "";

/** Keep an API key for this tab. */
export function setKey(text) {
  if (!/^[\x21-\x7e]*$/.test(text)) throw new Fault("an API key has printable ASCII characters only", UNAUTHORIZED);
  sessionStorage.setItem(KEY, text);
}

async function send(path, settings = {}) {
  const headers = { ...settings.headers, ...(key() ? { Authorization: `Bearer ${key()}` } : {}) };
  let reply;
  try {
    reply = await fetch(path, { ...settings, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Fault("the server cannot be reached; does it still run?");
  }
  if (!reply.ok) throw new Fault(await reason(reply), reply.status);
  return reply;
}

async function reason(reply) {
  const text = await reply.text();
  try {
    return JSON.parse(text).error.message;
  } catch {
    return `the server replied with status ${reply.status}`;
  }
}

/** Return the models of the server. */
export async function models() {
  return (await (await send("v1/models")).json()).data;
}

/** Return chains of the test sets of a model's run. */
export async function examples(model) {
  return (await (await send(`v1/coi/examples?model=${encodeURIComponent(model)}`)).json()).data;
}

/** Return the body of a request for the steps of an answer. */
export function body(model, question, outputs, settings) {
  const coi = { instructions: question.instructions, input: question.input, ...(outputs.length ? { outputs } : {}) };
  return { model, messages: [], coi, ...settings };
}

/** Yield the parts of an answer as they are written. */
export async function* stream(request, signal) {
  const settings = { ...request, stream: true, stream_options: { include_usage: true } };
  const headers = { "Content-Type": "application/json" };
  const reply = await send("v1/chat/completions", { method: "POST", headers, body: JSON.stringify(settings), signal });
  for await (const data of events(reply.body)) {
    if (data === "[DONE]") return;
    const part = JSON.parse(data);
    if (part.error) throw new Fault(part.error.message);
    yield part;
  }
  throw new Fault("the answer broke off: the server ended the connection");
}

async function* events(bytes) {
  const reader = bytes.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) if (line.startsWith("data: ")) yield line.slice(6);
    }
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Fault("the answer broke off: the connection was lost");
  }
}
