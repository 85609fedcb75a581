/**
 * An organisation's first day over the generated client, as TestWalk of e2e/golden walks it
 * over the wires: sign up, second factor, a colleague, a machine, a code by mail, contacts
 * from a file, a template, and texts to phones. e2e/sdk runs it against the whole product.
 */
import assert from "node:assert/strict";

import { type ErrorBody, type Schemas, TurumbaError, createClient, lines, pages, unwrap } from "../src/index.js";
import { eventually, find, mail, received, setting, totp } from "./surroundings.js";

const baseUrl = setting("TURUMBA_URL");
const password = "correct horse battery staple";
const client = (token?: string) => createClient(token === undefined ? { baseUrl } : { baseUrl, token });
const anybody = client();

/** Registers, verifies the address and logs in. */
async function signUp(name: string, extra: { account_name?: string; invitation_token?: string }) {
  const email = `${name}@sdk.example`;
  const { registration_token } = await unwrap(anybody.POST("/v1/auth/register", { body: { email, password, full_name: `Walker ${name}`, ...extra } }));
  const code = find(await mail(email, "Your verification code"), /[0-9]{6}/);
  const who = await unwrap(anybody.POST("/v1/auth/verify-email", { body: { email, code, registration_token } }));
  const login = await unwrap(anybody.POST("/v1/auth/login", { body: { email, password } }));
  return { email, userId: who.user_id, accountId: who.account_id, token: login.access_token };
}

/** Waits until a call is refused for the reason, at most the five seconds that are promised. */
async function refused(code: ErrorBody["code"], call: () => Promise<unknown>): Promise<void> {
  const reason = async () => {
    try {
      await call();
      return undefined;
    } catch (err) {
      assert(err instanceof TurumbaError, String(err));
      return err.body.code;
    }
  };
  await eventually("a refusal", reason, (got) => got === code, 5_000);
}

/** Turns the second factor on and logs in with it. */
async function secondFactor(email: string, token: string): Promise<string> {
  const first = client(token);
  const { secret } = await unwrap(first.POST("/v1/auth/mfa/totp/setup", { body: { password } }));
  await unwrap(first.POST("/v1/auth/mfa/totp/verify", { body: { code: totp(secret) } }));
  const { challenge, session } = await unwrap(anybody.POST("/v1/auth/login", { body: { email, password } }));
  assert.equal(challenge, "SOFTWARE_TOKEN_MFA");
  const login = await unwrap(anybody.POST("/v1/auth/mfa/challenge", { body: { session, code: totp(secret, 1) } }));
  return login.access_token;
}

type Client = ReturnType<typeof client>;

/** A colleague joins by mail; what they may do changes and ends. */
async function colleague(owner: Client, accountId: string): Promise<void> {
  const desk = await unwrap(owner.POST("/v1/roles", { body: { name: "Front desk", permissions: ["contacts.read", "contacts.write"] } }));
  const reader = await unwrap(owner.POST("/v1/roles", { body: { name: "Reader", permissions: ["contacts.read"] } }));
  await unwrap(owner.POST("/v1/invitations", { body: { email: "colleague@sdk.example", role_id: desk.id } }));
  const invitation_token = find(await mail("colleague@sdk.example", "You are invited"), /inv_\S+/);
  const joined = await signUp("colleague", { invitation_token });
  assert.equal(joined.accountId, accountId);
  const they = client(joined.token);
  const write = () => unwrap(they.POST("/v1/contacts", { body: { first_name: "Guest" } }));
  const read = () => unwrap(they.GET("/v1/contacts"));
  await write();
  const path = { account_id: accountId, user_id: joined.userId };
  await unwrap(owner.PATCH("/v1/accounts/{account_id}/users/{user_id}", { params: { path }, body: { role_id: reader.id } }));
  await refused("PERMISSION_DENIED", write);
  await read();
  await unwrap(owner.DELETE("/v1/accounts/{account_id}/users/{user_id}", { params: { path } }));
  await refused("PERMISSION_DENIED", read);
}

