/* From scores to events, by the rules of `htsat-sed detect`: htsat_sed/detection/events.py and the modules it
 * names. Every step is the same to the bit but for the sums of `means`, whose order differs. */
"use strict";

const Rules = (() => {
  const SLACK = 1e-9;
  const REACH = 4;
  const TOKEN = 0.3125;
  const CLOSEST = 1e-7;
  const APART = 0.5;
  const FLAT = 1e-6;

  /** Median of `width` tokens (odd) around each; beyond both ends the column is mirrored: b a | a b c. */
  function medianFilter(column, width) {
    const n = column.length;
    if (width <= 1 || n === 0) return column;
    const half = (width - 1) / 2;
    const period = 2 * n;
    const at = (i) => {
      const k = ((i % period) + period) % period;
      return column[k < n ? k : period - 1 - k];
    };
    const sorted = new Float32Array(width);
    for (let i = 0; i < width; i++) sorted[i] = at(i - half);
    sorted.sort();
    const found = new Float32Array(n);
    found[0] = sorted[half];
    for (let t = 1; t < n; t++) {
      const gone = at(t - 1 - half);
      const come = at(t + half);
      let place = 0;
      while (sorted[place] !== gone) place++;
      while (place > 0 && sorted[place - 1] > come) sorted[place] = sorted[--place];
      while (place < width - 1 && sorted[place + 1] < come) sorted[place] = sorted[++place];
      sorted[place] = come;
      found[t] = sorted[half];
    }
    return found;
  }

  /** Runs above the low threshold with a token above the high one. */
  function runs(scores, high, low) {
    const lowest = Math.fround(low);
    const needed = Math.fround(high);
    const found = [];
    for (let t = 0; t < scores.length; t++) {
      if (!(scores[t] > lowest)) continue;
      const start = t;
      let peak = 0;
      for (; t < scores.length && scores[t] > lowest; t++) if (scores[t] > peak) peak = scores[t];
      if (peak > needed) found.push({ start, end: t, score: peak });
    }
    return found;
  }

  /** Boxes between change points whose mean score is above the high threshold. */
  function boxes(scores, side, mergeAbsolute, mergeRelative, high) {
    const n = scores.length;
    const total = new Float64Array(n + 1);
    for (let t = 0; t < n; t++) total[t + 1] = total[t] + scores[t];
    const mean = (first, stop) => (total[stop] - total[first]) / (stop - first);
    let found = candidates(total, side);
    for (;;) {
      const score = found.map((box) => mean(box.start, box.end));
      const closing = new Set();
      for (let i = 0; i + 1 < found.length; i++) {
        const lower = Math.min(score[i], score[i + 1]);
        const drop = lower - mean(found[i].end, found[i + 1].start);
        if (drop < Math.max(mergeAbsolute, mergeRelative * lower) - FLAT) closing.add(i);
      }
      if (closing.size === 0) {
        found.forEach((box, i) => { box.score = Math.fround(Math.min(1, Math.max(0, score[i]))); });
        const needed = Math.fround(high);
        return found.filter((box) => box.score > needed);
      }
      const joined = [];
      found.forEach((box, i) => {
        if (closing.has(i - 1)) joined[joined.length - 1].end = box.end;
        else joined.push(box);
      });
      found = joined;
    }
  }

  function candidates(total, side) {
    const last = total.length - 1;
    const stretches = [];
    for (let t = 0; t <= last; t++) {
      const after = total[Math.min(t + side, last)] - total[t];
      const before = total[t] - total[Math.max(t - side, 0)];
      const change = (after - before) / side;
      if (!(Math.abs(change) > FLAT)) continue;
      const rising = change > 0;
      const current = stretches[stretches.length - 1];
      if (!current || current.rising !== rising) stretches.push({ rising, moves: [[t, Math.abs(change)]] });
      else current.moves.push([t, Math.abs(change)]);
    }
    for (const stretch of stretches) {
      const most = Math.max(...stretch.moves.map((move) => move[1]));
      const steepest = stretch.moves.filter((move) => move[1] >= most - FLAT);
      stretch.at = steepest[stretch.rising ? steepest.length - 1 : 0][0];
    }
    const found = [];
    for (let i = 0; i + 1 < stretches.length; i++) {
      if (stretches[i].rising && !stretches[i + 1].rising) {
        found.push({ start: stretches[i].at, end: stretches[i + 1].at, score: 0 });
      }
    }
    return found;
  }

  function closeGaps(found, minGap, token) {
    const joined = [];
    for (const run of found) {
      const before = joined[joined.length - 1];
      if (before && (run.start - before.end) * token < minGap - SLACK) {
        before.end = run.end;
        before.score = Math.max(before.score, run.score);
      } else joined.push({ ...run });
    }
    return joined;
  }

  function means(scores, run) {
    let sum = 0;
    for (let t = run.start; t < run.end; t++) sum += scores[t];
    return sum / (run.end - run.start);
  }

  /** Tokens from a boundary to where scores rise through a level; `at(i)` reads outwards for negative i. */
  function move(at, level, reach) {
    const outwards = at(0) >= level;
    let nearest = null;
    for (let distance = 0; distance <= reach && nearest === null; distance++) {
      const step = outwards ? -distance : distance;
      if (distance === 0 && !outwards) continue;
      if (!(at(step - 1) >= level) && at(step) >= level) nearest = step;
    }
    if (nearest === null) return outwards ? -reach : reach;
    const lower = at(nearest - 1);
    const upper = at(nearest);
    const height = (level - lower) / (upper > lower ? upper - lower : 1);
    return Math.min(reach, Math.max(-reach, nearest - 0.5 + height));
  }

  function edges(scores, found, edgeLevel, reach) {
    const n = scores.length;
    const clip = (t) => scores[Math.min(n - 1, Math.max(0, t))];
    const bounds = found.map((run) => {
      if (!(edgeLevel > 0)) return [run.start, run.end];
      const level = edgeLevel * means(scores, run);
      return [
        Math.max(0, run.start + move((i) => clip(run.start + i), level, reach)),
        Math.min(n, run.end - move((i) => clip(run.end - 1 - i), level, reach)),
      ];
    });
    if (!(edgeLevel > 0)) return bounds;
    let lastEnd = -2 * (reach + 1);
    found.forEach((run, i) => {
      const room = (run.start - lastEnd) / 2 - APART / 2;
      bounds[i][0] = Math.max(bounds[i][0], run.start - room);
      if (i > 0) bounds[i - 1][1] = Math.min(bounds[i - 1][1], found[i - 1].end + room);
      lastEnd = run.end;
    });
    return bounds;
  }

  /** The score of an event as it is printed; see htsat_sed/detection/calibration.py. */
  function calibrated(score, rule) {
    if (rule.score_slope === 1 && rule.score_offset === 0) return score;
    const chance = Math.min(1 - CLOSEST, Math.max(CLOSEST, score));
    const logit = Math.log(chance / (1 - chance));
    return Math.fround(1 / (1 + Math.exp(-rule.score_slope * logit - rule.score_offset)));
  }

  /**
   * Events of one class.
   *
   * @param {Float32Array} scores smoothed: through `medianFilter`.
   * @param {object} rule threshold, threshold_low (or null), min_gap, min_event, side (tokens; 0 for none),
   *   merge_absolute, merge_relative, edge_level, score_slope, score_offset.
   * @returns {{onset: number, offset: number, score: number}[]} in order; seconds.
   */
  function findEvents(scores, rule, token, duration) {
    const low = rule.threshold_low === null ? rule.threshold : Math.min(rule.threshold_low, rule.threshold);
    const first = rule.side > 0
      ? boxes(scores, rule.side, rule.merge_absolute, rule.merge_relative, rule.threshold)
      : runs(scores, rule.threshold, low);
    const found = closeGaps(first, rule.min_gap, token);
    const reach = Math.max(REACH, Math.round(REACH * TOKEN / token));
    const bounds = edges(scores, found, rule.edge_level, reach);
    const events = [];
    found.forEach((run, i) => {
      const moved = bounds[i][0] * token;
      const onset = moved < duration ? moved : run.start * token;
      const offset = Math.min(bounds[i][1] * token, duration);
      if (offset - onset >= rule.min_event - SLACK && offset > onset) {
        events.push({ onset, offset, score: calibrated(run.score, rule) });
      }
    });
    return events;
  }

  return { medianFilter, findEvents, calibrated };
})();
