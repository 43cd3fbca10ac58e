// SPDX-License-Identifier: Apache-2.0
// chat.js - the chat page. One state (`talk`), saved on this device; the page shows it and changes it only
// through the functions here. What a person or the model wrote only ever becomes text nodes. URLs are
// relative: the page works below any prefix.
'use strict';

const $ = id => document.getElementById(id);
const NUMBERS = ['temperature', 'top_k', 'top_p', 'min_p', 'max_tokens', 'seed'];
const DEFAULTS = {temperature: '0.5', top_k: '', top_p: '', min_p: '', max_tokens: '', seed: '42'};
const SAMPLES = 12, ALTERNATIVES = 5;
const STORE = 'microgpt ' + location.pathname;

// messages: {role, content, meta?}; of replies meta = {seed, ask, first, rate, n, finish, dropped, forgot, tokens}
let talk = {messages: [], settings: {...DEFAULTS}, model: '', draft: ''};
let models = [], running = null, editing = -1;
const shown = new WeakMap(); // message -> {box, view}: what is on the page, never saved

// ---- small things ---------------------------------------------------------------------------

function make(tag, props, ...inside) {
  const e = Object.assign(document.createElement(tag), props);
  e.append(...inside);
  return e;
}
const button = (text, onclick, props) => make('button', {type: 'button', textContent: text, onclick, ...props});
const say = text => { $('say').textContent = text; };
const here = () => models.find(m => m.id === talk.model) || models[0];
const canChat = () => !here() || here().meta?.chat !== false;

let saving = 0;
function save() {
  clearTimeout(saving);
  saving = setTimeout(saveNow, 300);
}
function saveNow() {
  clearTimeout(saving);
  try {
    localStorage.setItem(STORE, JSON.stringify(talk));
  } catch { // full: what lies under the words is the first to go
    const old = talk.messages.find(m => m.meta?.tokens?.length);
    if (old) { old.meta.tokens = []; saveNow(); }
  }
}
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    say('Copied.');
  } catch { // http on another host: no clipboard there
    const area = make('textarea', {value: text, ariaLabel: 'To copy'});
    document.body.append(area);
    area.select();
    say(document.execCommand('copy') ? 'Copied.' : 'This browser does not let the page copy.');
    area.remove();
  }
}

// ---- requests -------------------------------------------------------------------------------

class Refused extends Error {
  constructor(text, wait) { super(text); this.wait = wait; }
}
const WORDS = {
  429: 'Too many requests from this address.', 502: 'No worker of the model answered.',
  503: 'The model is busy.', 504: 'The model did not answer in time.',
};
async function refusal(r) {
  let text = '';
  try {
    const e = (await r.json()).error;
    text = e.message || e;
  } catch { /* not ours: the status has to do */ }
  return new Refused(WORDS[r.status] || text || `The server answered ${r.status}.`, Number(r.headers.get('Retry-After')) || 0);
}

// The settings as members of a request: [seed digits, the rest]; null and the field marked when one is no number.
function settings() {
  const rest = {};
  let bad = null;
  for (const name of NUMBERS) {
    const text = $(name).value.trim();
    const ok = name === 'seed' ? /^\d{1,20}$/.test(text) : text === '' || Number.isFinite(Number(text));
    $(name).setAttribute('aria-invalid', String(!ok));
    if (!ok) bad ??= $(name);
    else if (name !== 'seed' && text !== '') rest[name] = Number(text);
  }
  if (!bad) return rest;
  show('settings', true);
  bad.focus();
  return null;
}
function show(id, on) {
  $(id).hidden = !on;
  if (id === 'settings') $('open').setAttribute('aria-expanded', String(on));
}

// Seeds go to 2^64 - 1, beyond what JSON.stringify can write.
const bodyOf = (seed, rest) => `{"seed":${seed},${JSON.stringify(rest).slice(1)}`;
const seedPlus = (seed, n) => String(BigInt.asUintN(64, BigInt(seed) + BigInt(n)));

