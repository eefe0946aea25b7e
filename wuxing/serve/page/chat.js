// The chat page.  Everything a model or a person wrote is shown by textContent only: never parsed as HTML.
import { firstLanguage, words } from "./words.js";
import { Refusal, chunks, post } from "./stream.js";

const find = (id) => document.getElementById(id);
const memory = {
  get(name) {
    try { return localStorage.getItem(`wuxing.${name}`); } catch { return null; }
  },
  set(name, value) {
    try { localStorage.setItem(`wuxing.${name}`, value); } catch { /* a browser without storage forgets */ }
  },
};
const state = {
  language: firstLanguage(memory.get("language"), navigator.language),
  theme: memory.get("theme") || "auto",
  model: null,
  turns: [],
  running: null,
};

function say(word, values = {}) {
  return words[state.language][word].replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

// ---- words and colours

const speakers = new Set(); // functions that put the words of one message right

function showWords() {
  document.documentElement.lang = state.language === "zh" ? "zh-CN" : "en";
  for (const element of document.querySelectorAll("[data-word]")) element.textContent = say(element.dataset.word);
  for (const element of document.querySelectorAll("[data-hint]")) element.placeholder = say(element.dataset.hint);
  for (const element of document.querySelectorAll("[data-title]")) element.title = say(element.dataset.title);
  for (const element of document.querySelectorAll("[data-label]")) name(element, say(element.dataset.label));
  const language = find("language");
  language.textContent = say("otherShort");
  language.lang = state.language === "zh" ? "en" : "zh-CN";
  name(language, say("otherLanguage"));
  showTheme();
  showExamples();
  for (const speak of speakers) speak();
}

function name(element, text) {
  element.setAttribute("aria-label", text);
  if (element.tagName === "BUTTON") element.title = text;
}

function showTheme() {
  if (state.theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = state.theme;
  name(find("theme"), say({ auto: "themeAuto", light: "themeLight", dark: "themeDark" }[state.theme]));
}

function showExamples() {
  const box = find("examples");
  box.replaceChildren(
    ...["example1", "example2", "example3"].map((word) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = say(word);
      button.addEventListener("click", () => ask(say(word)));
      return button;
    }),
  );
}

// ---- one message on the page

class MessageView {
  constructor(role) {
    this.role = role;
    this.root = find("message").content.firstElementChild.cloneNode(true);
    this.root.classList.add(role);
    for (const part of ["who", "text", "error", "after", "facts", "copy", "up", "down", "comment", "thanks"]) {
      this[part] = this.root.querySelector(`.${part}`);
    }
    this.ending = null;
    this.failure = null;
    this.thumb = null;
    this.kept = false;
    this.speak = () => this.showWords();
    speakers.add(this.speak);
    find("messages").append(this.root);
    this.copy.addEventListener("click", () => this.copyText());
    this.up.addEventListener("click", () => this.judge("up"));
    this.down.addEventListener("click", () => this.judge("down"));
    this.comment.addEventListener("submit", (event) => {
      event.preventDefault();
      this.judge(this.thumb, this.comment.querySelector("input").value.trim());
    });
    this.showWords();
  }

  showWords() {
    this.who.textContent = this.role === "user" ? say("you") : state.model?.id || "Wuxing";
    name(this.copy, say("copy"));
    name(this.up, say("up"));
    name(this.down, say("down"));
    const input = this.comment.querySelector("input");
    input.placeholder = say(this.thumb === "down" ? "commentDown" : "commentUp");
    name(input, say("comment"));
    this.comment.querySelector("button").textContent = say("sendComment");
    if (this.kept) this.thanks.textContent = say("thanks");
    if (this.ending) this.showFacts();
    if (this.failure) this.showFailure();
    if (this.root.classList.contains("waiting")) name(this.text, say("thinking"));
  }

  wait() {
    this.root.classList.add("waiting");
    this.root.setAttribute("aria-busy", "true");
    name(this.text, say("thinking"));
  }

  add(text) {
    if (!text) return;
    this.root.classList.remove("waiting");
    this.root.classList.toggle("growing", this.role === "assistant");
    this.text.removeAttribute("aria-label");
    this.text.textContent += text;
  }

  end(ending) {
    this.ending = ending;
    this.root.classList.remove("waiting", "growing");
    this.text.removeAttribute("aria-label");
    this.root.removeAttribute("aria-busy");
    this.after.hidden = !ending.exchange;
    this.showFacts();
  }

  showFacts() {
    const { artifact, tokens, rate, finish } = this.ending;
    const facts = [artifact];
    if (tokens) facts.push(say("tokens", { count: tokens }));
    if (rate) facts.push(say("speed", { rate: rate < 10 ? rate.toFixed(1) : Math.round(rate) }));
    if (!this.text.textContent.trim()) facts.push(say("empty"));
    if (finish === "length") facts.push(say("cut"));
    if (finish === "cancelled") facts.push(say("stopped"));
    this.facts.textContent = facts.filter(Boolean).join(" · ");
  }

  fail(error, retry) {
    this.failure = { error, retry };
    this.root.classList.remove("waiting", "growing");
    this.root.removeAttribute("aria-busy");
    this.showFailure();
  }

  showFailure() {
    const { error, retry } = this.failure;
    const [word, act] = this.remedy(error, retry);
    const text = document.createElement("span");
    text.textContent = explain(error);
    const button = document.createElement("button");
    button.type = "button";
    button.className = "plain";
    button.textContent = say(word);
    button.addEventListener("click", act);
    this.error.replaceChildren(text, button);
    this.error.hidden = false;
  }

  remedy(error, retry) {
    if (error.status === 401) return ["signIn", () => location.assign("/")];
    if (error.code === "context_length_exceeded") return ["new", newConversation];
    return ["retry", retry];
  }

  async copyText() {
    await navigator.clipboard.writeText(this.text.textContent);
    name(this.copy, say("copied"));
    this.copy.classList.add("done");
    setTimeout(() => { name(this.copy, say("copy")); this.copy.classList.remove("done"); }, 1500);
  }

  async judge(thumb, comment) {
    this.thumb = thumb;
    this.kept = false;
    this.showWords();
    try {
      await post("/v1/feedback", { exchange: this.ending.exchange, thumb, comment: comment || "" });
    } catch (error) {
      this.comment.hidden = false;
      this.thanks.textContent = say("errorThumb", { message: explain(error) });
      return;
    }
    this.kept = true;
    this.up.setAttribute("aria-pressed", String(thumb === "up"));
    this.down.setAttribute("aria-pressed", String(thumb === "down"));
    this.comment.hidden = false;
    this.comment.classList.toggle("sent", Boolean(comment));
    this.showWords();
    if (comment) this[thumb].focus();
    else this.comment.querySelector("input").focus();
    follow();
  }

  remove() {
    speakers.delete(this.speak);
    this.root.remove();
  }
}

function explain(error) {
  if (!(error instanceof Refusal)) return say("errorNetwork");
  if (error.code === "cut") return say("errorCut");
  if (error.status === 401) return say("errorSession");
  if (error.status === 429 || error.status === 503) return say("errorBusy");
  if (error.code === "context_length_exceeded") return say("errorContext");
  return say("errorOther", { message: error.message });
}

// ---- asking

async function ask(question) {
  if (state.running || !question.trim()) return;
  find("welcome").hidden = true;
  new MessageView("user").add(question);
  state.turns.push({ role: "user", content: question });
  await answer();
}

async function answer() {
  const view = new MessageView("assistant");
  const control = new AbortController();
  const turns = state.turns;
  view.wait();
  setRunning(control);
  follow(true);
  const progress = { exchange: "", artifact: "", tokens: 0, pieces: 0, finish: "", first: 0, last: 0 };
  try {
    await read(view, progress, turns, control.signal);
  } catch (error) {
    if (control.signal.aborted) progress.finish = "cancelled";
    else view.fail(error, () => { view.remove(); answer(); });
  }
  finish(view, progress, turns);
}

async function read(view, progress, turns, signal) {
  const response = await post("/v1/chat/completions", {
    model: state.model?.id || (await loadModel()).id,
    messages: turns,
    temperature: Number(find("temperature").value),
    max_tokens: Number(find("max-tokens").value),
    stream: true,
    stream_options: { include_usage: true },
  }, signal);
  progress.artifact = response.headers.get("x-wuxing-artifact") || "";
  for await (const chunk of chunks(response)) {
    progress.exchange = chunk.id;
    if (chunk.usage) progress.tokens = chunk.usage.completion_tokens;
    const [choice] = chunk.choices;
    if (!choice) continue;
    if (choice.finish_reason) progress.finish = choice.finish_reason;
    progress.pieces += 1;
    progress.last = performance.now();
    progress.first ||= progress.last;
    view.add(choice.delta.content);
    follow();
  }
}

function finish(view, progress, turns) {
  const seconds = (progress.last - progress.first) / 1000;
  const tokens = progress.tokens || Math.max(0, progress.pieces - 1);
  view.end({ ...progress, tokens, rate: seconds > 0 && tokens > 1 ? (tokens - 1) / seconds : 0 });
  if (!view.failure && turns === state.turns) {
    turns.push({ role: "assistant", content: view.text.textContent });
  }
  setRunning(null);
  follow();
}

function setRunning(control) {
  state.running = control;
  const hadFocus = [find("send"), find("stop")].includes(document.activeElement);
  find("send").hidden = Boolean(control);
  find("stop").hidden = !control;
  if (hadFocus) find("prompt").focus();
}

function follow(always = false) {
  const box = find("scroll");
  if (always || box.scrollHeight - box.scrollTop - box.clientHeight < 160) box.scrollTop = box.scrollHeight;
}

// ---- the model, the settings, the controls

async function loadModel() {
  const response = await fetch("/v1/models");
  if (!response.ok) throw new Refusal(response.status, "models", `HTTP ${response.status}`);
  [state.model] = (await response.json()).data;
  find("release").textContent = state.model.artifact;
  document.title = `${state.model.id} · Wuxing`;
  const slider = find("max-tokens");
  slider.max = String(Math.min(state.model.max_tokens, Math.floor(state.model.context_tokens / 32) * 16));
  restore("max-tokens", "256");
  return state.model;
}

function restore(id, fallback) {
  const slider = find(id);
  slider.value = memory.get(id) || fallback;
  showSlider(id);
}

function showSlider(id) {
  find(`${id}-shown`).textContent = find(id).value;
}

function grow() {
  const box = find("prompt");
  box.style.height = "auto";
  box.style.height = `${Math.min(box.scrollHeight, 220)}px`;
}

function sendPrompt() {
  const box = find("prompt");
  if (state.running || !box.value.trim()) return;
  const question = box.value;
  box.value = "";
  grow();
  ask(question);
}

function newConversation() {
  state.running?.abort();
  state.turns = [];
  speakers.clear();
  find("messages").replaceChildren();
  find("welcome").hidden = false;
  find("prompt").focus();
}

for (const id of ["temperature", "max-tokens"]) {
  find(id).addEventListener("input", () => { memory.set(id, find(id).value); showSlider(id); });
}
find("composer").addEventListener("submit", (event) => { event.preventDefault(); sendPrompt(); });
find("prompt").addEventListener("input", grow);
find("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing && event.keyCode !== 229) {
    event.preventDefault();
    sendPrompt();
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !find("settings").open) state.running?.abort();
});
find("stop").addEventListener("click", () => state.running?.abort());
find("new").addEventListener("click", newConversation);
find("settings-open").addEventListener("click", () => find("settings").showModal());
find("theme").addEventListener("click", () => {
  const order = ["auto", "light", "dark"];
  state.theme = order[(order.indexOf(state.theme) + 1) % order.length];
  memory.set("theme", state.theme);
  showTheme();
});
find("language").addEventListener("click", () => {
  state.language = state.language === "zh" ? "en" : "zh";
  memory.set("language", state.language);
  showWords();
});

showWords();
restore("temperature", "0");
restore("max-tokens", "256");
loadModel().then(showWords).catch((error) => { find("release").textContent = explain(error); });
