/* The page of one or more recordings: what is seen, heard and judged. Texts from outside enter as textContent. */
"use strict";

(() => {
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("data").textContent);
  const LANE = 40;
  const ROW = 46;
  const SHORTEST = 0.4; // seconds in view at least
  const NEAR = 7; // pixels
  const [LEAST, MOST] = [data.least, 0.99]; // thresholds of the sliders
  const MARKS = { right: "✓", wrong: "✕", unsure: "?", other: "≠", missed: "+" };
  const NAMES = { right: "Right", wrong: "Wrong", unsure: "Unsure", other: "Other label", missed: "Missed" };
  const PALETTES = {
    light: [[251, 250, 247], [214, 222, 228], [128, 158, 186], [52, 84, 128], [14, 20, 44]],
    dark: [[19, 21, 25], [58, 32, 92], [146, 50, 112], [236, 112, 82], [254, 236, 190]],
  };
  const dark = matchMedia("(prefers-color-scheme: dark)");

  const rules = data.rules.map((rule) => ({ ...rule }));
  const recordings = data.recordings.map((one, index) => ({
    ...one, index, ready: false, scores: new Map(), events: new Map(), lanes: [], items: new Map(), tuned: null,
  }));
  let review = { events: [], stretches: [] };
  let items = [];
  let shown = [];
  let current = null;
  let selected = null;
  let view = { from: 0, to: 1 };
  let position = 0;
  let drawing = false;
  let following = true;
  let looping = false;
  let allLanes = false;
  let unsaved = false;
  let colours = {};
  const past = [];

  /* ---- parts of the page ------------------------------------------------------------------------------ */

  const parsed = new Promise((done) => {
    if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", done, { once: true });
    else done();
  });

  function decoded(text) {
    if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
    const characters = atob(text);
    const bytes = new Uint8Array(characters.length);
    for (let i = 0; i < bytes.length; i++) bytes[i] = characters.charCodeAt(i);
    return bytes;
  }

  const part = async (name) => { await parsed; return decoded($(name).textContent); };

  async function loadScores(recording) {
    const { part: name, tokens, classes } = recording.scores0;
    const stream = new Blob([await part(name)]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
    const planes = new Uint8Array(await new Response(stream).arrayBuffer());
    const count = tokens * classes.length;
    const bytes = new Uint8Array(4 * count);
    for (let plane = 0; plane < 4; plane++) {
      for (let i = 0; i < count; i++) bytes[4 * i + plane] = planes[plane * count + i];
    }
    const values = new Float32Array(bytes.buffer);
    classes.forEach((k, i) => {
      const column = Rules.medianFilter(values.subarray(i * tokens, (i + 1) * tokens), rules[k].median);
      recording.scores.set(k, column);
      detect(recording, k);
    });
    recording.ready = true;
  }

  function detect(recording, k) {
    const scores = recording.scores.get(k);
    if (scores) recording.events.set(k, Rules.findEvents(scores, rules[k], data.token, recording.duration));
  }

  /* ---- words ------------------------------------------------------------------------------------------ */

  const two = (value) => String(value).padStart(2, "0");

  function clock(seconds, decimals = 1) {
    const scale = 10 ** decimals;
    const rounded = Math.round(seconds * scale) / scale;
    const hours = Math.floor(rounded / 3600);
    const minutes = Math.floor(rounded / 60) % 60;
    const rest = (rounded % 60).toFixed(decimals).padStart(decimals ? decimals + 3 : 2, "0");
    return hours ? `${hours}:${two(minutes)}:${rest}` : `${minutes}:${rest}`;
  }

  /** The wall clock as a date in UTC, so that no time zone moves it. */
  function begins(recording) {
    if (recording.begins === null) return null;
    const found = /^(\d+)-(\d+)-(\d+)[T ](\d+):(\d+):(\d+(?:\.\d+)?)/.exec(recording.begins);
    if (!found) return null;
    const [year, month, day, hour, minute, second] = found.slice(1).map(Number);
    return Date.UTC(year, month - 1, day, hour, minute) + 1000 * second;
  }

  function when(recording, seconds, decimals = 1) {
    if (recording.started === null) return clock(seconds, decimals);
    const date = new Date(recording.started + 1000 * seconds);
    const rest = (date.getUTCSeconds() + date.getUTCMilliseconds() / 1000);
    const text = (Math.floor(rest * 10 ** decimals) / 10 ** decimals).toFixed(decimals);
    return `${two(date.getUTCHours())}:${two(date.getUTCMinutes())}:${text.padStart(decimals ? decimals + 3 : 2, "0")}`;
  }

  /** Date and minute of a wall clock, as 2026-05-12 04:30. */
  const dated = (moment) => new Date(moment).toISOString().slice(0, 16).replace("T", " ");
  /** Length of the folder that all recordings are in; lists leave it out. */
  const common = (() => {
    const parts = recordings.map((one) => one.name.split("/").slice(0, -1));
    let depth = 0;
    while (parts.every((own) => depth < own.length && own[depth] === parts[0][depth])) depth++;
    return parts[0].slice(0, depth).reduce((sum, part) => sum + part.length + 1, 0);
  })();
  const short = (recording) => recording.name.slice(common);
  const leaf = (recording) => recording.name.split("/").pop();
  const leaves = new Set(recordings.map(leaf)).size === recordings.length; // so the last part alone is clear
  const briefest = leaves ? leaf : short;

  const count = (n, one, many) => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;
  const say = (text) => { $("live").textContent = text; };
  const about = (item) => `${item.label}, ${when(item.of, item.onset)} to ${when(item.of, item.offset)}${item.score === null ? "" : `, score ${item.score.toFixed(2)}`}`;

  function element(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name === "text") made.textContent = value;
      else if (name === "class") made.className = value;
      else made.setAttribute(name, value);
    }
    made.append(...children);
    return made;
  }

  /* ---- events and verdicts ---------------------------------------------------------------------------- */

  const overlap = (a, b) => Math.max(0, Math.min(a.offset, b.offset) - Math.max(a.onset, b.onset));
  const alike = (a, b) => overlap(a, b) > 0.5 * Math.max(a.offset - a.onset, b.offset - b.onset);

  /** All events, judged ones in place of those found that they are about. */
  function collect() {
    const judged = new Map(recordings.map((one) => [one.name, []]));
    for (const event of review.events) judged.get(event.recording)?.push(event);
    items = [];
    for (const of of recordings) {
      const own = judged.get(of.name);
      const found = [];
      for (const [k, events] of of.events) {
        const label = data.labels[k];
        const about = own.filter((one) => one.detected?.label === label).map((one) => one.detected);
        for (const event of events) {
          if (about.length && about.some((one) => alike(one, event))) continue;
          found.push({ of, label, ...event, verdict: "", judged: null, found: event });
        }
      }
      for (const one of own) {
        found.push({
          of, label: one.label, onset: one.onset, offset: one.offset, score: one.score, verdict: one.verdict,
          judged: one, found: one.detected ?? one,
        });
      }
      found.sort((a, b) => a.onset - b.onset || a.offset - b.offset);
      of.items = new Map();
      for (const item of found) {
        if (!of.items.has(item.label)) of.items.set(item.label, []);
        of.items.get(item.label).push(item);
      }
      of.count = found.length;
      items.push(...found);
    }
    if (selected) {
      const before = selected;
      selected = items.find((one) => (before.judged && one.judged === before.judged))
        ?? items.find((one) => one.of === before.of && one.found.onset === before.found.onset && one.label === before.label)
        ?? items.find((one) => one.of === before.of && one.label === before.label && alike(one, before)) ?? null;
    }
    fillFilters();
    arrange();
  }

  function hash(text) {
    let value = 2166136261;
    for (let i = 0; i < text.length; i++) value = Math.imul(value ^ text.charCodeAt(i), 16777619);
    value = Math.imul(value ^ (value >>> 15), 2246822507);
    return (value ^ (value >>> 13)) >>> 0;
  }

  const hourOf = (item) => {
    const seconds = item.of.started === null ? item.onset : item.of.started / 1000 + item.onset;
    const hour = Math.floor(seconds / 3600);
    return item.of.started === null ? hour : hour % 24;
  };

  const ORDERS = {
    time: (a, b) => a.of.index - b.of.index || a.onset - b.onset || (a.label < b.label ? -1 : 1),
    high: (a, b) => (b.score ?? 2) - (a.score ?? 2),
    low: (a, b) => (a.score ?? 2) - (b.score ?? 2),
    near: (a, b) => distance(a) - distance(b),
    class: (a, b) => (a.label < b.label ? -1 : a.label > b.label ? 1 : ORDERS.time(a, b)),
    long: (a, b) => b.offset - b.onset - (a.offset - a.onset),
  };

  function distance(item) {
    const k = data.labels.indexOf(item.found.label ?? item.label);
    return item.score === null || k < 0 ? 2 : Math.abs(item.score - Rules.calibrated(rules[k].threshold, rules[k]));
  }

  let filled = "";

  /** The choices of the filters: labels and hours of the events as they are now, and what is chosen. */
  function fillFilters() {
    const [label, hour] = [$("filter-class").value, $("filter-hour").value];
    const labels = [...new Set([...items.map((item) => item.label), ...(label ? [label] : [])])].sort();
    const hours = [...new Set([...items.map(hourOf), ...(hour ? [Number(hour)] : [])])].sort((a, b) => a - b);
    const now = JSON.stringify([labels, hours]);
    if (filled === now) return;
    filled = now;
    $("filter-class").replaceChildren(element("option", { value: "", text: "every class" }), ...labels.map((one) => element("option", { value: one, text: one })));
    $("filter-class").value = label;
    $("filter-hour").hidden = hours.length < 2;
    const clockTimes = recordings.some((one) => one.started !== null);
    $("filter-hour").replaceChildren(element("option", { value: "", text: "every hour" }),
      ...hours.map((one) => element("option", { value: one, text: clockTimes ? `${two(one)}:00 to ${two(one)}:59` : `hour ${one + 1}` })));
    $("filter-hour").value = hour;
    $("label-options").replaceChildren(...[...new Set([...data.labels, ...labels])].map((one) => element("option", { value: one })));
  }

  function arrange() {
    const label = $("filter-class").value;
    const verdict = $("filter-verdict").value;
    const recording = $("filter-recording").value;
    const hour = $("filter-hour").value;
    const from = $("score-from").valueAsNumber;
    const to = $("score-to").valueAsNumber;
    const sample = $("sample").valueAsNumber;
    shown = items.filter((item) => (!label || item.label === label)
      && (!verdict || (verdict === "open" ? !item.verdict : verdict === "done" ? item.verdict : item.verdict === verdict))
      && (recording === "" || item.of.index === Number(recording))
      && (hour === "" || hourOf(item) === Number(hour))
      && (!(from > 0) || (item.score ?? 1) >= from) && (!(to < 1) || (item.score ?? 1) <= to));
    if (sample > 0) {
      const bands = new Map();
      for (const item of shown) {
        const band = Math.min(9, Math.floor((item.score ?? 1) * 10));
        item.chance = hash(`${data.key} ${item.of.name} ${item.found.label ?? item.label} ${item.found.onset.toFixed(3)}`);
        if (!bands.has(band)) bands.set(band, []);
        bands.get(band).push(item);
      }
      shown = [...bands.values()].flatMap((band) => band.sort((a, b) => a.chance - b.chance).slice(0, sample));
    }
    shown.sort(ORDERS[$("sort").value]);
    const judged = items.filter((item) => item.verdict).length;
    $("count").textContent = shown.length === items.length ? items.length.toLocaleString("en")
      : `${shown.length.toLocaleString("en")} of ${items.length.toLocaleString("en")}`;
    $("heard-text").textContent = items.length ? `${judged.toLocaleString("en")} of ${items.length.toLocaleString("en")} judged` : "";
    $("heard-bar").value = items.length ? judged / items.length : 0;
    $("heard-bar").hidden = !items.length;
    laneLabels();
    draw();
  }

  function remember() {
    past.push(JSON.stringify(review));
    if (past.length > 200) past.shift();
  }

  function changed() {
    unsaved = true;
    collect();
    keep();
  }

  function undo() {
    if (!past.length) { say("Nothing to undo."); return; }
    const number = selected?.judged ? review.events.indexOf(selected.judged) : -1;
    review = JSON.parse(past.pop());
    if (number >= 0) selected = { ...selected, judged: review.events[number] ?? null };
    changed();
    say("Undone.");
  }

  function judge(verdict, label = null) {
    if (!selected) { say("No event is selected."); return; }
    if (verdict === "other" && label === null) {
      ask(selected.label, (given) => judge("other", given));
      return;
    }
    const item = selected;
    const place = shown.indexOf(item);
    const following = shown[place + 1] ?? null;
    remember();
    record(item, { verdict: item.judged && !item.judged.detected ? (verdict === "right" ? "missed" : verdict) : verdict, label: label ?? item.found.label ?? item.label });
    changed();
    const next = following && items.find((one) => one.of === following.of && one.found === following.found);
    if (next) select(next, true);
    say(`${NAMES[verdict]}. ${$("heard-text").textContent}. ${next ? `Next: ${about(next)}` : "That was the last event."}`);
  }

  /** Put a verdict, label or bounds on an event. */
  function record(item, values) {
    if (!item.judged) {
      item.judged = {
        recording: item.of.name, onset: item.onset, offset: item.offset, label: item.label, score: item.score,
        verdict: "right", detected: { onset: item.onset, offset: item.offset, label: item.label },
      };
      review.events.push(item.judged);
    }
    Object.assign(item.judged, values);
    selected = item;
  }

  function takeBack() {
    if (!selected?.judged) return;
    remember();
    const place = review.events.indexOf(selected.judged);
    review.events.splice(place, 1);
    selected = { ...selected, judged: null, label: selected.judged.detected?.label ?? selected.label };
    changed();
    say("Verdict taken back.");
  }

  function toggleListened() {
    const { from, to } = view;
    const own = review.stretches.filter((one) => one.recording === current.name);
    const others = review.stretches.filter((one) => one.recording !== current.name);
    const inside = own.some((one) => one.onset <= from + 1e-3 && one.offset >= to - 1e-3);
    remember();
    let kept;
    if (inside) {
      kept = own.flatMap((one) => [[one.onset, Math.min(one.offset, from)], [Math.max(one.onset, to), one.offset]])
        .filter(([a, b]) => b - a > 1e-3);
    } else {
      kept = [];
      for (const [a, b] of [...own.map((one) => [one.onset, one.offset]), [from, to]].sort((x, y) => x[0] - y[0])) {
        if (kept.length && a <= kept[kept.length - 1][1] + 1e-3) kept[kept.length - 1][1] = Math.max(b, kept[kept.length - 1][1]);
        else kept.push([a, b]);
      }
    }
    review.stretches = [...others, ...kept.map(([onset, offset]) => ({ recording: current.name, onset, offset }))];
    changed();
    say(`${clock(from)} to ${clock(to)} ${inside ? "is not marked as listened to any more" : "is marked as listened to"}.`);
  }

  /** Ask for a label, and go on with it. */
  function ask(label, then) {
    $("label-input").value = label ?? "";
    asked = then;
    $("label-dialog").showModal();
    $("label-input").select();
  }

  let asked = null;
  $("label-dialog").querySelector("form").addEventListener("submit", (event) => {
    const given = $("label-input").value.trim().normalize("NFC");
    event.preventDefault();
    $("label-dialog").close();
    list.focus({ preventScroll: true }); // keys go on with the events
    if (event.submitter?.value !== "cancel" && given) asked(given);
  });

  /* ---- what the browser keeps ------------------------------------------------------------------------- */

  const store = `htsat-sed ${data.key}`;
  let keeps = true;

  function keep() {
    try {
      const thresholds = rules.map((rule) => rule.threshold);
      localStorage.setItem(store, JSON.stringify({ review, thresholds }));
    } catch {
      if (keeps) notice("This browser does not keep reviews of pages opened from a disk: export the review before you close the page.");
      keeps = false;
    }
  }

  function recall() {
    try {
      const kept = JSON.parse(localStorage.getItem(store) ?? "null");
      if (!kept) return;
      review = kept.review;
      kept.thresholds.forEach((value, k) => { if (rules[k]) setRule(k, value); });
    } catch {
      keeps = false;
    }
  }

  function notice(text) {
    $("notice").textContent = text;
    $("notice").hidden = false;
  }

  addEventListener("beforeunload", (event) => { if (!keeps && unsaved) event.preventDefault(); });

  /* ---- the view --------------------------------------------------------------------------------------- */

  const canvases = ["overview", "spectrogram", "axis", "lanes"].map($);
  const [overview, spectrogram, axis, lanes] = canvases;
  const sizes = new Map();
  const stale = { view: false, list: false, overview: false };
  let wanted = false;

  /** Draw with the next frame: all, or only the "view" or the "list". */
  function draw(part = null) {
    if (part !== "list") stale.view = true;
    if (part !== "view") stale.list = true;
    if (part === null) stale.overview = true;
    if (wanted) return;
    wanted = true;
    requestAnimationFrame(drawStale);
  }

  function drawStale() {
    wanted = false;
    if (!current) return;
    if (stale.view) {
      drawOverview();
      drawSpectrogram();
      drawAxis();
      drawLanes();
      placeHead();
    }
    if (stale.list) drawList();
    stale.view = stale.list = stale.overview = false;
  }

  function prepared(canvas, height = null) {
    const ratio = Math.min(devicePixelRatio || 1, 2);
    const size = sizes.get(canvas) ?? { width: canvas.clientWidth, height: canvas.clientHeight };
    const wide = Math.max(1, Math.round(size.width * ratio));
    const high = Math.max(1, Math.round((height ?? size.height) * ratio));
    if (canvas.width !== wide) canvas.width = wide;
    if (canvas.height !== high) canvas.height = high;
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, size.width, high / ratio);
    if (printing) { // on paper, nothing cuts off what reaches beyond the canvas
      context.beginPath();
      context.rect(0, 0, size.width, high / ratio);
      context.clip();
    }
    return { context, width: size.width, height: high / ratio };
  }

  function theme() {
    document.documentElement.classList.toggle("printing", printing);
    const style = getComputedStyle(document.documentElement);
    for (const name of ["paper", "ink", "soft", "line", "faint", "accent", "right", "wrong", "unsure", "other", "reference", "chosen"]) {
      colours[name] = style.getPropertyValue(`--${name}`).trim();
    }
    const stops = printing || !dark.matches ? PALETTES.light : PALETTES.dark;
    palette = new Uint32Array(256);
    for (let i = 0; i < 256; i++) {
      const place = (i / 255) * (stops.length - 1);
      const k = Math.min(stops.length - 2, Math.floor(place));
      const [r, g, b] = stops[k].map((value, c) => Math.round(value + (stops[k + 1][c] - value) * (place - k)));
      palette[i] = (255 << 24) | (b << 16) | (g << 8) | r;
    }
    ground = `rgb(${stops[0].join(" ")})`;
    stamp++;
    draw();
  }

  let palette = null;
  let ground = "";
  let stamp = 0;
  let printing = false;
  const tiles = new Map();

  const range = () => current.tuned ?? { top: current.spectrogram.loud, span: Math.min(90, Math.max(35, current.spectrogram.loud - current.spectrogram.quiet + 12)) };

  function tile(name) {
    let one = tiles.get(name);
    if (one) {
      tiles.delete(name);
      tiles.set(name, one); // the last one used
      if (one.pixels && one.stamp !== stamp) colour(one);
      return one.canvas;
    }
    one = { pixels: null, canvas: null, stamp: -1 };
    tiles.set(name, one);
    while (tiles.size > 160) tiles.delete(tiles.keys().next().value);
    part(name).then((bytes) => createImageBitmap(new Blob([bytes], { type: "image/webp" }))).then((bitmap) => {
      const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
      const context = canvas.getContext("2d", { willReadFrequently: true });
      context.drawImage(bitmap, 0, 0);
      const { data: colours4 } = context.getImageData(0, 0, bitmap.width, bitmap.height);
      one.pixels = new Uint8Array(bitmap.width * bitmap.height);
      for (let i = 0; i < one.pixels.length; i++) one.pixels[i] = colours4[4 * i];
      one.canvas = canvas;
      one.context = context;
      draw("view");
    }).catch(() => { notice("A part of the spectrogram cannot be decoded by this browser."); });
    return null;
  }

  function colour(one) {
    const { top, span } = range();
    const map = new Uint32Array(256);
    for (let v = 0; v < 256; v++) {
      const decibels = data.quietest * (1 - v / 255);
      map[v] = palette[Math.max(0, Math.min(255, Math.round(255 * (1 + (decibels - top) / span))))];
    }
    const image = new ImageData(one.canvas.width, one.canvas.height);
    const pixels = new Uint32Array(image.data.buffer);
    for (let i = 0; i < pixels.length; i++) pixels[i] = map[one.pixels[i]];
    one.context.putImageData(image, 0, 0);
    one.stamp = stamp;
  }

  function drawSpectrogram() {
    const { context, width, height } = prepared(spectrogram);
    context.fillStyle = ground;
    context.fillRect(0, 0, width, height);
    context.imageSmoothingEnabled = true;
    context.imageSmoothingQuality = "medium";
    const scale = width / (view.to - view.from);
    const { levels } = current.spectrogram;
    let level = 0;
    while (level + 1 < levels.length && levels[level + 1].seconds * scale <= 1.2) level++;
    const complete = (k) => visible(k).every(([name]) => tiles.get(name)?.canvas);
    const visible = (k) => {
      const long = levels[k].seconds * data.tile;
      const first = Math.max(0, Math.floor(view.from / long));
      const last = Math.min(levels[k].tiles.length - 1, Math.floor(view.to / long));
      const found = [];
      for (let i = first; i <= last; i++) found.push([levels[k].tiles[i], i * long]);
      return found;
    };
    const paint = (k) => {
      const half = levels[0].seconds / 2;
      for (const [name, begin] of visible(k)) {
        const canvas = tile(name);
        if (!canvas) continue;
        const left = Math.round((begin - half - view.from) * scale);
        const right = Math.round((begin - half + canvas.width * levels[k].seconds - view.from) * scale);
        context.drawImage(canvas, left, 0, right - left, height);
      }
    };
    if (!complete(level) && level + 1 < levels.length) paint(levels.length - 1);
    paint(level);
    if (view.to >= current.duration) {
      const end = (current.duration - view.from) * scale;
      context.fillStyle = colours.paper;
      context.fillRect(end, 0, width - end, height);
    }
    if (selected?.of === current) {
      const left = (selected.onset - view.from) * scale;
      const right = (selected.offset - view.from) * scale;
      context.fillStyle = colours.accent;
      context.globalAlpha = 0.12;
      context.fillRect(left, 0, right - left, height);
      context.globalAlpha = 1;
      context.fillRect(left - 0.75, 0, 1.5, height);
      context.fillRect(right - 0.75, 0, 1.5, height);
      context.fillRect(left, 0, right - left, 3);
    }
    drawDrawn(context, scale, 0, height);
  }

  function drawDrawn(context, scale, top, height) {
    if (!gesture?.drawn) return;
    const [a, b] = [gesture.drawn.onset, gesture.drawn.offset];
    context.fillStyle = colours.other;
    context.globalAlpha = 0.3;
    context.fillRect((a - view.from) * scale, top, (b - a) * scale, height);
    context.globalAlpha = 1;
  }

  const under = document.createElement("canvas"); // what of the overview does not depend on the view

  function drawOverview() {
    const { context, width, height } = prepared(overview);
    if (stale.overview || under.width !== overview.width || under.height !== overview.height) {
      under.width = overview.width;
      under.height = overview.height;
      const below = under.getContext("2d");
      below.setTransform(context.getTransform());
      drawWaveform(below, width, height);
    }
    const scale = width / current.duration;
    const left = view.from * scale;
    const wide = Math.max(3, (view.to - view.from) * scale);
    const part = view.to - view.from < current.duration - 1e-6;
    context.fillStyle = colours.chosen;
    if (part) context.fillRect(left, 0, wide, height);
    context.drawImage(under, 0, 0, width, height);
    context.strokeStyle = colours.accent;
    if (part) context.strokeRect(left + 0.5, 0.5, wide - 1, height - 1);
    context.fillStyle = colours.wrong;
    context.fillRect(position * scale - 0.5, 0, 1, height);
  }

  function drawWaveform(context, width, height) {
    const { peaks, duration } = current;
    const scale = width / duration;
    const middle = (height - 8) / 2;
    context.fillStyle = colours.soft;
    for (let x = 0; x < width; x++) {
      const first = Math.floor((x / width) * peaks.length);
      const last = Math.max(first + 1, Math.floor(((x + 1) / width) * peaks.length));
      let most = 0;
      for (let i = first; i < last; i++) if (peaks[i] > most) most = peaks[i];
      const high = Math.max(0.5, (most / 255) * middle);
      context.fillRect(x, middle - high, 1, 2 * high);
    }
    const occupied = new Uint8Array(Math.ceil(width) + 1);
    for (const own of current.items.values()) {
      for (const item of own) {
        if (item.verdict === "wrong") continue;
        const first = Math.floor(item.onset * scale);
        occupied.fill(1, first, Math.max(first + 1, Math.ceil(item.offset * scale)));
      }
    }
    context.fillStyle = colours.accent;
    for (let x = 0; x < occupied.length; x++) if (occupied[x]) context.fillRect(x, height - 7, 1, 3);
    context.fillStyle = colours.right;
    for (const one of review.stretches) {
      if (one.recording === current.name) context.fillRect(one.onset * scale, height - 2.5, (one.offset - one.onset) * scale, 2.5);
    }
  }

  const STEPS = [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400];

  function drawAxis() {
    const { context, width, height } = prepared(axis);
    const scale = width / (view.to - view.from);
    const step = STEPS.find((one) => one * scale >= 84) ?? STEPS[STEPS.length - 1];
    const decimals = step < 0.1 ? 2 : step < 1 ? 1 : 0;
    const shift = current.started === null ? 0 : (current.started / 1000) % 86400;
    context.font = "11px system-ui, sans-serif";
    context.textBaseline = "middle";
    context.fillStyle = colours.soft;
    const first = Math.ceil((view.from + shift) / step);
    const last = Math.floor((Math.min(view.to, current.duration) + shift) / step + 1e-9);
    for (let i = first; i <= last; i++) {
      const seconds = i * step - shift;
      const x = (seconds - view.from) * scale;
      context.fillRect(x, 0, 1, 5);
      const text = when(current, seconds + 1e-6, decimals);
      const wide = context.measureText(text).width;
      context.fillText(text, Math.max(2, Math.min(width - wide - 2, x - wide / 2)), 13);
    }
    context.fillStyle = colours.right;
    for (const one of review.stretches) {
      if (one.recording !== current.name || one.offset < view.from || one.onset > view.to) continue;
      context.fillRect((one.onset - view.from) * scale, height - 2, (one.offset - one.onset) * scale, 2);
    }
  }

  /* ---- lanes ------------------------------------------------------------------------------------------ */

  function laneLabels() {
    if (!current) return;
    const referred = new Map();
    for (const [onset, offset, label] of current.reference ?? []) {
      if (!referred.has(label)) referred.set(label, []);
      referred.get(label).push({ onset, offset });
    }
    current.referred = referred;
    if (!current.order && current.ready) {
      const peak = (k) => current.scores.get(k).reduce((most, value) => (value > most ? value : most), 0);
      const found = [...current.scores.keys()].map((k) => ({ k, label: data.labels[k], peak: peak(k), events: current.events.get(k).length }));
      found.sort((a, b) => referred.has(b.label) - referred.has(a.label) || (b.events > 0) - (a.events > 0) || b.peak - a.peak);
      current.order = found;
    }
    const order = current.order ?? [];
    const known = new Set(order.map((one) => one.label));
    const others = [...new Set([...referred.keys(), ...current.items.keys()])].filter((label) => !known.has(label));
    const matters = (one) => referred.has(one.label) || current.items.has(one.label) || one.peak > 0.6 * rules[one.k].threshold;
    const inView = (own) => own?.some((one) => one.offset >= view.from && one.onset <= view.to);
    const onPaper = ({ label }) => inView(current.items.get(label)) || inView(referred.get(label));
    const kept = order.filter((one) => (printing ? onPaper(one) : allLanes || matters(one)));
    current.lanes = [...kept, ...others.map((label) => ({ k: -1, label })).filter((one) => !printing || onPaper(one))];
    current.hidden = printing ? 0 : order.length - kept.length;
    const names = $("names");
    names.textContent = "";
    current.lanes.forEach((lane, i) => {
      const button = element("button", { type: "button", title: `${lane.label}: list its events alone` }, element("span", { text: lane.label }));
      button.style.top = `${i * LANE}px`;
      button.addEventListener("click", () => {
        $("filter-class").value = $("filter-class").value === lane.label ? "" : lane.label;
        arrange();
      });
      names.append(button);
    });
    if (current.hidden || (allLanes && !printing)) {
      const text = allLanes ? "fewer classes" : `${current.hidden} more ${current.hidden === 1 ? "class" : "classes"}`;
      const more = element("button", { type: "button", class: "more", text });
      more.style.top = `${current.lanes.length * LANE + 4}px`;
      more.addEventListener("click", () => { allLanes = !allLanes; arrange(); });
      names.append(more);
    }
    const high = current.lanes.length * LANE + (current.hidden || (allLanes && !printing) ? 38 : 4);
    names.style.height = `${high}px`;
    $("lanes-space").style.height = `${high}px`;
    measure(); // the lanes give way to the spectrogram, or take from it
    $("empty").hidden = !current.ready || current.count > 0;
    if (current.ready && !current.count) $("empty").textContent = "No events at these thresholds. Lower them under Thresholds, or draw one.";
  }

  function drawLanes() {
    const row = $("lanes-row");
    const high = printing ? Math.max(1, current.lanes.length * LANE) : (sizes.get(row)?.height ?? row.clientHeight);
    lanes.style.height = `${high}px`;
    const { context, width, height } = prepared(lanes, high);
    const scroll = printing ? 0 : row.scrollTop;
    const scale = width / (view.to - view.from);
    const first = Math.max(0, Math.floor(scroll / LANE));
    const last = Math.min(current.lanes.length - 1, Math.floor((scroll + height) / LANE));
    for (let i = first; i <= last; i++) drawLane(context, current.lanes[i], i * LANE - scroll, width, scale);
    drawDrawn(context, scale, gesture?.lane >= 0 ? gesture.lane * LANE - scroll : 0, gesture?.lane >= 0 ? LANE : 0);
  }

  const STRIP = 2048; // columns
  const strips = new Map(); // outlines of hours take 5 ms a frame to fill, strips 1

  const packed = (hex) => (255 << 24) | (parseInt(hex.slice(5, 7), 16) << 16) | (parseInt(hex.slice(3, 5), 16) << 8) | parseInt(hex.slice(1, 3), 16);

  /** A part of a lane's scores as pixels, `high` of them for a score of 1; a column has the highest of `pool` tokens. */
  function strip(k, pool, number, high) {
    const { threshold } = rules[k];
    const key = `${current.index} ${k} ${pool} ${number}`;
    const state = `${threshold} ${high} ${colours.soft}`;
    const kept = strips.get(key);
    if (kept?.state === state) return kept.canvas;
    const scores = current.scores.get(k);
    const begin = number * STRIP * pool;
    const columns = Math.min(STRIP, Math.ceil((scores.length - begin) / pool));
    const image = new ImageData(columns, high);
    const pixels = new Uint32Array(image.data.buffer);
    const [above, below] = [packed(colours.soft), packed(colours.line)];
    for (let column = 0; column < columns; column++) {
      const first = begin + column * pool;
      const last = Math.min(scores.length, first + pool);
      let most = 0;
      for (let t = first; t < last; t++) if (scores[t] > most) most = scores[t];
      if (most < 0.01) continue;
      const colour = most > threshold ? above : below;
      for (let y = high - Math.max(1, Math.round(most * high)); y < high; y++) pixels[y * columns + column] = colour;
    }
    const canvas = new OffscreenCanvas(columns, high);
    canvas.getContext("2d").putImageData(image, 0, 0);
    strips.delete(key);
    strips.set(key, { canvas, state });
    while (strips.size > 300) strips.delete(strips.keys().next().value);
    return canvas;
  }

  /** Scores of many tokens a pixel. */
  function drawStrips(context, k, base, high, scale) {
    const pool = 2 ** Math.ceil(Math.log2(1 / (data.token * scale)));
    const long = STRIP * pool * data.token;
    const last = Math.min(view.to, current.scores.get(k).length * data.token);
    context.imageSmoothingEnabled = false;
    for (let number = Math.floor(view.from / long); number * long < last; number++) {
      const canvas = strip(k, pool, number, Math.round(high * context.getTransform().d));
      context.drawImage(canvas, (number * long - view.from) * scale, base - high, canvas.width * pool * data.token * scale, high);
    }
  }

  /** Scores of few tokens, as outlines: one outline a run is drawn faster than a box a token. */
  function drawOutlines(context, scores, threshold, base, high, scale) {
    const wide = data.token * scale;
    const begin = Math.max(0, Math.floor(view.from / data.token));
    const last = Math.min(scores.length - 1, Math.floor(view.to / data.token));
    for (const above of [false, true]) {
      context.fillStyle = above ? colours.soft : colours.line;
      context.beginPath();
      let end = null; // of the outline so far
      for (let t = begin; t <= last; t++) {
        if (scores[t] < 0.01 || (above && !(scores[t] > threshold))) continue;
        const x = (t * data.token - view.from) * scale;
        if (end === null || x > end + 0.01) {
          if (end !== null) context.lineTo(end, base);
          context.moveTo(x, base);
        }
        context.lineTo(x, base - scores[t] * high);
        context.lineTo(x + wide, base - scores[t] * high);
        end = x + wide;
      }
      if (end !== null) context.lineTo(end, base);
      context.fill();
    }
  }

  function drawLane(context, lane, top, width, scale) {
    context.fillStyle = colours.line;
    context.fillRect(0, top + LANE - 0.5, width, 0.5);
    const scores = current.scores.get(lane.k);
    const base = top + 24;
    const high = 20;
    if (scores) {
      const { threshold, threshold_low: given } = rules[lane.k];
      const low = given === null ? threshold : Math.min(given, threshold);
      if (data.token * scale < 1) drawStrips(context, lane.k, base, high, scale);
      else drawOutlines(context, scores, threshold, base, high, scale);
      context.strokeStyle = colours.wrong;
      context.globalAlpha = 0.45;
      context.lineWidth = 1;
      for (const [value, dash] of low < threshold ? [[threshold, []], [low, [2, 3]]] : [[threshold, []]]) {
        context.setLineDash(dash);
        context.beginPath();
        context.moveTo(0, Math.round(base - value * high) + 0.5);
        context.lineTo(width, Math.round(base - value * high) + 0.5);
        context.stroke();
      }
      context.setLineDash([]);
      context.globalAlpha = 1;
    }
    const own = current.items.get(lane.label) ?? [];
    let drawnTo = -1;
    for (let i = 0; i < own.length && own[i].onset <= view.to; i++) {
      const item = own[i];
      if (item.offset < view.from) continue;
      const left = (item.onset - view.from) * scale;
      const wide = Math.max(2, (item.offset - item.onset) * scale);
      if (left + wide < drawnTo && item !== selected) continue;
      drawnTo = left + wide;
      drawEvent(context, item, left, top + 26, wide);
    }
    context.fillStyle = colours.reference;
    for (const one of current.referred.get(lane.label) ?? []) {
      if (one.offset < view.from || one.onset > view.to) continue;
      context.fillRect((one.onset - view.from) * scale, top + 35, Math.max(2, (one.offset - one.onset) * scale), 3);
    }
  }

  function drawEvent(context, item, left, top, wide) {
    const tone = colours[{ right: "right", wrong: "wrong", unsure: "unsure", other: "other", missed: "other" }[item.verdict] ?? "accent"];
    const hollow = item.verdict === "wrong" || item.verdict === "unsure";
    const radius = Math.min(2.5, wide / 2);
    context.beginPath();
    context.roundRect(left + (hollow ? 0.5 : 0), top + (hollow ? 0.5 : 0), Math.max(1, wide - (hollow ? 1 : 0)), hollow ? 6 : 7, radius);
    context.fillStyle = context.strokeStyle = tone;
    context.lineWidth = 1;
    if (hollow) {
      if (item.verdict === "unsure") context.setLineDash([3, 2]);
      context.stroke();
      context.setLineDash([]);
    } else context.fill();
    if (item.verdict && wide > 14) {
      context.font = "700 8px system-ui, sans-serif";
      context.textBaseline = "middle";
      context.fillStyle = hollow ? tone : colours.paper;
      context.fillText(MARKS[item.verdict], left + 4, top + 4);
    }
    if (item === selected) {
      context.strokeStyle = colours.ink;
      context.lineWidth = 1.5;
      context.strokeRect(left - 1.5, top - 2, wide + 3, 11);
    }
  }

  /* ---- the list --------------------------------------------------------------------------------------- */

  const list = $("list");
  const rows = new Map();

  function drawList() {
    const size = sizes.get(list) ?? { height: list.clientHeight };
    $("list-space").style.height = `${shown.length * ROW}px`;
    const first = Math.max(0, Math.floor(list.scrollTop / ROW) - 3);
    const last = Math.min(shown.length - 1, Math.ceil((list.scrollTop + size.height) / ROW) + 3);
    const wantedRows = new Set();
    for (let i = first; i <= last; i++) wantedRows.add(i);
    for (const [i, one] of rows) if (!wantedRows.has(i)) { one.node.remove(); rows.delete(i); }
    for (let i = first; i <= last; i++) {
      const item = shown[i];
      let one = rows.get(i);
      if (!one) {
        one = { node: listRow(), item: null };
        one.node.id = `event${i}`;
        one.node.style.top = `${i * ROW}px`;
        rows.set(i, one);
        list.append(one.node);
      }
      if (one.item !== item) fillRow(one.node, item, i);
      one.item = item;
      one.node.setAttribute("aria-selected", String(item === selected));
    }
    const place = shown.indexOf(selected);
    if (place >= 0) list.setAttribute("aria-activedescendant", `event${place}`);
    else list.removeAttribute("aria-activedescendant");
    const old = list.querySelector("p");
    if (!shown.length && !old) list.append(element("p", { text: "" }));
    if (shown.length) old?.remove();
    else list.querySelector("p").textContent = items.length ? "No event fits these filters." : recordings.every((one) => one.ready) ? "No events were found." : "Reading…";
    for (const button of document.querySelectorAll("[data-verdict]")) {
      button.disabled = !selected;
      button.setAttribute("aria-pressed", String(Boolean(selected) && selected.verdict === button.dataset.verdict));
      button.className = button.getAttribute("aria-pressed") === "true" ? button.dataset.verdict : "";
    }
  }

  function listRow() {
    const node = element("div", { class: "item", role: "option" },
      element("span", { class: "mark" }), element("b"), element("span", { class: "score" }), element("small"),
      element("span", { class: "bar" }, element("i")));
    node.addEventListener("click", () => { const one = [...rows.values()].find((each) => each.node === node); select(one.item, true); });
    return node;
  }

  function fillRow(node, item, i) {
    const [mark, label, score, place, bar] = node.children;
    node.className = `item${item.verdict ? ` is-${item.verdict}` : ""}`;
    node.setAttribute("aria-setsize", shown.length);
    node.setAttribute("aria-posinset", i + 1);
    node.setAttribute("aria-label", `${about(item)}${item.verdict ? `, ${NAMES[item.verdict]}` : ""}${recordings.length > 1 ? `, ${item.of.name}` : ""}`);
    mark.className = `mark ${item.verdict}`;
    mark.textContent = MARKS[item.verdict] ?? "";
    label.textContent = item.verdict === "other" && item.judged.detected ? `${item.label} (not ${item.judged.detected.label})` : item.label;
    label.title = item.label;
    score.textContent = item.score === null ? "drawn" : item.score.toFixed(2);
    place.textContent = `${when(item.of, item.onset)} · ${(item.offset - item.onset).toFixed(1)} s${recordings.length > 1 ? ` · ${briefest(item.of)}` : ""}`;
    place.title = item.of.name;
    bar.hidden = item.score === null;
    bar.firstChild.style.width = `${100 * (item.score ?? 0)}%`;
  }

  function select(item, andPlay = false, keepView = false) {
    selected = item;
    if (!item) { draw(); return; }
    if (item.of !== current) open(item.of);
    const span = view.to - view.from;
    const inside = item.onset >= view.from && item.offset <= view.to;
    const long = item.offset - item.onset;
    if (!keepView && (!inside || long < span / 60)) {
      const wide = Math.min(current.duration, inside ? Math.max(long * 12, 20) : Math.max(Math.min(span, Math.max(20, long * 12)), long * 1.2));
      const middle = (item.onset + item.offset) / 2;
      look(middle - wide / 2, middle + wide / 2);
    }
    const lane = current.lanes.findIndex((one) => one.label === item.label);
    const row = $("lanes-row");
    if (lane >= 0 && (lane * LANE < row.scrollTop || (lane + 1) * LANE > row.scrollTop + row.clientHeight)) {
      row.scrollTop = lane * LANE - row.clientHeight / 2;
    }
    const place = shown.indexOf(item);
    if (place >= 0) {
      if (place * ROW < list.scrollTop) list.scrollTop = place * ROW;
      if ((place + 1) * ROW > list.scrollTop + list.clientHeight) list.scrollTop = (place + 1) * ROW - list.clientHeight;
    }
    if (andPlay) playItem();
    else seek(item.onset);
    if (!andPlay || document.activeElement !== list) say(about(item));
    draw();
  }

  function step(by) {
    if (!shown.length) { say("No events."); return; }
    let place = shown.indexOf(selected);
    if (place < 0) {
      place = shown.findIndex((item) => item.of.index > current.index || (item.of === current && item.onset >= position));
      place = by > 0 ? (place < 0 ? 0 : place) : (place < 0 ? shown.length : place) - 1;
    } else place += by;
    if (place < 0 || place >= shown.length) { say(by > 0 ? "That was the last event." : "That was the first event."); return; }
    select(shown[place], true);
  }

  /* ---- sound ------------------------------------------------------------------------------------------ */

  const sound = new Audio();
  sound.preload = "auto";
  let loaded = null;
  let until = null; // seconds of the recording where it stops; null: at the end
  let frame = 0;
  const addresses = new Map();

  async function load(recording) {
    if (!recording.audio) return false;
    if (loaded === recording) return true;
    loaded = recording;
    if (recording.audio.link !== undefined) sound.src = recording.audio.link;
    else {
      if (!addresses.has(recording)) {
        const blob = new Blob([await part(recording.audio.part)], { type: recording.audio.type });
        addresses.set(recording, URL.createObjectURL(blob));
        if (addresses.size > 3) {
          const [oldest, address] = addresses.entries().next().value;
          addresses.delete(oldest);
          URL.revokeObjectURL(address);
        }
      }
      sound.src = addresses.get(recording);
    }
    sound.playbackRate = Number($("speed").value);
    return true;
  }

  /** Seconds of the sound for seconds of the recording; where there is no sound, of what comes next. */
  function inSound(seconds) {
    const { stretches } = current.audio;
    if (!stretches) return seconds;
    const own = stretches.find(([begin, , long]) => seconds < begin + long) ?? null;
    return own ? own[1] + Math.max(0, seconds - own[0]) : sound.duration || 0;
  }

  function inRecording(seconds) {
    const { stretches } = current.audio;
    if (!stretches) return seconds;
    const own = stretches.find(([, place, long]) => seconds < place + long) ?? stretches[stretches.length - 1];
    return own[0] + seconds - own[1];
  }

  async function play(from, to = null) {
    const recording = current;
    if (!recording.audio) { say("This page holds no sound of this recording."); return; }
    until = to;
    await load(recording);
    sound.currentTime = inSound(from);
    sound.playbackRate = Number($("speed").value);
    try { await sound.play(); } catch (error) {
      if (error.name === "NotSupportedError" && recording.audio.link === undefined) notice("This browser cannot play the sound of this page.");
    }
  }

  function playItem() {
    if (!selected) return;
    if (selected.of !== current) open(selected.of);
    const padding = looping ? 0 : Math.min(0.3, selected.onset);
    position = selected.onset - padding;
    play(position, Math.min(current.duration, selected.offset + padding));
  }

  function togglePlay(onward = false) {
    if (!sound.paused) { sound.pause(); return; }
    const within = selected?.of === current && position >= selected.onset - 0.31 && position <= selected.offset + 0.31;
    if (selected && within && !onward) playItem();
    else play(position >= current.duration - 0.05 ? 0 : position);
  }

  function seek(seconds) {
    position = Math.max(0, Math.min(current.duration, seconds));
    if (loaded === current && current.audio) sound.currentTime = inSound(position);
    placeHead();
  }

  function tick() {
    frame = 0;
    if (sound.paused || loaded !== current) return;
    position = Math.min(current.duration, inRecording(sound.currentTime));
    if (until !== null && position >= until) {
      if (looping && selected) sound.currentTime = inSound(selected.onset);
      else { sound.pause(); position = Math.min(position, until); }
    }
    if (following && !gesture && (position > view.to || position < view.from)) {
      const span = view.to - view.from;
      look(position - 0.1 * span, position + 0.9 * span);
    }
    placeHead();
    frame = requestAnimationFrame(tick);
  }

  sound.addEventListener("play", () => { showPlaying(true); if (!frame) frame = requestAnimationFrame(tick); });
  sound.addEventListener("pause", () => { showPlaying(false); draw(); });
  sound.addEventListener("error", () => {
    if (!loaded) return;
    const unknown = sound.error.code === MediaError.MEDIA_ERR_SRC_NOT_SUPPORTED;
    notice(unknown ? "The sound cannot be played: its file is missing, or this browser does not know the format."
      : "This browser stopped to play: is there a loudspeaker?");
  });

  function showPlaying(playing) {
    $("play").setAttribute("aria-label", playing ? "Pause" : "Play");
    $("play").querySelector("path").setAttribute("d", playing ? "M4 2.5h3v11H4zM9.5 2.5h3v11h-3z" : "M4 2.5v11l9.5-5.5z");
  }

  function placeHead() {
    const width = sizes.get(spectrogram)?.width ?? spectrogram.clientWidth;
    const x = ((position - view.from) / (view.to - view.from)) * width;
    const head = $("playhead");
    head.hidden = x < 0 || x > width;
    head.style.transform = `translateX(${edges.left + x}px)`;
    head.style.top = `${edges.top}px`;
    head.style.height = `${edges.bottom - edges.top}px`;
    $("clock").textContent = when(current, position);
  }

  let edges = { left: 0, top: 0, bottom: 0 };

  function measure() {
    for (const canvas of [...canvases, $("lanes-row"), list]) sizes.set(canvas, { width: canvas.clientWidth, height: canvas.clientHeight });
    const stage = $("stage").getBoundingClientRect();
    const top = spectrogram.getBoundingClientRect();
    const bottom = $("lanes-row").getBoundingClientRect();
    edges = { left: top.left - stage.left, top: top.top - stage.top, bottom: bottom.bottom - stage.top };
    draw();
  }

  /* ---- moving about ----------------------------------------------------------------------------------- */

  function look(from, to) {
    const span = Math.min(current.duration, Math.max(SHORTEST, to - from));
    const middle = (from + to) / 2;
    const begin = Math.max(0, Math.min(current.duration - span, middle - span / 2));
    if (begin === view.from && begin + span === view.to) return;
    view = { from: begin, to: begin + span };
    draw("view");
  }

  function zoom(factor, around = null) {
    const middle = around ?? (position > view.from && position < view.to ? position : (view.from + view.to) / 2);
    const span = Math.min(current.duration, Math.max(SHORTEST, (view.to - view.from) * factor));
    const part = (middle - view.from) / (view.to - view.from);
    look(middle - part * span, middle + (1 - part) * span);
  }

  function timeAt(canvas, event) {
    const box = canvas.getBoundingClientRect();
    return view.from + ((event.clientX - box.left) / box.width) * (view.to - view.from);
  }

  function laneAt(event) {
    const row = $("lanes-row");
    const y = event.clientY - lanes.getBoundingClientRect().top + row.scrollTop;
    const i = Math.floor(y / LANE);
    return i >= 0 && i < current.lanes.length ? i : -1;
  }

  function itemAt(lane, seconds, slack) {
    const own = current.items.get(current.lanes[lane]?.label) ?? [];
    let best = null;
    for (const item of own) {
      if (item.onset - slack > seconds) break;
      if (item.offset + slack >= seconds && (!best || item.offset - item.onset < best.offset - best.onset)) best = item;
    }
    return best;
  }

  function edgeAt(canvas, event) {
    if (!selected || selected.of !== current) return null;
    if (canvas === lanes && current.lanes[laneAt(event)]?.label !== selected.label) return null;
    const scale = canvas.clientWidth / (view.to - view.from);
    const seconds = timeAt(canvas, event);
    const near = event.pointerType === "touch" ? 3 * NEAR : NEAR;
    const distances = [["onset", Math.abs(selected.onset - seconds) * scale], ["offset", Math.abs(selected.offset - seconds) * scale]];
    distances.sort((a, b) => a[1] - b[1]);
    return distances[0][1] <= near ? distances[0][0] : null;
  }

  let gesture = null;
  const fingers = new Map();

  function down(canvas, event) {
    if (event.button !== 0) return;
    canvas.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, event.clientX);
    if (fingers.size === 2) {
      const [a, b] = fingers.values();
      const box = canvas.getBoundingClientRect();
      const scale = (view.to - view.from) / box.width;
      gesture = { pinch: true, apart: Math.max(10, Math.abs(a - b)), span: view.to - view.from, at: view.from + ((a + b) / 2 - box.left) * scale };
      return;
    }
    const edge = drawing ? null : edgeAt(canvas, event);
    gesture = {
      canvas, edge, x: event.clientX, from: view.from, to: view.to, moved: false,
      lane: canvas === lanes ? laneAt(event) : -1, begin: timeAt(canvas, event),
      drawn: drawing && (canvas === spectrogram || laneAt(event) >= 0) ? { onset: timeAt(canvas, event), offset: timeAt(canvas, event) } : null,
    };
    if (edge) remember();
  }

  function move(canvas, event) {
    if (fingers.has(event.pointerId)) fingers.set(event.pointerId, event.clientX);
    if (!gesture) { hover(canvas, event); return; }
    if (gesture.pinch) {
      if (fingers.size < 2) return;
      const [a, b] = fingers.values();
      const box = canvas.getBoundingClientRect();
      const span = Math.min(current.duration, Math.max(SHORTEST, (gesture.span * gesture.apart) / Math.max(10, Math.abs(a - b))));
      const part = ((a + b) / 2 - box.left) / box.width;
      look(gesture.at - part * span, gesture.at + (1 - part) * span);
      return;
    }
    if (gesture.canvas !== canvas) return;
    if (Math.abs(event.clientX - gesture.x) > 4) gesture.moved = true;
    if (!gesture.moved) return;
    const seconds = Math.max(0, Math.min(current.duration, timeAt(canvas, event)));
    if (gesture.edge) dragEdge(gesture.edge, seconds);
    else if (gesture.drawn) {
      gesture.drawn = { onset: Math.min(gesture.begin, seconds), offset: Math.max(gesture.begin, seconds) };
      draw("view");
    } else {
      const shift = ((gesture.x - event.clientX) / canvas.clientWidth) * (gesture.to - gesture.from);
      look(gesture.from + shift, gesture.to + shift);
    }
  }

  function dragEdge(edge, seconds) {
    const bounds = { onset: selected.onset, offset: selected.offset };
    bounds[edge] = Math.round(seconds * 1000) / 1000;
    if (bounds.offset - bounds.onset < 0.02) return;
    record(selected, bounds);
    Object.assign(selected, bounds, { verdict: selected.judged.verdict });
    draw();
  }

  function nudge(edge, by) {
    if (!selected) return;
    remember();
    dragEdge(edge, Math.max(0, Math.min(current.duration, selected[edge] + by)));
    changed();
    say(`${edge} ${when(current, selected[edge], 2)}`);
  }

  function up(canvas, event) {
    fingers.delete(event.pointerId);
    const done = gesture;
    if (!done || (done.pinch && fingers.size)) return;
    gesture = null;
    if (done.pinch || done.canvas !== canvas || event.type === "pointercancel") { draw(); return; }
    if (done.edge) {
      if (done.moved) changed();
      else past.pop();
      return;
    }
    if (done.drawn) {
      if (done.drawn.offset - done.drawn.onset >= 0.02) finishDrawing(done);
      draw();
      return;
    }
    if (done.moved) return;
    const item = done.lane >= 0 ? itemAt(done.lane, done.begin, (4 * (view.to - view.from)) / canvas.clientWidth) : null;
    if (item) select(item, true, true);
    else {
      seek(done.begin);
      play(position);
      draw();
    }
  }

  function finishDrawing(done, label = current.lanes[done.lane]?.label) {
    if (!label) { ask(selected?.label ?? "", (given) => finishDrawing(done, given)); return; }
    remember();
    const round = (value) => Math.round(value * 1000) / 1000;
    const event = {
      recording: current.name, onset: round(done.drawn.onset), offset: round(done.drawn.offset), label, score: null,
      verdict: "missed", detected: null,
    };
    review.events.push(event);
    setDrawing(false);
    changed();
    const item = items.find((one) => one.judged === event);
    if (item) select(item, false, true);
    say(`Drawn: ${label}, ${clock(event.onset)} to ${clock(event.offset)}.`);
  }

  /** A missed event of a second from the playhead on, without a pointer; keys then move its edges. */
  function addEvent() {
    const onset = Math.max(0, Math.min(position, current.duration - 1));
    finishDrawing({ lane: -1, drawn: { onset, offset: Math.min(current.duration, onset + 1) } });
  }

  function hover(canvas, event) {
    const tip = $("tip");
    const item = canvas === lanes ? itemAt(laneAt(event), timeAt(canvas, event), 0) : null;
    canvas.style.cursor = !drawing && edgeAt(canvas, event) ? "ew-resize" : "";
    const stage = $("stage").getBoundingClientRect();
    if (item) tip.textContent = `${about(item)}${item.verdict ? ` · ${NAMES[item.verdict]}` : ""}`;
    else if (canvas === spectrogram && event.pointerType === "mouse") {
      const box = canvas.getBoundingClientRect();
      tip.textContent = `${when(current, timeAt(canvas, event), 2)} · ${hertz(1 - (event.clientY - box.top) / box.height)}`;
    } else { tip.hidden = true; return; }
    tip.hidden = false;
    const left = event.clientX - stage.left + 12;
    tip.style.left = `${Math.min(left, stage.width - tip.offsetWidth - 4)}px`;
    tip.style.top = `${event.clientY - stage.top - 28}px`;
  }

  function hertz(place) {
    const ticks = current.spectrogram.ticks;
    if (ticks.length < 2) return "";
    let i = 0;
    while (i + 2 < ticks.length && ticks[i + 1][1] < place) i++;
    const [[f0, p0], [f1, p1]] = [ticks[i], ticks[i + 1]];
    const part = (place - p0) / (p1 - p0);
    const value = f0 >= 1000 ? f0 * (f1 / f0) ** part : f0 + (f1 - f0) * part;
    return `${Math.max(0, Math.round(value / 10) * 10).toLocaleString("en")} Hz`;
  }

  function setDrawing(on) {
    drawing = on;
    document.body.classList.toggle("drawing", on);
    $("draw").setAttribute("aria-pressed", String(on));
    if (on) say("Drag over a lane or the spectrogram to draw an event.");
  }

  for (const canvas of [spectrogram, lanes]) {
    canvas.addEventListener("pointerdown", (event) => down(canvas, event));
    canvas.addEventListener("pointermove", (event) => move(canvas, event));
    canvas.addEventListener("pointerup", (event) => up(canvas, event));
    canvas.addEventListener("pointercancel", (event) => up(canvas, event));
    canvas.addEventListener("pointerleave", () => { $("tip").hidden = true; });
    canvas.addEventListener("wheel", (event) => {
      const sideways = event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY);
      if (canvas === lanes && !sideways && !event.ctrlKey) return; // scrolls the lanes
      event.preventDefault();
      const pixels = event.deltaMode === 1 ? 16 : 1;
      if (sideways) {
        const by = ((event.deltaX || event.deltaY) * pixels * (view.to - view.from)) / canvas.clientWidth;
        look(view.from + by, view.to + by);
      } else zoom(Math.exp(Math.max(-1, Math.min(1, (event.deltaY * pixels) / 400))), timeAt(canvas, event));
    }, { passive: false });
  }

  function glance(event) {
    const box = overview.getBoundingClientRect();
    const middle = ((event.clientX - box.left) / box.width) * current.duration;
    const span = view.to - view.from;
    look(middle - span / 2, middle + span / 2);
  }
  overview.addEventListener("pointerdown", (event) => { overview.setPointerCapture(event.pointerId); glance(event); });
  overview.addEventListener("pointermove", (event) => { if (event.buttons) glance(event); });
  $("lanes-row").addEventListener("scroll", () => draw("view"));
  list.addEventListener("scroll", () => draw("list"));

  /* ---- recordings ------------------------------------------------------------------------------------- */

  function open(recording) {
    if (!sound.paused) sound.pause();
    current = recording;
    position = 0;
    view = { from: 0, to: Math.min(recording.duration, 60) || 1 };
    $("name").textContent = recording.name;
    $("name").title = recording.name;
    document.title = recordings.length > 1 ? `${recording.name} · ${data.title}` : data.title;
    facts();
    const column = $("frequencies");
    column.textContent = "";
    for (const [frequency, place] of [...recording.spectrogram.ticks].reverse()) {
      const tick = element("span", { text: frequency >= 1000 ? `${frequency / 1000} kHz` : `${frequency} Hz` });
      tick.style.bottom = `${100 * place}%`;
      column.append(tick);
    }
    const { top, span } = range();
    $("level").value = top;
    $("range").value = span;
    stamp++;
    for (const button of document.querySelectorAll("[data-recording]")) {
      button.setAttribute("aria-current", String(Number(button.dataset.recording) === recording.index));
    }
    for (const id of ["play", "loop", "speed"]) $(id).disabled = !recording.audio;
    laneLabels();
    measure();
  }

  function facts() {
    const { duration, started, audio } = current;
    const parts = [clock(duration, duration < 60 ? 1 : 0)];
    if (started !== null) parts.push(dated(started));
    if (!audio) parts.push("without sound");
    else if (audio.stretches) {
      const kept = audio.stretches.reduce((sum, [, , long]) => sum + long, 0);
      if (kept < duration - 1) parts.push(`sound of ${clock(kept, 0)} around events`);
    }
    $("facts").textContent = parts.join(" · ");
  }

  function showRecordings(on) {
    $("recordings").hidden = !on;
    $("toggle-recordings").setAttribute("aria-expanded", String(on));
  }

  function listRecordings() {
    if (recordings.length < 2) return;
    $("toggle-recordings").hidden = false;
    showRecordings(!matchMedia("(max-width: 760px)").matches);
    for (const one of recordings) {
      const button = element("button", { type: "button", "data-recording": one.index, "aria-current": "false" },
        element("b", { text: short(one), title: one.name }), element("small", {}, element("span"), element("span", { text: clock(one.duration, 0) })),
        one.started === null ? "" : element("small", { text: dated(one.started) }), element("canvas", { "aria-hidden": "true" }));
      button.addEventListener("click", () => { select(null); open(one); });
      one.button = button;
      $("recording-list").append(element("li", {}, button));
      $("filter-recording").append(element("option", { value: one.index, text: short(one) }));
    }
    $("filter-recording").prepend(element("option", { value: "", text: "every recording", selected: "" }));
    $("filter-recording").hidden = false;
  }

  /** Count and sparkline of a recording in the index: the share of each stretch that events cover. */
  function spark(recording) {
    if (!recording.button) return;
    recording.button.querySelector("span").textContent = count(recording.count, "event", "events");
    const canvas = recording.button.querySelector("canvas");
    const bins = new Float32Array(96);
    for (const own of recording.items.values()) {
      for (const item of own) {
        const first = (item.onset / recording.duration) * bins.length;
        const last = (item.offset / recording.duration) * bins.length;
        for (let b = Math.floor(first); b < Math.min(bins.length, last); b++) bins[b] += Math.min(last, b + 1) - Math.max(first, b);
      }
    }
    const most = Math.max(1, ...bins);
    canvas.width = 192;
    canvas.height = 28;
    const context = canvas.getContext("2d");
    context.fillStyle = colours.accent;
    bins.forEach((value, b) => { if (value > 0) context.fillRect(2 * b, 28 - Math.max(2, (value / most) * 28), 1.5, 28); });
  }

  /* ---- thresholds ------------------------------------------------------------------------------------- */

  function setRule(k, threshold) {
    if (rules[k].threshold === threshold) return;
    const given = data.rules[k].threshold_low;
    rules[k] = { ...data.rules[k], threshold, threshold_low: given === null ? null : Math.min(given, threshold) };
    for (const one of recordings) detect(one, k);
  }

  const sliders = new Map();

  function listSliders() {
    const found = data.labels.map((_, k) => k).filter((k) => recordings.some((one) => one.scores.has(k)));
    const best = (k) => Math.max(...recordings.map((one) => one.events.get(k)?.length ?? 0));
    found.sort((a, b) => best(b) - best(a) || (data.labels[a] < data.labels[b] ? -1 : 1));
    const box = $("sliders");
    const before = document.activeElement?.id;
    box.textContent = "";
    sliders.clear();
    for (const k of [-1, ...found]) {
      const id = `slider${k}`;
      const name = k < 0 ? "All classes" : data.labels[k];
      const input = element("input", { type: "range", id, min: LEAST, max: MOST, step: 0.01 });
      const line = element("li", {}, element("label", { for: id, text: name, title: name }), element("span", { class: "count" }), element("span"),
        ...(k < 0 ? [] : [element("canvas", { class: "spread", "aria-hidden": "true" }), element("span")]), input, element("output", { for: id }));
      input.addEventListener("input", () => {
        const value = input.valueAsNumber;
        for (const one of k < 0 ? found : [k]) setRule(one, value);
        pending = true;
        requestAnimationFrame(() => { if (pending) { pending = false; collect(); showSliders(); } });
      });
      input.addEventListener("change", keep);
      sliders.set(k, { line, input });
      box.append(line);
    }
    showSliders();
    if (before) $(before)?.focus();
  }

  let pending = false;

  function showSliders() {
    const values = [...sliders.keys()].filter((k) => k >= 0).map((k) => rules[k].threshold);
    for (const [k, { line, input }] of sliders) {
      const value = k < 0 ? (new Set(values).size === 1 ? values[0] : null) : rules[k].threshold;
      if (document.activeElement !== input || k >= 0) input.value = value ?? 0.5;
      line.querySelector("output").textContent = value === null ? "own" : value.toFixed(2);
      line.className = k >= 0 && rules[k].threshold !== data.rules[k].threshold ? "moved" : "";
      const total = recordings.reduce((sum, one) => sum + (k < 0 ? one.count ?? 0 : one.events.get(k)?.length ?? 0), 0);
      line.querySelector(".count").textContent = count(total, "event", "events");
      if (k >= 0) spread(line.querySelector("canvas"), k);
    }
  }

  /** How the scores of a class are spread along its slider, on a scale of square roots. */
  function spread(canvas, k) {
    const bins = new Float32Array(60);
    for (const one of recordings) {
      const scores = one.scores.get(k);
      if (scores) for (let t = 0; t < scores.length; t++) if (scores[t] >= LEAST) bins[Math.min(59, Math.floor(60 * (scores[t] - LEAST) / (MOST - LEAST)))]++;
    }
    const most = Math.max(1, ...bins);
    canvas.width = 240;
    canvas.height = 32;
    const context = canvas.getContext("2d");
    bins.forEach((value, b) => {
      if (!value) return;
      const high = Math.max(2, Math.sqrt(value / most) * 32);
      context.fillStyle = LEAST + (b + 0.5) / 60 * (MOST - LEAST) > rules[k].threshold ? colours.accent : colours.line;
      context.fillRect(4 * b, 32 - high, 3, high);
    });
  }

  function toml() {
    const base = data.post_processing;
    const classes = new Map(Object.entries(base.classes ?? {}).map(([label, own]) => [label, { ...own }]));
    data.labels.forEach((label, k) => {
      if (rules[k].threshold === data.rules[k].threshold) return;
      const own = classes.get(label) ?? {};
      own.threshold = rules[k].threshold;
      if (rules[k].threshold_low !== null) own.threshold_low = rules[k].threshold_low;
      classes.set(label, own);
    });
    const line = ([name, value]) => `${name} = ${Number.isInteger(value) ? value.toFixed(1) : value}\n`;
    let text = `# Post-processing of ${JSON.stringify(data.title)}, for htsat-sed detect --post-processing\n`;
    text += Object.entries(base).filter(([name]) => name !== "classes").map(line).join("");
    for (const [label, own] of classes) text += `\n[classes.${JSON.stringify(label).replace(/\u007f/g, "\\u007f")}]\n${Object.entries(own).map(line).join("")}`;
    return text;
  }

  /* ---- files ------------------------------------------------------------------------------------------ */

  function save(name, text, type) {
    const address = URL.createObjectURL(new Blob([text], { type: `${type};charset=utf-8` }));
    const link = element("a", { href: address, download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(address), 60_000);
    say(`${name} saved.`);
  }

  const stem = (name) => name.split("/").pop().replace(/[^\p{L}\p{N}._ -]/gu, "_").slice(0, 80) || "recording";

  /** Name of this page's file, without suffix. */
  function ownName() {
    const name = location.pathname.split("/").pop().replace(/\.html?$/i, "");
    try { return decodeURIComponent(name); } catch { return name; } // bytes that are no UTF-8
  }

  function open_() {
    return items.filter((item) => !item.judged).map((item) => ({ recording: item.of.name, onset: item.onset, offset: item.offset, label: item.label, score: item.score }));
  }

  function truth(recording) {
    const open = $("with-open").checked;
    return items.filter((item) => item.of === recording && (item.judged ? Review.TRUE.has(item.verdict) : open));
  }

  function exportAs(kind) {
    const page = recordings.length > 1 ? stem(ownName() || data.title) : stem(recordings[0].name);
    if (kind === "review") {
      save(`${page}.review.csv`, Review.table(review, open_()), "text/csv");
      unsaved = false;
    } else if (kind === "tsv") {
      const touched = new Set([...review.events, ...review.stretches].map((one) => one.recording));
      const own = recordings.filter((one) => $("with-open").checked || touched.has(one.name)).map((one) => [one.name, truth(one)]);
      save(`${page}.tsv`, Review.desed(own), "text/tab-separated-values");
    } else if (kind === "audacity") save(`${stem(current.name)}.txt`, Review.audacity(truth(current)), "text/plain");
    else save(`${stem(current.name)}.selections.txt`, Review.raven(current.name, truth(current)), "text/plain");
  }

  const bare = (name) => name.split("/").pop().replace(/\.[^.]+$/, "");

  /** Name on this page of a recording that another table calls so. */
  function known(name) {
    if (recordings.some((one) => one.name === name)) return name;
    const fitting = recordings.filter((one) => bare(one.name) === bare(name));
    return fitting.length === 1 ? fitting[0].name : name;
  }

  async function importFrom(file) {
    let given;
    try {
      // Excel's plain CSV is Windows-1252: read as UTF-8, its labels would be damaged.
      const text = new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
      given = Review.read(text);
    } catch (error) {
      const reason = error instanceof TypeError ? "not UTF-8 text; in Excel, save it as CSV UTF-8" : error.message;
      notice(`${file.name} cannot be imported: ${reason}.`);
      return;
    }
    remember();
    for (const one of [...given.events, ...given.stretches]) one.recording = known(one.recording);
    const same = (a, b) => a.recording === b.recording && (a.detected && b.detected
      ? a.detected.label === b.detected.label && alike(a.detected, b.detected)
      : !a.detected && !b.detected && a.label === b.label && alike(a, b));
    review.events = [...review.events.filter((one) => !given.events.some((other) => same(one, other))), ...given.events];
    review.stretches.push(...given.stretches);
    changed();
    const here = given.events.filter((one) => recordings.some((each) => each.name === one.recording)).length;
    const elsewhere = given.events.length - here;
    notice(`Imported ${count(here, "verdict", "verdicts")} from ${file.name}${elsewhere ? `; ${count(elsewhere, "other is", "others are")} about recordings that this page does not hold` : ""}.`);
  }

  /* ---- controls --------------------------------------------------------------------------------------- */

  const clicks = {
    play: () => togglePlay(), next: () => step(1), previous: () => step(-1), in: () => zoom(0.5), out: () => zoom(2),
    whole: () => look(0, current.duration), draw: () => setDrawing(!drawing), listened: toggleListened,
    loop: () => setLoop(!looping), follow: () => setFollow(!following),
    "open-export": () => {
      const judged = review.events.length;
      $("export-facts").textContent = `${count(judged, "verdict", "verdicts")}, ${count(review.stretches.length, "stretch", "stretches")} listened to, ${count(items.filter((one) => !one.judged).length, "event", "events")} not judged.`;
      $("export-dialog").showModal();
    },
    "open-import": () => $("file").click(), "open-keys": () => $("keys-dialog").showModal(),
    "save-rules": () => save("thresholds.toml", toml(), "application/toml"),
    "reset-rules": () => { rules.forEach((_, k) => setRule(k, data.rules[k].threshold)); collect(); showSliders(); keep(); },
    "tab-events": () => tab("events"), "tab-thresholds": () => tab("thresholds"),
    "toggle-recordings": () => showRecordings($("recordings").hidden),
  };
  for (const [id, action] of Object.entries(clicks)) $(id).addEventListener("click", action);
  for (const button of document.querySelectorAll("[data-verdict]")) button.addEventListener("click", () => judge(button.dataset.verdict));

  // After a click, keys act on the events again: space would else press the button a second time.
  const toList = () => { if (!document.querySelector("dialog[open]")) list.focus({ preventScroll: true }); };
  for (const button of document.querySelectorAll(".transport button, .verdicts button")) {
    button.addEventListener("click", (event) => { if (event.detail > 0) toList(); });
  }
  let pointed = false; // by a pointer, not by keys
  document.addEventListener("pointerdown", () => { pointed = true; }, true);
  document.addEventListener("keydown", () => { pointed = false; }, true);
  for (const select of document.querySelectorAll("select")) select.addEventListener("change", () => { if (pointed) toList(); });
  for (const button of document.querySelectorAll("[data-export]")) button.addEventListener("click", () => exportAs(button.dataset.export));
  for (const id of ["filter-class", "filter-verdict", "filter-recording", "filter-hour", "sort", "score-from", "score-to", "sample"]) {
    $(id).addEventListener("input", () => { arrange(); list.scrollTop = 0; });
  }
  $("file").addEventListener("change", () => { if ($("file").files[0]) importFrom($("file").files[0]); $("file").value = ""; });
  $("speed").addEventListener("change", () => { sound.playbackRate = Number($("speed").value); });
  for (const id of ["range", "level"]) {
    $(id).addEventListener("input", () => {
      current.tuned = { top: $("level").valueAsNumber, span: $("range").valueAsNumber };
      stamp++;
      draw("view");
    });
  }
  $("find-recording").addEventListener("input", () => {
    const text = $("find-recording").value.toLowerCase();
    for (const one of recordings) one.button.parentElement.hidden = !one.name.toLowerCase().includes(text);
  });

  function setLoop(on) { looping = on; $("loop").setAttribute("aria-pressed", String(on)); if (on && selected) playItem(); }
  function setFollow(on) { following = on; $("follow").setAttribute("aria-pressed", String(on)); }

  function tab(name) {
    for (const each of ["events", "thresholds"]) {
      $(each).hidden = each !== name;
      $(`tab-${each}`).setAttribute("aria-selected", String(each === name));
      $(`tab-${each}`).tabIndex = each === name ? 0 : -1;
    }
    if (name === "thresholds") listSliders();
    measure();
  }
  for (const [own, other] of [["events", "thresholds"], ["thresholds", "events"]]) {
    $(`tab-${own}`).addEventListener("keydown", (event) => {
      if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
      tab(other);
      $(`tab-${other}`).focus();
      event.stopPropagation();
    });
  }

  const span = () => view.to - view.from;
  const KEYS = {
    ArrowDown: () => step(1), n: () => step(1), ArrowUp: () => step(-1), p: () => step(-1),
    1: () => judge("right"), r: () => judge("right"), 2: () => judge("wrong"), w: () => judge("wrong"),
    3: () => judge("unsure"), u: () => judge("unsure"), 4: () => judge("other"), o: () => judge("other"),
    a: addEvent, Backspace: takeBack, Delete: takeBack, z: undo, d: () => setDrawing(!drawing), h: toggleListened,
    l: () => setLoop(!looping), f: () => setFollow(!following), "+": () => zoom(0.5), "=": () => zoom(0.5), "-": () => zoom(2),
    0: () => look(0, current.duration), "?": () => $("keys-dialog").showModal(),
    ",": () => nudge("onset", -0.05), ".": () => nudge("onset", 0.05), "<": () => nudge("offset", -0.05), ">": () => nudge("offset", 0.05),
    ";": () => nudge("offset", -0.05), ":": () => nudge("offset", 0.05),
    Escape: () => { if (drawing) setDrawing(false); else if (!sound.paused) sound.pause(); else select(null); },
    Enter: () => playItem(), Home: () => seekAndLook(0), End: () => seekAndLook(current.duration),
  };

  function seekAndLook(seconds) {
    seek(seconds);
    if (position < view.from || position > view.to) look(position - 0.1 * span(), position + 0.9 * span());
    draw();
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    const target = event.target;
    const slides = target.matches("input[type=range]") && !/^(Arrow|Page|Home|End)/.test(event.key); // it needs no others
    if (target.matches("input, select, textarea") && event.key !== "Escape" && !slides) return;
    const onButton = target.matches("button");
    if (event.key === " " || event.key === "Enter") {
      if (onButton) return;
      event.preventDefault();
      if (event.key === " ") togglePlay(event.shiftKey);
      else playItem();
      return;
    }
    if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
      const by = (event.key === "ArrowLeft" ? -1 : 1) * (event.shiftKey ? 0.9 * span() : 1);
      event.preventDefault();
      seekAndLook(position + by);
      return;
    }
    const action = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (action) { event.preventDefault(); action(); }
  });

  /* ---- print ------------------------------------------------------------------------------------------ */

  addEventListener("beforeprint", () => {
    printing = true;
    theme();
    laneLabels();
    measure();
    drawStale(); // now: the next frame comes too late
    const body = element("tbody");
    for (const item of shown.slice(0, 2000)) {
      body.append(element("tr", {}, ...[item.of.name, when(item.of, item.onset), when(item.of, item.offset), item.label,
        item.score === null ? "" : item.score.toFixed(2), NAMES[item.verdict] ?? ""].map((text) => element("td", { text }))));
    }
    const head = element("tr", {}, ...["recording", "onset", "offset", "label", "score", "verdict"].map((text) => element("th", { text })));
    $("printed").replaceChildren(element("table", {}, element("thead", {}, head), body));
  });
  addEventListener("afterprint", () => { printing = false; $("printed").replaceChildren(); laneLabels(); theme(); });

  /* ---- addresses -------------------------------------------------------------------------------------- */

  /** Go to the place in the address: #recording=a.wav&class=Dog&t=12.5-15 in seconds; without t, list one class. */
  function goToFragment() {
    const asked = new URLSearchParams(location.hash.slice(1));
    const name = asked.get("recording");
    const one = name === null ? current : recordings.find((each) => each.name === known(name));
    if (!one) { notice(`This page has no recording ${name}.`); return; }
    if (one !== current) open(one);
    const label = asked.get("class");
    const stretch = /^(\d+(?:\.\d+)?)(?:[-,](\d+(?:\.\d+)?))?$/.exec(asked.get("t") ?? "");
    if (!stretch) {
      if (items.some((item) => item.label === label)) {
        $("filter-class").value = label;
        arrange();
      }
      return;
    }
    const onset = Math.min(one.duration, Number(stretch[1]));
    const offset = Math.min(one.duration, Math.max(onset, Number(stretch[2] ?? stretch[1])));
    const wide = Math.max(20, 3 * (offset - onset));
    look((onset + offset - wide) / 2, (onset + offset + wide) / 2);
    const near = items.filter((item) => item.of === one && (!label || item.label === label) && overlap(item, { onset, offset }) > 0);
    near.sort((a, b) => Math.abs(a.onset - onset) + Math.abs(a.offset - offset) - Math.abs(b.onset - onset) - Math.abs(b.offset - offset));
    if (near.length) select(near[0], false, true);
    else seek(onset);
    draw();
  }

  /* ---- beginning -------------------------------------------------------------------------------------- */

  async function begin() {
    for (const one of recordings) {
      one.scores0 = one.scores0 ?? data.recordings[one.index].scores;
      one.scores = new Map();
      one.peaks = decoded(one.peaks);
      one.started = begins(one);
      one.count = 0;
    }
    recall();
    listRecordings();
    theme();
    open(recordings[0]);
    collect();
    goToFragment(); // now, and again once there are events to select
    const begun = view;
    let drawn = performance.now();
    for (const one of recordings) {
      await loadScores(one);
      if (performance.now() - drawn > 200) {
        collect();
        recordings.forEach((each) => { if (each.ready) spark(each); });
        drawn = performance.now();
      }
    }
    collect();
    recordings.forEach(spark);
    if (!$("thresholds").hidden) listSliders();
    if (view === begun) goToFragment();
    addEventListener("hashchange", goToFragment);
    document.documentElement.dataset.ready = "true";
  }

  dark.addEventListener("change", () => { theme(); recordings.forEach(spark); });
  new ResizeObserver(measure).observe($("stage"));
  new ResizeObserver(measure).observe(list);
  begin();
})();