// POST, then each event of the stream to onEvent. Throws Refused, or AbortError after Stop.
async function stream(path, body, signal, onHead, onEvent) {
  let r;
  try {
    r = await fetch(path, {method: 'POST', headers: {'Content-Type': 'application/json'}, body, signal, cache: 'no-store'});
  } catch (e) {
    if (e.name === 'AbortError') throw e;
    throw new Refused(navigator.onLine ? 'The server cannot be reached.' : 'This device is offline.', 0);
  }
  if (!r.ok) throw await refusal(r);
  onHead(r.headers);
  const reader = r.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let held = ''; ;) {
    const part = await reader.read().catch(e => {
      if (e.name === 'AbortError') throw e;
      return {done: true};
    });
    if (part.done) throw new Refused('The connection ended before the reply did.', 0);
    held += part.value;
    for (let at; (at = held.indexOf('\n\n')) >= 0; held = held.slice(at + 2)) {
      if (!held.startsWith('data: ')) continue; // a comment that keeps the line open
      const data = held.slice(6, at);
      if (data === '[DONE]') return;
      const event = JSON.parse(data);
      if (event.error) throw new Refused(event.error.message || event.error, 0);
      onEvent(event);
    }
  }
}

// ---- one text with its tokens ---------------------------------------------------------------

const percent = logprob => {
  const p = 100 * Math.exp(logprob);
  return p >= 99.95 ? '100 %' : p >= 0.1 ? p.toFixed(1) + ' %' : '< 0.1 %';
};
const visible = text => text === '' ? '(end)' : text.replace(/\n/g, '\u21B5').replace(/^ /, '\u2423').replace(/ $/, '\u2423');

// Shows meta.tokens ({text, token, logprob, top}) as spans in p; onChoose(index, alternative) goes on from there.
class Text {
  constructor(p, tokens, onChoose) {
    Object.assign(this, {p, tokens, onChoose, at: -1, panel: null});
    for (const t of tokens) this.span(t);
    p.addEventListener('click', e => e.target.className === 't' && this.look([...p.children].indexOf(e.target)));
    p.addEventListener('keydown', e => this.key(e));
  }
  span(t) {
    this.p.append(make('span', {className: 't', textContent: t.text}));
  }
  // The text of one event. Its tokens spell it, but for what was trimmed or belongs to a character in parts.
  add(content, tokens = []) {
    const spelled = tokens.map(t => t.token).join('');
    const added = spelled === content ? tokens.map(t => ({...t, text: t.token}))
      : tokens.length && content ? [{...tokens[0], text: content}] : content ? [{text: content, token: content, top: []}] : [];
    for (const t of added) { this.tokens.push(t); this.span(t); }
  }
  get content() { return this.tokens.map(t => t.text).join(''); }
  key(e) {
    const step = {ArrowRight: 1, ArrowLeft: -1}[e.key];
    if (!step || this.at < 0) return;
    e.preventDefault();
    this.look(Math.max(0, Math.min(this.tokens.length - 1, this.at + step)), true);
  }
  close() {
    this.panel?.remove();
    this.panel = null;
    this.p.querySelector('[aria-expanded]')?.removeAttribute('aria-expanded');
    this.at = -1;
  }
  look(i, keepFocus) {
    const again = i === this.at && !keepFocus;
    this.close();
    if (again || !this.tokens[i]) return;
    const t = this.tokens[i], span = this.p.children[i];
    this.at = i;
    span.setAttribute('role', 'button');
    span.setAttribute('aria-expanded', 'true');
    span.tabIndex = 0;
    const list = (t.top || []).map(a => make('li', {},
      a.token === t.token ? make('code', {textContent: visible(a.token), dir: 'auto'})
        : button(visible(a.token), () => this.onChoose(i, a), {title: 'Go on from here with this', dir: 'auto'}),
      make('span', {textContent: percent(a.logprob)}), make('meter', {value: Math.exp(a.logprob), ariaLabel: 'Probability'})));
    const what = t.logprob === undefined ? 'No probabilities are known for this part.'
      : `Token ${i + 1} of ${this.tokens.length}: \u201C${visible(t.token)}\u201D had ${percent(t.logprob)}. ` +
        (list.length > 1 ? 'Choose another and the reply goes on from there.' : '');
    this.panel = make('div', {className: 'look', role: 'group', ariaLabel: 'One token'},
      make('p', {textContent: what}), make('ul', {}, ...list), button('Close', () => { this.close(); this.p.parentElement.querySelector('.inside')?.focus(); }));
    this.p.after(this.panel);
    if (keepFocus) span.focus();
  }
}

