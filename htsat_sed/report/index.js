/* The index of a folder of pages: recordings, with their events by class and time. */
"use strict";

(() => {
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("data").textContent);
  const HEADS = [["name", "Recording"], ["begins", "Begins"], ["duration", "Duration"], ["events", "Events"], ["share", "Covered"], ["line", "Over time"]];
  const dated = data.recordings.some((one) => one.begins !== null);
  let chosen = null; // a class
  let period = null; // from the address: { first, last (days since 1970), hour, site, text }
  let order = { by: dated ? "begins" : "name", down: false };

  const element = (tag, attributes = {}, ...children) => {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name === "text") made.textContent = value;
      else made.setAttribute(name, value);
    }
    made.append(...children);
    return made;
  };
  const count = (n, one, many) => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;

  function clock(seconds) {
    const whole = Math.round(seconds);
    const rest = `${String(Math.floor(whole / 60) % 60).padStart(whole >= 3600 ? 2 : 1, "0")}:${String(whole % 60).padStart(2, "0")}`;
    return whole >= 3600 ? `${Math.floor(whole / 3600)}:${rest}` : rest;
  }

  const DAY = 86_400_000;

  /** Milliseconds of the wall clock, as if it were UTC, so that no time zone moves it; NaN if unknown. */
  const wall = (text) => Date.parse(`${(text ?? "").slice(0, 23)}Z`);

  /** Whether a moment of a recording, in seconds, is in the period that the address asks for. */
  function inPeriod(recording, seconds) {
    if (period === null) return true;
    if (period.site && period.site !== recording.site) return false;
    if (period.first === null && period.hour === null) return true;
    const moment = wall(recording.begins) + 1000 * seconds;
    const day = Math.floor(moment / DAY);
    return !Number.isNaN(moment) && (period.first === null || (day >= period.first && day <= period.last))
      && (period.hour === null || Math.floor((moment / 3_600_000) % 24) === period.hour);
  }

  const own = (recording) => recording.events.filter(([onset, , k]) => (chosen === null || k === chosen) && inPeriod(recording, onset));

  /** Address of a recording's page; it opens at the class and the period that are chosen here. */
  function address(recording, events) {
    const values = {};
    if (chosen !== null) values.class = data.labels[chosen];
    if (period !== null && events.length) values.t = `${events[0][0].toFixed(2)}-${events[0][1].toFixed(2)}`;
    const fragment = new URLSearchParams(values).toString();
    return fragment ? `${recording.link}#${fragment}` : recording.link;
  }

  /** Choose the class and the period that the address asks for: #class=Dog&date=2026-05-12&hour=04&site=meadow. */
  function goToFragment() {
    const asked = new URLSearchParams(location.hash.slice(1));
    const label = data.labels.indexOf(asked.get("class"));
    chosen = label < 0 ? null : label;
    const [first, last = first] = (asked.get("date") ?? "").split(",");
    const days = [first, last].map((day) => Date.parse(`${day}T00:00Z`) / DAY);
    const hour = /^([01]?\d|2[0-3])$/.test(asked.get("hour") ?? "") ? Number(asked.get("hour")) : null;
    const site = asked.get("site") ?? "";
    const known = days.every(Number.isFinite);
    const texts = [site, known ? (first === last ? first : `${first} to ${last}`) : "",
      hour === null ? "" : `${String(hour).padStart(2, "0")}:00 to ${String(hour).padStart(2, "0")}:59`];
    const text = texts.filter(Boolean).join(", ");
    period = text ? { first: known ? days[0] : null, last: known ? days[1] : null, hour, site, text } : null;
    if (period !== null) $("least").value = 1;
    draw();
  }

  /** Seconds that events cover, counted once where they overlap; events are in order of their onset. */
  function covered(events) {
    let [sum, reached] = [0, 0];
    for (const [onset, offset] of events) {
      sum += Math.max(0, offset - Math.max(onset, reached));
      reached = Math.max(reached, offset);
    }
    return sum;
  }

  function line(canvas, recording, events) {
    const style = getComputedStyle(document.documentElement);
    const bins = new Float32Array(180);
    for (const [onset, offset] of events) {
      const first = (onset / recording.duration) * bins.length;
      const last = Math.max(first + 0.2, (offset / recording.duration) * bins.length);
      for (let b = Math.floor(first); b < Math.min(bins.length, last); b++) bins[b] += Math.min(last, b + 1) - Math.max(first, b);
    }
    const most = Math.max(1, ...bins);
    canvas.width = 720;
    canvas.height = 56;
    const context = canvas.getContext("2d");
    context.fillStyle = style.getPropertyValue("--line");
    context.fillRect(0, 54, 720, 2);
    context.fillStyle = style.getPropertyValue("--accent");
    bins.forEach((value, b) => { if (value > 0) context.fillRect(4 * b, 54 - Math.max(4, (value / most) * 54), 3, 56); });
  }

  function draw() {
    const text = $("find").value.toLowerCase();
    const rows = data.recordings.map((recording) => {
      const events = own(recording);
      return { recording, list: events, address: address(recording, events), name: recording.name, begins: recording.begins ?? "\uffff", duration: recording.duration,
        events: events.length, share: covered(events) / recording.duration };
    }).filter((row) => row.name.toLowerCase().includes(text) && row.events >= ($("least").valueAsNumber || 0));
    rows.sort((a, b) => (a[order.by] < b[order.by] ? -1 : a[order.by] > b[order.by] ? 1 : 0) * (order.down ? -1 : 1));
    const unread = data.unread.filter(([name]) => name.toLowerCase().includes(text) && period === null && !($("least").valueAsNumber > 0));
    const columns = HEADS.filter(([id]) => id !== "begins" || dated);
    $("rows").replaceChildren(...rows.map((row) => {
      const canvas = element("canvas", { role: "img", "aria-label": `${count(row.events, "event", "events")} over time` });
      line(canvas, row.recording, row.list);
      const cells = {
        name: element("td", {}, element("a", { href: row.address, text: row.name, title: row.name })),
        begins: element("td", { text: (row.recording.begins ?? "").replace("T", " ").slice(0, 16) }),
        duration: element("td", { class: "number length", text: clock(row.duration) }),
        events: element("td", { class: "number", text: row.events.toLocaleString("en") }),
        share: element("td", { class: "number share", text: `${Math.round(100 * row.share)} %` }),
        line: element("td", { class: "line" }, canvas),
      };
      return element("tr", {}, ...columns.map(([id]) => cells[id]));
    }), ...unread.map(([name, reason]) => element("tr", { class: "unread" }, element("td", { text: name, title: name }),
      element("td", { colspan: columns.length - 1, text: `not read: ${reason}` }))));
    $("none").hidden = rows.length + unread.length > 0;
    $("period").hidden = period === null;
    $("period").textContent = `${period?.text} ✕`;
    $("period").setAttribute("aria-label", `Only ${period?.text}: show all times and sites`);
    $("listed").textContent = rows.length === data.recordings.length ? "" : `${rows.length} of ${count(data.recordings.length, "recording", "recordings")}`;
    for (const head of $("heads").children) {
      const by = head.dataset.by;
      head.setAttribute("aria-sort", by !== order.by ? "none" : order.down ? "descending" : "ascending");
    }
    for (const button of $("classes").children) {
      button.setAttribute("aria-pressed", String(button.dataset.k === String(chosen ?? "")));
    }
  }

  const totals = new Map();
  for (const recording of data.recordings) for (const [, , k] of recording.events) totals.set(k, (totals.get(k) ?? 0) + 1);
  const all = [...totals.values()].reduce((sum, n) => sum + n, 0);
  const seconds = data.recordings.reduce((sum, one) => sum + one.duration, 0);
  $("name").textContent = data.title;
  $("facts").textContent = `${count(data.recordings.length, "recording", "recordings")} · ${clock(seconds)} · ${count(all, "event", "events")}${data.unread.length ? ` · ${data.unread.length.toLocaleString("en")} not read` : ""}`;
  for (const [id, text] of HEADS) {
    if (id === "begins" && !dated) continue;
    const head = element("th", { scope: "col", "data-by": id, class: { duration: "length" }[id] ?? id });
    if (id === "line") head.textContent = text;
    else {
      const button = element("button", { type: "button", text });
      button.addEventListener("click", () => {
        order = { by: id, down: order.by === id ? !order.down : id === "events" || id === "share" || id === "duration" };
        draw();
      });
      head.append(button);
    }
    $("heads").append(head);
  }
  for (const [k, n] of [["", all], ...[...totals].sort((a, b) => b[1] - a[1])]) {
    const button = element("button", { type: "button", "data-k": k }, element("span", { text: k === "" ? "All classes" : data.labels[k] }), element("small", { text: n.toLocaleString("en") }));
    button.addEventListener("click", () => { chosen = k === "" || chosen === k ? null : k; draw(); });
    $("classes").append(button);
  }
  $("period").addEventListener("click", () => { period = null; $("least").value = 0; draw(); $("find").focus(); });
  addEventListener("hashchange", goToFragment);
  for (const id of ["find", "least"]) $(id).addEventListener("input", draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  goToFragment();
  document.documentElement.dataset.ready = "true";
})();