/** An API key becomes a token, which does what it was limited to and ends with the key. */
async function machine(owner: Client): Promise<void> {
  const key = await unwrap(owner.POST("/v1/api-keys", { body: { name: "CRM", permissions: ["contacts.read", "contacts.write"] } }));
  const id = key.api_key?.id ?? "";
  const grant = { grant_type: "client_credentials", client_id: id, client_secret: key.secret };
  const it = client((await unwrap(anybody.POST("/v1/auth/token", { body: grant }))).access_token);
  const made = await unwrap(it.POST("/v1/contacts", { body: { first_name: "By machine" } }));
  await refused("PERMISSION_DENIED", () => unwrap(it.DELETE("/v1/contacts/{contact_id}", { params: { path: { contact_id: made.id } } })));
  await unwrap(owner.DELETE("/v1/api-keys/{api_key_id}", { params: { path: { api_key_id: id } } }));
  await refused("UNAUTHENTICATED", () => unwrap(it.GET("/v1/contacts")));
}

/** Waits until a message has the status. */
async function becomes(owner: Client, message: Schemas["Message"], status: Schemas["MessageStatus"]): Promise<Schemas["Message"]> {
  const path = { message_id: message.id };
  return await eventually(`message ${message.id}`, () => unwrap(owner.GET("/v1/messages/{message_id}", { params: { path } })), (m) => m.status === status);
}

/** A code reaches a customer's mailbox; the same create twice is one message. */
async function code(owner: Client): Promise<void> {
  const smtp = {
    host: setting("SMTP_HOST"), port: Number(setting("SMTP_PORT")), tls_mode: "none" as const, allow_plaintext: true, from_email: "shop@sdk.example",
  };
  await unwrap(owner.POST("/v1/channels", { body: { name: "Shop", credentials: { smtp } } }));
  const customer = await unwrap(owner.POST("/v1/contacts", { body: { first_name: "Customer", email: "customer@sdk.example" } }));
  const create = () => unwrap(owner.POST("/v1/messages", {
    params: { header: { "Idempotency-Key": "code-4711" } },
    body: { channel_type: "email", contact_id: customer.id, subject: "Code", message_body: "Your code is 4711." },
  }));
  const message = await create();
  assert.equal((await create()).id, message.id);
  await mail("customer@sdk.example", "Your code is 4711.");
  await becomes(owner, message, "sent");
}

/** Contacts come from a file, watched to its end, and are read page by page. */
async function file(owner: Client): Promise<Schemas["ContactGroup"]> {
  const group = await unwrap(owner.POST("/v1/groups", { body: { name: "Readers" } }));
  const started = await unwrap(owner.POST("/v1/contacts/import", {
    params: { query: { file_name: "readers.csv", contact_group_ids: [group.id] } },
    headers: { "Content-Type": "text/csv" },
    bodySerializer: (csv) => csv as string,
    body: "name,email\nAbebe,abebe@sdk.example\nSara,sara@sdk.example\nHana,hana@sdk.example\n",
  }));
  const path = { contact_import_id: started.id };
  let last = started;
  for await (const now of lines<Schemas["ContactImport"]>(owner.GET("/v1/contacts/imports/{contact_import_id}/watch", { params: { path }, parseAs: "stream" }))) {
    last = now;
  }
  assert.equal(last.status, "completed", JSON.stringify(last));
  const names: string[] = [];
  const list = (page_token: string) => owner.GET("/v1/contacts", {
    params: { query: { filter: ["email:endswith:@sdk.example"], sort: ["email:asc"], limit: 2, page_token } },
  });
  for await (const contact of pages<Schemas["Contact"]>(list)) {
    names.push(contact.email);
  }
  for (const name of ["abebe", "hana", "sara"]) {
    assert(names.includes(`${name}@sdk.example`), names.join());
  }
  return group;
}