// ---- the conversation on the page -----------------------------------------------------------

const facts = m => [
  m.rate ? `${m.rate.toFixed(m.rate < 10 ? 1 : 0)} tokens/s` : '', m.first !== undefined ? `first after ${Math.round(m.first)} ms` : '',
  `seed ${m.seed}`, {stop: 'ended by itself', length: 'cut by length', stopped: 'stopped here', cut: 'cut off'}[m.finish] || '', m.same || '',
].filter(Boolean).join(' \u00B7 ');

function showMessage(i) {
  const m = talk.messages[i], mine = m.role === 'user';
  let view = null;
  const p = make('p', {className: 'text', dir: 'auto'});
  const box = make('article', {className: 'message ' + (mine ? 'user' : 'model')}, p);
  box.setAttribute('aria-label', mine ? 'You' : 'The model');
  const tools = make('div', {className: 'tools'});
  if (mine) {
    p.textContent = m.content;
    tools.append(button('Edit', () => edit(i)), button('Copy', () => copy(m.content)));
  } else {
    view = new Text(p, m.meta.tokens, (at, other) => choose(i, at, other));
    if (!m.meta.tokens.length) p.textContent = m.content;
    tools.append(...replyTools(i, m));
  }
  box.append(tools);
  shown.set(m, {box, view});
  return box;
}
function replyTools(i, m) {
  const tools = [make('p', {className: 'facts quiet', textContent: facts(m.meta)})];
  if (canChat()) {
    tools.push(button('Next seed', () => reply(i, {seed: seedPlus(m.meta.seed, 1)})), button('Same again', () => reply(i, {again: m})));
    if (m.meta.finish !== 'stop') tools.push(button('Continue', () => reply(i, {start: m.meta.tokens.slice()})));
  }
  tools.push(button('Copy', () => copy(m.content)));
  if (m.meta.tokens.length)
    tools.push(button('Look inside', () => shown.get(m).view.look(0, true), {className: 'inside', title: 'Probabilities, token by token: arrow keys or a click'}));
  return tools;
}
function redraw() {
  $('log').replaceChildren(...talk.messages.map((_, i) => showMessage(i)));
  const chat = canChat();
  $('log').className = chat ? '' : 'grid';
  $('text').placeholder = chat ? 'Message' : 'Start of a text (may be empty)';
  $('text').setAttribute('aria-label', chat ? 'Message' : 'Start of a text');
  $('send').textContent = chat ? 'Send' : 'Generate';
  $('hello').hidden = talk.messages.length > 0;
  $('hello').textContent = chat ? 'Say something. The same words with the same seed get the same reply, always.'
    : `This model writes samples: ${SAMPLES} at a time, each with a seed of its own.`;
  if (!chat && talk.messages.length) $('log').append(button(`${SAMPLES} more`, more, {id: 'more'}));
  mark();
}
// Where the model no longer reads: the last reply says how many messages before it were left out.
function mark() {
  document.querySelector('.mark')?.remove();
  const last = talk.messages.findLast(m => m.meta?.dropped > 0);
  const n = last ? last.meta.forgot || 0 : 0;
  talk.messages.forEach((m, i) => shown.get(m).box.classList.toggle('forgotten', i < n));
  if (last) shown.get(talk.messages[n] || last).box.before(make('p', {className: 'mark',
    textContent: `Above, ${last.meta.dropped} tokens no longer fit: the model reads from here on`}));
}

// ---- asking ---------------------------------------------------------------------------------

