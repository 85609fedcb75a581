/** What is around the API in the walk: the simulator's mailbox, and an authenticator. */
import { createHmac } from "node:crypto";

/** A setting that the test which starts this program gives. */
export function setting(name: string): string {
  const value = process.env[name];
  if (value === undefined || value === "") {
    throw new Error(`${name} is not set; e2e/sdk starts this program`);
  }
  return value;
}

/** Calls until want is met, for a minute at most. */
export async function eventually<T>(what: string, call: () => Promise<T>, want: (got: T) => boolean, limit = 60_000): Promise<T> {
  const begin = Date.now();
  for (;;) {
    const got = await call();
    if (want(got)) {
      return got;
    }
    if (Date.now() - begin > limit) {
      throw new Error(`${what}: still ${JSON.stringify(got)} after ${limit} ms`);
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

interface Mail {
  n: number;
  text?: string;
}

/** The texts of the messages that the provider took for an address, newest first. */
export async function received(to: string): Promise<string[]> {
  const mailbox = setting("MAILBOX_URL");
  const list = (await (await fetch(`${mailbox}/api/messages?limit=10&to=${encodeURIComponent(to)}`)).json()) as { messages: Mail[] };
  const whole = list.messages.map(async (m) => (await (await fetch(`${mailbox}/api/messages/${m.n}`)).json()) as Mail);
  return (await Promise.all(whole)).map((m) => (m.text ?? "").trim());
}

/** The newest mail to an address, once it begins so. */
export async function mail(to: string, begins: string): Promise<string> {
  const got = await eventually(`mail to ${to}`, () => received(to), ([newest]) => newest?.startsWith(begins) === true);
  return got[0] ?? "";
}

/** What a pattern finds in a text. */
export function find(text: string, pattern: RegExp): string {
  const found = pattern.exec(text)?.[0];
  if (found === undefined) {
    throw new Error(`no ${String(pattern)} in: ${text}`);
  }
  return found;
}

/** The code that an authenticator shows (RFC 6238), steps of 30 s ahead. */
export function totp(secret: string, steps = 0): string {
  const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
  const bits = [...secret].map((c) => alphabet.indexOf(c).toString(2).padStart(5, "0")).join("");
  const key = Buffer.from((bits.match(/.{8}/g) ?? []).map((byte) => Number.parseInt(byte, 2)));
  const counter = Buffer.alloc(8);
  counter.writeBigUInt64BE(BigInt(Math.floor(Date.now() / 30_000) + steps));
  const mac = createHmac("sha1", key).update(counter).digest();
  const offset = mac.readUInt8(mac.length - 1) & 0xf;
  return String((mac.readUInt32BE(offset) & 0x7fffffff) % 1_000_000).padStart(6, "0");
}
