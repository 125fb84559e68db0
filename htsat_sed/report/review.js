/* A review: verdicts on events, missed events, stretches that were listened to; and its tables.
 * docs/report.md describes the columns of the review table; htsat_sed/annotations writes cells the same way. */
"use strict";

const Review = (() => {
  const COLUMNS = [
    "filename", "onset", "offset", "event_label", "score", "verdict",
    "detected_onset", "detected_offset", "detected_label", "heard",
  ];
  const VERDICTS = new Set(["right", "wrong", "unsure", "other", "missed"]);
  const TRUE = new Set(["right", "other", "missed"]);
  const LISTENED = "listened";
  const ANY = "*"; // in a cell of `heard`: any label
  const CONTROL = "\\u0000-\\u001f\\u007f\\u0085\\u2028\\u2029";
  const FORMULA = /^['\s]*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]/;

  const code = (found) => `\\u${found.charCodeAt(0).toString(16).padStart(4, "0")}`;
  const escape = (text, also = "") => text.replace(new RegExp(`[\\p{Cs}${also}]|\\\\(?=u[0-9a-f]{4})`, "gu"), code);
  const escapeEnds = (text) => text.replace(/^\s|\s$/g, code);
  const unescape = (text) => text.replace(/\\u([0-9a-f]{4})/g, (_, hex) => String.fromCharCode(parseInt(hex, 16)));

  function row(cells, delimiter) {
    return `${cells.map((cell) => {
      const guarded = cell[0] === "'" && FORMULA.test(cell) ? `'${cell}` : cell;
      const text = escapeEnds(escape(guarded));
      return text.startsWith(" ") || [delimiter, '"', "\r", "\n"].some((c) => text.includes(c))
        ? `"${text.replaceAll('"', '""')}"` : text;
    }).join(delimiter)}\n`;
  }

  function plain(cell) {
    const text = unescape(cell.trim());
    return text[0] === "'" && FORMULA.test(text) ? text.slice(1) : text;
  }

  /** Onset and offset as texts; an event of less than a step keeps one. */
  function times(event, decimals) {
    const onset = event.onset.toFixed(decimals);
    const offset = event.offset.toFixed(decimals);
    return offset > onset || Number(offset) > Number(onset)
      ? [onset, offset] : [onset, (Number(onset) + 10 ** -decimals).toFixed(decimals)];
  }

  /** What of a stretch remains without spans, such as events that nobody is sure of. */
  function without(stretch, spans) {
    let parts = [[stretch.onset, stretch.offset]];
    for (const span of spans) {
      parts = parts.flatMap(([a, b]) => (span.offset <= a || span.onset >= b
        ? [[a, b]] : [[a, span.onset], [span.offset, b]])).filter(([a, b]) => b - a > 1e-3);
    }
    return parts;
  }

  const A_CELL = 100; // spreadsheets cut cells of more than 32767 characters

  /** Rows that say what was listened to; they are apart from events, so that no other table has them by chance. */
  function heardRows(review) {
    const heard = new Map();
    const add = (name, label, event) => {
      if (!heard.has(name)) heard.set(name, []);
      heard.get(name).push([label, ...times(event, 3).map(Number)]);
    };
    for (const event of review.events) {
      if (event.detected && event.verdict !== "unsure") add(event.recording, event.detected.label, event.detected);
    }
    for (const stretch of review.stretches) {
      const unsure = review.events.filter((e) => e.recording === stretch.recording && e.verdict === "unsure");
      const parts = without(stretch, unsure.map((e) => e.detected ?? e));
      for (const [onset, offset] of parts) add(stretch.recording, ANY, { onset, offset });
    }
    return [...heard].flatMap(([name, own]) => {
      const rows = [];
      for (let i = 0; i < own.length; i += A_CELL) {
        rows.push(row([name, "", "", "", "", "", "", "", "", JSON.stringify(own.slice(i, i + A_CELL))], ","));
      }
      return rows;
    });
  }

  /** The review table: a row for each event, judged or not, for each stretch, and for what was listened to. */
  function table(review, open) {
    const lines = [row(COLUMNS, ",")];
    const score = (value) => (value === null ? "" : value.toFixed(4));
    for (const event of review.events) {
      const truth = TRUE.has(event.verdict) ? [...times(event, 3), event.label] : ["", "", ""];
      const found = event.detected ? [...times(event.detected, 3), event.detected.label] : ["", "", ""];
      lines.push(row([event.recording, ...truth, score(event.score), event.verdict, ...found, ""], ","));
    }
    for (const stretch of review.stretches) {
      lines.push(row([stretch.recording, "", "", "", "", LISTENED, ...times(stretch, 3), "", ""], ","));
    }
    for (const event of open) {
      lines.push(row([event.recording, "", "", "", score(event.score), "", ...times(event, 3), event.label, ""], ","));
    }
    return [...lines, ...heardRows(review)].join("");
  }

  function cells(text) {
    const header = text.slice(0, text.search(/[\r\n]|$/));
    const [delimiter] = [",", ";", "\t"].sort((a, b) => header.split(b).length - header.split(a).length); // spreadsheets change it
    const rows = [];
    let current = [];
    let cell = "";
    let quoted = false;
    for (let i = 0; i < text.length; i++) {
      const c = text[i];
      if (quoted) {
        if (c !== '"') cell += c;
        else if (text[i + 1] === '"') cell += text[++i];
        else quoted = false;
      } else if (c === '"' && cell.trim() === "") { quoted = true; cell = ""; }
      else if (c === delimiter) { current.push(cell); cell = ""; }
      else if (c === "\n" || c === "\r") {
        if (c === "\r" && text[i + 1] === "\n") i++;
        rows.push([...current, cell]);
        current = [];
        cell = "";
      } else cell += c;
    }
    if (cell !== "" || current.length) rows.push([...current, cell]);
    return rows.filter((one) => one.some((value) => value.trim() !== ""));
  }

  /** Read a review table; throws an Error that says what is wrong. */
  function read(text) {
    const [header, ...rows] = cells(text.replace(/^\ufeff/, ""));
    const names = (header ?? []).map((name) => name.trim().toLowerCase());
    for (const name of COLUMNS.slice(0, 9)) {
      if (!names.includes(name)) throw new Error(`no review table: it lacks the column ${name}`);
    }
    const review = { events: [], stretches: [] };
    rows.forEach((values, i) => {
      const get = (name) => plain(values[names.indexOf(name)] ?? "");
      const number = (name) => {
        const value = Number(get(name).replace(",", "."));
        if (get(name) === "" || !Number.isFinite(value) || value < 0) throw new Error(`row ${i + 2}: ${name} is no number of 0 or more`);
        return value;
      };
      const verdict = get("verdict").toLowerCase();
      const recording = get("filename");
      if (verdict === "") return;
      if (verdict === LISTENED) {
        review.stretches.push({ recording, onset: number("detected_onset"), offset: number("detected_offset") });
        return;
      }
      if (!VERDICTS.has(verdict)) throw new Error(`row ${i + 2}: unknown verdict ${verdict.slice(0, 40)}`);
      const detected = get("detected_onset") === "" ? null
        : { onset: number("detected_onset"), offset: number("detected_offset"), label: get("detected_label") };
      const own = TRUE.has(verdict)
        ? { onset: number("onset"), offset: number("offset"), label: get("event_label") } : detected;
      if (!own) throw new Error(`row ${i + 2}: ${verdict}, but no event`);
      review.events.push({
        recording, ...own, score: get("score") === "" ? null : number("score"), verdict, detected,
      });
    });
    return review;
  }

  const inOrder = (events) => [...events].sort((a, b) => a.onset - b.onset || a.offset - b.offset || (a.label < b.label ? -1 : 1));

  /** DESED's table of many recordings: [name, events] each. */
  const desed = (recordings) => row(["filename", "onset", "offset", "event_label"], "\t") + recordings.map(([name, events]) =>
    (events.length ? inOrder(events).map((e) => row([name, ...times(e, 3), e.label], "\t")).join("") : row([name, "", "", ""], "\t"))).join("");

  const audacity = (events) => inOrder(events).map((e) => `${times(e, 6).join("\t")}\t${escape(e.label, CONTROL)}\n`).join("");

  function raven(name, events) {
    const header = ["Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)", "High Freq (Hz)", "Annotation", "Score", "Begin File"];
    const cell = (text) => escape(text.slice(0, 1), text[0] === '"' ? `${CONTROL}"` : CONTROL) + escape(text.slice(1), CONTROL);
    const file = name.split("/").pop();
    return `${header.join("\t")}\n${inOrder(events).map((e, i) => [
      i + 1, "Spectrogram 1", 1, ...times(e, 3), 50, 14000, cell(e.label), (e.score ?? 1).toFixed(4), escapeEnds(cell(file)),
    ].join("\t")).join("\n")}${events.length ? "\n" : ""}`;
  }

  return { TRUE, table, read, desed, audacity, raven };
})();