function busy(controller) {
  running = controller;
  $('send').hidden = !!controller;
  $('stop').hidden = !controller;
}
function notice(error, again) {
  document.querySelector('.notice.live')?.remove();
  const text = make('span'), retry = button('Try again', () => { box.remove(); clearInterval(timer); again(); });
  const box = make('div', {className: 'notice live', role: 'alert'}, text, retry);
  let left = error.wait;
  const tick = () => {
    text.textContent = error.message + (left > 0 ? ` Try again in ${left} s.` : '');
    retry.disabled = left > 0;
    if (left-- <= 0) clearInterval(timer);
  };
  const timer = setInterval(tick, 1000);
  tick();
  $('log').append(box);
  box.scrollIntoView({block: 'nearest'});
}

// Run one stream; calls on(event) and finally end(finish). Only one at a time.
async function run(path, body, on, end, again) {
  const controller = new AbortController(), meta = {headers: null, start: performance.now()};
  document.querySelector('.notice.live')?.remove();
  busy(controller);
  try {
    await stream(path, body, controller.signal, h => { meta.headers = h; }, e => on(e, meta));
    end('');
  } catch (e) {
    end(e.name === 'AbortError' ? 'stopped' : meta.headers ? 'cut' : 'refused');
    if (e.name !== 'AbortError') notice(e instanceof Refused ? e : new Refused(String(e), 0), again);
  }
  busy(null);
  saveNow();
}

// Ask for message i anew. seed: this one; again: the reply to repeat exactly; start: tokens it begins with.
function reply(i, {seed, again, start} = {}) {
  if (running) return;
  const ask = again ? again.meta.ask : settings();
  if (!ask) return;
  const old = talk.messages[i], kept = again ? (again.meta.start || []) : (start || []);
  seed ??= again || (start && old) ? (again || old).meta.seed : $('seed').value.trim();
  const before = talk.messages.slice(0, i).map(({role, content}) => ({role, content}));
  const rest = {messages: before, ...ask, logprobs: ALTERNATIVES, stream: true};
  const prefix = kept.map(t => t.text).join('');
  if (prefix) { rest.messages = [...before, {role: 'assistant', content: prefix}]; rest.continue = true; }
  if (talk.model) rest.model = talk.model;
  const later = talk.messages.slice(i + 1);
  const meta = {seed, ask, start: kept, n: 0, finish: '', dropped: 0, tokens: kept.slice()};
  const m = {role: 'assistant', content: prefix, meta};
  talk.messages.splice(i, talk.messages.length, m);
  redraw();
  const {box, view} = shown.get(m);
  box.classList.add('busy');
  box.scrollIntoView({block: 'nearest'});
  let first = 0;
  run('v1/chat', bodyOf(seed, rest), (e, r) => {
    if (e.tokens_dropped) { meta.dropped = e.tokens_dropped; meta.forgot = Number(r.headers.get('X-Messages-Dropped')) || 0; mark(); }
    if (e.finish_reason) { meta.finish = e.finish_reason; return; }
    if (!e.content && !e.tokens) return;
    first ||= performance.now();
    meta.first ??= first - r.start;
    meta.n += e.tokens ? e.tokens.length : 1;
    view.add(e.content, e.tokens);
    const passed = performance.now() - first;
    if (passed > 20) meta.rate = 1000 * meta.n / passed;
    if (atEnd()) scrollTo(0, document.body.scrollHeight);
  }, finish => {
    box.classList.remove('busy');
    if (finish === 'refused') { // nothing is lost: what stood here stays
      talk.messages.splice(i, 1, ...(old ? [old, ...later] : []));
      redraw();
      return;
    }
    m.content = view.content;
    meta.finish = finish || meta.finish;
    if (again) meta.same = m.content === again.content ? 'the same, byte for byte' : 'not the same';
    say(m.content);
    redrawOne(i);
  }, () => reply(i, {seed, again, start}));
}
function redrawOne(i) {
  shown.get(talk.messages[i]).box.replaceWith(showMessage(i));
  mark();
}
const atEnd = () => innerHeight + scrollY > document.body.scrollHeight - 120;

