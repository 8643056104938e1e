// The official Node SDK against a gateway: prints one line of JSON for each check.
// Environment: BASE_URL, API_KEY, NARROW_KEY (may use ok-1 only).

import assert from 'node:assert/strict';
import OpenAI, { toFile } from 'openai';

const baseURL = process.env.BASE_URL;
const apiKey = process.env.API_KEY;
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const messages = [{ role: 'user', content: 'one two three' }];
const chat = (model, more = {}, options = {}) =>
  client.chat.completions.create({ model, messages, ...more }, options);

async function fails(promise, kind) {
  try {
    await promise;
  } catch (error) {
    assert.ok(error instanceof kind, `${error.constructor.name} instead of ${kind.name}: ${error.message}`);
    return error;
  }
  assert.fail(`no ${kind.name}`);
}

async function wordsOf(stream) {
  let said = '';
  for await (const chunk of stream) said += chunk.choices[0]?.delta?.content ?? '';
  return said;
}

const checks = {
  async chat() {
    const answer = await chat('ok-5', { n: 2 });
    assert.deepEqual(answer.choices.map((choice) => choice.message.content), ['w0 w1 w2 w3 w4', 'w0 w1 w2 w3 w4']);
    assert.equal(answer.usage.completion_tokens, 10);
    assert.ok(answer._request_id);
  },

  async stream() {
    assert.equal(await wordsOf(await chat('ok-5', { stream: true })), 'w0 w1 w2 w3 w4');
  },

  async stream_with_usage() {
    const chunks = [];
    const stream = await chat('ok-3', { stream: true, stream_options: { include_usage: true } });
    for await (const chunk of stream) chunks.push(chunk);
    assert.equal(chunks.at(-1).usage.completion_tokens, 3);
    assert.deepEqual(chunks.at(-1).choices, []);
  },

  async tool_call() {
    const tools = [{ type: 'function', function: { name: 'weather', parameters: { type: 'object' } } }];
    const answer = await chat('scripted-4', { tools });
    assert.equal(answer.choices[0].message.tool_calls[0].function.name, 'weather');
  },

  async streamed_tool_call() {
    const tools = [{ type: 'function', function: { name: 'weather', parameters: { type: 'object' } } }];
    const stream = client.chat.completions.stream({ model: 'scripted-5', messages, tools });
    const final = await stream.finalChatCompletion();
    assert.deepEqual(JSON.parse(final.choices[0].message.tool_calls[0].function.arguments), { city: 'Oulu' });
  },

  async raw_response() {
    const { data, response, request_id } = await chat('ok-1').withResponse();
    assert.equal(response.headers.get('x-request-id'), request_id);
    assert.equal(data._request_id, request_id);
    assert.ok(response.headers.get('x-llmgateway-id'));
  },

  async own_request_id() {
    const { request_id } = await chat('ok-1', {}, { headers: { 'x-request-id': 'mine-node' } }).withResponse();
    assert.equal(request_id, 'mine-node');
  },

  async completions() {
    const answer = await client.completions.create({ model: 'ok-3', prompt: 'a b' });
    assert.equal(answer.choices[0].text, 'w0 w1 w2');
  },

  async embeddings() {
    const answer = await client.embeddings.create({ model: 'scripted-2', input: 'a b' });
    assert.deepEqual(answer.data[0].embedding, [0.5, -0.25, 1]);
  },

  async responses() {
    const answer = await client.responses.create({ model: 'ok-3', input: 'a b' });
    assert.equal(answer.output_text, 'w0 w1 w2');
    const types = [];
    for await (const event of await client.responses.create({ model: 'ok-3', input: 'a b', stream: true })) {
      types.push(event.type);
    }
    assert.equal(types.at(-1), 'response.completed');
  },

  async transcription() {
    const file = await toFile(Buffer.from('RIFFlab'), 'talk.wav');
    assert.equal((await client.audio.transcriptions.create({ model: 'ok-3', file })).text, 'w0 w1 w2');
  },

  async images() {
    assert.equal((await client.images.generate({ model: 'ok-1', prompt: 'a' })).data[0].b64_json, 'bGFi');
  },

  async models() {
    const ids = [];
    for await (const model of client.models.list()) ids.push(model.id);
    assert.ok(ids.includes('org/model-1'));
    assert.equal((await client.models.retrieve('org/model-1')).id, 'org/model-1');
  },

  async errors() {
    const wrong = new OpenAI({ baseURL, apiKey: 'sk-wrong', maxRetries: 0 });
    const unauthenticated = await fails(wrong.chat.completions.create({ model: 'ok-1', messages }), OpenAI.AuthenticationError);
    assert.equal(unauthenticated.code, 'invalid_api_key');
    const narrow = new OpenAI({ baseURL, apiKey: process.env.NARROW_KEY, maxRetries: 0 });
    const denied = await fails(narrow.chat.completions.create({ model: 'ok-5', messages }), OpenAI.PermissionDeniedError);
    assert.equal(denied.code, 'model_not_allowed');
    assert.equal((await fails(chat('nobody'), OpenAI.NotFoundError)).param, 'model');
    assert.equal((await fails(chat('ok-1', { n: 'x' }), OpenAI.BadRequestError)).param, 'n');
    await fails(chat('status-409'), OpenAI.ConflictError);
    await fails(chat('status-422'), OpenAI.UnprocessableEntityError);
    const limited = await fails(chat('status-429'), OpenAI.RateLimitError);
    assert.ok(limited.requestID);
    assert.equal((await fails(chat('status-500'), OpenAI.InternalServerError)).status, 502);
  },

  async errors_of_streams() {
    await fails(chat('status-429', { stream: true }), OpenAI.RateLimitError);
    const early = await fails(chat('error-event-first', { stream: true }), OpenAI.InternalServerError);
    assert.equal(early.status, 502);
    const error = await fails(wordsOf(await chat('error-event-after-3~node', { stream: true })), OpenAI.APIError);
    assert.match(error.message, /engine died/);
  },

  async retry_after() {
    const began = Date.now();
    await fails(chat('status-429-retry-after-1~node', {}, { maxRetries: 1 }), OpenAI.RateLimitError);
    assert.ok(Date.now() - began >= 1000);
  },

  async retries() {
    const answer = await chat('flaky-2x503~node', {}, { maxRetries: 2 });
    assert.ok(answer.choices[0].message.content);
  },

  async timeout() {
    await fails(chat('hold-before-headers', {}, { timeout: 300 }), OpenAI.APIConnectionTimeoutError);
  },

  async abort() {
    const stream = await chat('hold-after-1', { stream: true });
    for await (const chunk of stream) {
      assert.equal(chunk.choices[0].delta.content, 'w0');
      stream.controller.abort();
    }
  },
};

for (const [name, check] of Object.entries(checks)) {
  try {
    await check();
    console.log(JSON.stringify({ name, ok: true }));
  } catch (error) {
    console.log(JSON.stringify({ name, ok: false, error: String(error.stack ?? error) }));
  }
}