/** A template is previewed and sent to the group; every member gets their own text. */
async function campaign(owner: Client, group: Schemas["ContactGroup"]): Promise<void> {
  const template = await unwrap(owner.POST("/v1/templates", { body: { name: "Hello", subject: "Hello", body: "Hello {NAME}, welcome." } }));
  const path = { template_id: template.id };
  const preview = await unwrap(owner.POST("/v1/templates/{template_id}/preview", { params: { path }, body: { channel_type: "email", values: { NAME: "you" } } }));
  assert.equal(preview.body, "Hello you, welcome.");
  const channels = await unwrap(owner.GET("/v1/channels", { params: { query: { filter: ["channel_type:eq:email"] } } }));
  const draft = await unwrap(owner.POST("/v1/group-messages", {
    body: { name: "Welcome", channel_id: channels.data[0]?.id ?? "", template_id: template.id, contact_group_ids: [group.id] },
  }));
  assert.equal(draft.status, "draft");
  const at = { group_message_id: draft.id };
  await unwrap(owner.POST("/v1/group-messages/{group_message_id}/send", { params: { path: at } }));
  let last = draft;
  for await (const now of lines<Schemas["GroupMessage"]>(owner.GET("/v1/group-messages/{group_message_id}/watch", { params: { path: at }, parseAs: "stream" }))) {
    last = now;
  }
  assert.equal(last.status, "completed", JSON.stringify(last));
  assert.equal(last.sent_count, 3);
  assert.deepEqual(await received("hana@sdk.example"), ["Hello Hana, welcome."]);
}

/** Texts reach a phone once each; who said STOP to the provider is not written to again. */
async function texts(owner: Client): Promise<void> {
  const twilio = { account_sid: "AC00000000000000000000000000000001", auth_token: "walk-token", from_number: "+15550001111", base_url: setting("TWILIO_URL") };
  const channel = await unwrap(owner.POST("/v1/channels", { body: { name: "Texts", credentials: { twilio } } }));
  assert.equal(channel.channel_type, "sms");
  await unwrap(owner.POST("/v1/channels/{channel_id}/verify", { params: { path: { channel_id: channel.id } } }));
  const phone = "+251911000103";
  const mobile = await unwrap(owner.POST("/v1/contacts", { body: { first_name: "Selam", phone } }));
  const cost = await unwrap(owner.POST("/v1/messages/estimate", { body: { channel_type: "sms", contact_ids: [mobile.id], message_body: "ሰ".repeat(71) } }));
  assert.equal(cost.segments, 2);
  const text = await unwrap(owner.POST("/v1/messages", { body: { channel_type: "sms", contact_id: mobile.id, message_body: "One text." } }));
  await becomes(owner, text, "sent");
  assert.deepEqual(await received(phone), ["One text."]);
  for (let attempt = 0; attempt < 2; attempt++) {
    const never = await unwrap(owner.POST("/v1/messages", { body: { channel_id: channel.id, delivery_address: "+15005550004", message_body: "Never read." } }));
    const failed = await becomes(owner, never, "permanently_failed");
    assert.equal(failed.error?.code, "opted_out");
  }
  const list = await unwrap(owner.GET("/v1/suppressions", { params: { query: { filter: ["channel_type:eq:sms"] } } }));
  assert.equal(list.data[0]?.address, "+15005550004");
}

/** Errors have one shape, and a field that is wrong is named. */
async function errors(owner: Client): Promise<void> {
  const { error, response } = await owner.POST("/v1/contacts", { body: { email: "nobody" } });
  assert.equal(response.status, 422);
  assert.equal(error?.code, "VALIDATION_FAILED");
  assert.equal(error?.fields?.[0]?.field, "email");
}

const signedUp = await signUp("owner", { account_name: "Walkers" });
const owner = client(await secondFactor(signedUp.email, signedUp.token));
const context = await unwrap(owner.GET("/v1/context"));
assert.deepEqual(context.account_ids, [signedUp.accountId]);
await colleague(owner, signedUp.accountId);
await machine(owner);
await code(owner);
await campaign(owner, await file(owner));
await texts(owner);
await errors(owner);
console.log("walked");