function choose(i, at, other) {
  const m = talk.messages[i];
  const chosen = {text: other.token, token: other.token, logprob: other.logprob, top: m.meta.tokens[at].top};
  const start = [...m.meta.tokens.slice(0, at), chosen];
  if (canChat()) reply(i, {start});
  else samples(1, m.meta.seed, m.meta.prompt, start, i);
}

// ---- a model without chat: samples in a grid ------------------------------------------------

function samples(n, seed, prompt, start = [], place = talk.messages.length) {
  if (running) return;
  const ask = settings();
  if (!ask) return;
  const rest = {num_samples: n, ...ask, logprobs: ALTERNATIVES, stream: true};
  const text = prompt + start.map(t => t.text).join('');
  if (text) rest.prompt = text;
  if (talk.model) rest.model = talk.model;
  const added = Array.from({length: n}, (_, k) => ({role: 'assistant', content: '',
    meta: {seed: seedPlus(seed, k), ask, prompt, n: 0, finish: '', dropped: 0, tokens: start.length ? start.slice() : prompt ? [{text: prompt, token: prompt, top: []}] : []}}));
  talk.messages.splice(place, start.length ? 1 : 0, ...added);
  redraw();
  for (const m of added) shown.get(m).box.classList.add('busy');
  let first = 0;
  run('v1/generate', bodyOf(seed, rest), (e, r) => {
    const {meta} = added[e.index], {box, view} = shown.get(added[e.index]);
    if (e.finish_reason) { meta.finish = e.finish_reason; box.classList.remove('busy'); return; }
    first ||= performance.now();
    meta.first ??= performance.now() - r.start;
    meta.n += e.tokens ? e.tokens.length : 1;
    view.add(e.content, e.tokens);
    if (performance.now() - first > 20) meta.rate = 1000 * meta.n / (performance.now() - first);
  }, finish => {
    if (finish === 'refused') talk.messages.splice(place, added.length);
    for (const m of added) { m.content = shown.get(m).view.content; m.meta.finish ||= finish; }
    redraw();
  }, () => samples(n, seed, prompt, start, place));
}
function more() {
  const last = talk.messages.at(-1).meta;
  samples(SAMPLES, seedPlus(last.seed, 1), last.prompt);
}

// ---- the person's hands ---------------------------------------------------------------------

function send() {
  const text = $('text').value;
  if (running) return;
  if (!canChat()) {
    if (settings()) samples(SAMPLES, $('seed').value.trim(), text);
    return;
  }
  if (!text.trim() || !settings()) return;
  if (editing >= 0) talk.messages.splice(editing);
  const last = talk.messages.at(-1);
  if (last?.role === 'user') talk.messages.pop(); // its reply never came: this one takes its place
  talk.messages.push({role: 'user', content: text});
  endEdit('');
  reply(talk.messages.length);
}
function edit(i) {
  if (editing < 0) talk.draft = $('text').value;
  editing = i;
  $('editing').hidden = false;
  $('text').value = talk.messages[i].content;
  $('text').focus();
}
function endEdit(text) {
  editing = -1;
  $('editing').hidden = true;
  $('text').value = talk.draft = text;
  save();
}
// The request that the next Send would make, or the last one.
function curl() {
  const rest = settings();
  if (!rest) return;
  const chat = canChat(), text = $('text').value;
  const said = talk.messages.map(({role, content}) => ({role, content}));
  if (chat && text.trim()) said.push({role: 'user', content: text});
  while (said.length && said.at(-1).role === 'assistant') said.pop();
  const what = chat ? {messages: said.length ? said : [{role: 'user', content: 'hello'}], ...rest} : {num_samples: SAMPLES, ...rest, ...(text && {prompt: text})};
  if (talk.model) what.model = talk.model;
  const body = bodyOf($('seed').value.trim(), what).replaceAll("'", "'\\''");
  copy(`curl -s '${new URL(chat ? 'v1/chat' : 'v1/generate', location)}' -H 'Content-Type: application/json' -d '${body}'`);
}
function exportTalk() {
  const url = URL.createObjectURL(new Blob([JSON.stringify(talk, null, 1)], {type: 'application/json'}));
  make('a', {href: url, download: 'conversation.json'}).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}
// Only what has the right form is taken from a file or from storage.
function adopt(from) {
  const text = v => typeof v === 'string' ? v : '';
  const token = t => ({text: text(t?.text), token: text(t?.token), ...(typeof t?.logprob === 'number' && {logprob: t.logprob}),
    top: Array.isArray(t?.top) ? t.top.filter(a => typeof a?.logprob === 'number').map(a => ({token: text(a.token), logprob: a.logprob})) : []});
  const digits = v => /^\d{1,20}$/.test(v) ? v : DEFAULTS.seed;
  const messages = (Array.isArray(from?.messages) ? from.messages : []).filter(m => ['user', 'assistant'].includes(m?.role) && typeof m.content === 'string')
    .map(({role, content, meta}) => role === 'user' ? {role, content} : {role, content, meta: {n: 0, dropped: 0, finish: 'stop', ask: {}, ...meta,
      prompt: text(meta?.prompt), seed: digits(meta?.seed), tokens: Array.isArray(meta?.tokens) ? meta.tokens.map(token) : []}});
  const set = Object.fromEntries(NUMBERS.map(n => [n, text(from?.settings?.[n] ?? DEFAULTS[n])]));
  return {messages, settings: set, model: text(from?.model), draft: text(from?.draft)};
}
function open(from) {
  talk = adopt(from);
  for (const n of NUMBERS) $(n).value = talk.settings[n];
  if (talk.model && !models.some(m => m.id === talk.model)) talk.model = '';
  $('model').value = talk.model || models[0]?.id || '';
  endEdit(talk.draft);
  redraw();
}
async function importTalk() {
  try {
    const from = JSON.parse(await $('file').files[0].text());
    if (!Array.isArray(from?.messages)) throw 0;
    open(from);
    saveNow();
  } catch {
    notice(new Refused('That file holds no conversation.', 0), () => $('file').click());
  }
  $('file').value = '';
}
function clear() {
  if (talk.messages.length && !confirm('Forget this conversation on this device?')) return;
  running?.abort();
  localStorage.removeItem(STORE);
  open({settings: talk.settings, model: talk.model});
}

async function loadModels() {
  try {
    const r = await fetch('v1/models');
    models = r.ok ? (await r.json()).data : [];
  } catch { models = []; }
  $('model').replaceChildren(...models.map(m => make('option', {value: m.id, textContent: m.id})));
  show('pick', models.length > 1);
  describe();
}
function describe() {
  const m = here();
  $('about').textContent = !m ? '' : [models.length > 1 ? '' : m.id, m.meta?.n_params && `${(m.meta.n_params / 1e6).toPrecision(2)} M parameters`,
    m.meta?.block_size && `reads ${m.meta.block_size} tokens`].filter(Boolean).join(' \u00B7 ');
}

async function start() {
  let saved = null;
  try { saved = JSON.parse(localStorage.getItem(STORE)); } catch { /* not ours: begin anew */ }
  const touch = matchMedia('(pointer: coarse)').matches;
  $('composer').onsubmit = e => { e.preventDefault(); send(); };
  $('text').onkeydown = e => {
    if (e.key === 'Enter' && !e.shiftKey && !e.isComposing && !touch) { e.preventDefault(); send(); }
    if (e.key === 'Escape' && editing >= 0) endEdit(talk.draft);
  };
  $('text').oninput = () => { if (editing < 0) { talk.draft = $('text').value; save(); } };
  $('stop').onclick = () => running?.abort();
  $('keep').onclick = () => endEdit(talk.draft);
  $('open').onclick = () => show('settings', $('settings').hidden);
  $('curl').onclick = curl;
  $('export').onclick = exportTalk;
  $('import').onclick = () => $('file').click();
  $('file').onchange = importTalk;
  $('clear').onclick = clear;
  $('model').onchange = () => { talk.model = $('model').value; describe(); redraw(); save(); };
  for (const n of NUMBERS) $(n).oninput = () => { talk.settings[n] = $(n).value; save(); };
  addEventListener('pagehide', saveNow);
  await loadModels();
  open(saved);
  show('composer', true);
  $('text').focus();
}
start();
