"use strict";
// Draws the spans of a trace: [track, name, kind, begin ns, duration ns, arguments, flow].
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const canvas = document.getElementById("tracks"), overview = document.getElementById("overview");
  const details = document.getElementById("details"), find = document.getElementById("find");
  const found = document.getElementById("found");
  if (!data.spans.length) {
    canvas.replaceWith(Object.assign(document.createElement("p"), { className: "empty", textContent: "Nothing was traced." }));
    return;
  }
  const LABEL = 190, ROW = 19, GAP = 8, HEAD = 22, COUNTER = 34, AXIS = 24;
  const spans = data.spans.map(([track, name, kind, begin, duration, args, flow], id) => ({
    id, track, begin, duration, flow, end: begin + duration, name: data.names[name], kind: data.kinds[kind], args: data.args[args], depth: 0,
  }));
  const tracks = data.tracks.map(([group, name]) => ({ group, name, spans: [], depth: 1 }));
  for (const span of spans) tracks[span.track].spans.push(span);
  for (const track of tracks) { // how deep a span lies in others
    const open = [];
    for (const span of track.spans) {
      while (open.length && open[open.length - 1].end <= span.begin) open.pop();
      span.depth = open.length;
      track.depth = Math.max(track.depth, open.length + 1);
      open.push(span);
      // Spans that contain others may be long: who looks for what is visible must know how far back they reach.
    }
    let reach = -Infinity;
    track.reach = track.spans.map((span) => (reach = Math.max(reach, span.end)));
  }
  const first = spans[0].begin, last = spans.reduce((most, span) => Math.max(most, span.end), first + 1000);
  const steps = spans.filter((span) => span.kind === data.step && !(span.depth && tracks[span.track].group !== "host"));
  let view = { begin: first, end: last }, chosen = null, query = "", hover = null;

  // -- layout -----------------------------------------------------------------------------------------------------------
  const rows = [];
  let height = AXIS;
  let group = null;
  for (const [name, points] of data.counters) {
    rows.push({ counter: name, points, y: height + 4, most: Math.max(1, ...points.map((point) => point[1])) });
    height += COUNTER + 8;
  }
  for (const track of tracks) {
    if (track.group !== group) {
      group = track.group;
      rows.push({ title: group, y: height });
      height += HEAD;
    }
    track.y = height;
    rows.push({ track, y: height });
    height += track.depth * ROW + GAP;
  }
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue("--" + name).trim();
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const ofKind = { step: "host", encode: "encode", submit: "submit", wait: "wait", queued: "queued", prefill: "prefill", token: "token" };
  const hues = new Map();
  const fill = (span) => {
    if (span.kind !== data.dispatch) return colour(ofKind[span.kind] || "host");
    if (!hues.has(span.name)) {
      let hash = 7;
      for (const letter of span.name) hash = (hash * 31 + letter.codePointAt(0)) >>> 0;
      hues.set(span.name, (hash * 47) % 360);
    }
    return `hsl(${hues.get(span.name)} ${dark.matches ? "42% 52%" : "48% 58%"})`;
  };
  const matches = (span) => !query || span.name.toLowerCase().includes(query) || String(span.args.kernel || "").toLowerCase().includes(query);

  // -- drawing ----------------------------------------------------------------------------------------------------------
  let width = 0;
  const x = (time) => LABEL + ((time - view.begin) / (view.end - view.begin)) * (width - LABEL);
  const timeAt = (position) => view.begin + ((position - LABEL) / (width - LABEL)) * (view.end - view.begin);
  const prepare = (target, tall) => {
    const ratio = devicePixelRatio || 1;
    width = target.clientWidth;
    target.width = Math.max(1, width * ratio);
    target.height = tall * ratio;
    target.style.height = tall + "px";
    const pen = target.getContext("2d");
    pen.scale(ratio, ratio);
    pen.font = "11.5px ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace";
    pen.textBaseline = "middle";
    return pen;
  };
  const show = (nanoseconds) => {
    const [unit, name] = nanoseconds >= 1e9 ? [1e9, "s"] : nanoseconds >= 1e6 ? [1e6, "ms"] : nanoseconds >= 1e3 ? [1e3, "µs"] : [1, "ns"];
    return `${Number((nanoseconds / unit).toPrecision(4))} ${name}`;
  };
  const firstVisible = (track) => { // the first span that ends, or in which one ends, after the view's begin
    let low = 0, high = track.spans.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (track.reach[middle] < view.begin) low = middle + 1; else high = middle;
    }
    return low;
  };
  const clipped = (pen, text, room) => {
    if (room < 14) return "";
    const letter = 6.95;
    return text.length * letter <= room ? text : text.slice(0, Math.max(0, Math.floor(room / letter) - 1)) + "…";
  };
  const short = (name) => name.replace(/^(aten|et_vk|et_webgpu|llama)\./, "").replace(/\.(default|Tensor|Scalar|int|self)$/, "");
  function draw() {
    const pen = prepare(canvas, height + 6);
    pen.fillStyle = colour("panel");
    pen.fillRect(0, 0, width, height + 6);
    axis(pen);
    for (const row of rows) {
      if (row.title !== undefined) {
        pen.fillStyle = colour("raised");
        pen.fillRect(0, row.y, width, HEAD - 4);
        pen.fillStyle = colour("soft");
        pen.fillText(clipped(pen, row.title, width - 20), 10, row.y + (HEAD - 4) / 2);
      } else if (row.track) spansOf(pen, row.track);
      else counterOf(pen, row);
    }
    arrows(pen);
    pen.fillStyle = colour("panel");
    for (const row of rows) {
      if (row.title !== undefined) continue;
      const tall = row.track ? row.track.depth * ROW : COUNTER;
      pen.fillStyle = colour("panel");
      pen.fillRect(0, row.y - 1, LABEL - 6, tall + 2);
      pen.fillStyle = colour("text");
      pen.fillText(clipped(pen, row.track ? row.track.name : row.counter, LABEL - 24), 14, row.y + Math.min(tall, ROW) / 2);
      if (row.counter) {
        pen.fillStyle = colour("soft");
        pen.fillText(`at most ${row.most}`, 14, row.y + ROW + 4);
      }
    }
    drawOverview();
  }
  function axis(pen) {
    const span = view.end - view.begin, rough = span / Math.max(2, (width - LABEL) / 110);
    const power = 10 ** Math.floor(Math.log10(rough));
    const tick = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough);
    pen.fillStyle = colour("soft");
    pen.strokeStyle = colour("faint");
    pen.textAlign = "left";
    for (let time = Math.ceil(view.begin / tick) * tick; time <= view.end; time += tick) {
      const at = Math.round(x(time)) + 0.5;
      pen.beginPath(); pen.moveTo(at, 0); pen.lineTo(at, height); pen.stroke();
      pen.fillText(show(Math.round(time)), at + 4, 11);
    }
  }
  function spansOf(pen, track) {
    const edge = new Float64Array(track.depth).fill(-1);
    for (let i = firstVisible(track); i < track.spans.length; i++) {
      const span = track.spans[i];
      if (span.begin > view.end) break;
      if (span.end < view.begin) continue;
      const left = Math.max(LABEL, x(span.begin)), right = Math.min(width, x(span.end));
      const top = track.y + span.depth * ROW;
      const special = span === chosen || span === hover;
      if (right - left < 1 && right < edge[span.depth] + 0.7 && !special) continue; // there is ink already
      edge[span.depth] = right;
      pen.globalAlpha = matches(span) ? 1 : 0.15;
      pen.fillStyle = fill(span);
      if (!span.duration && span.kind !== data.dispatch) { // an instant
        pen.beginPath(); pen.moveTo(left, top); pen.lineTo(left + 5, top + ROW / 2); pen.lineTo(left, top + ROW - 2); pen.fill();
      } else pen.fillRect(left, top, Math.max(0.8, right - left - (right - left > 4 ? 0.7 : 0)), ROW - 2);
      if (right - left > 26) {
        pen.fillStyle = span.kind === "wait" ? colour("soft") : dark.matches ? "#0d0f12" : "#ffffff";
        pen.fillText(clipped(pen, short(span.name), right - left - 8), left + 4, top + (ROW - 2) / 2 + 0.5);
      }
      if (special) {
        pen.globalAlpha = 1;
        pen.strokeStyle = colour("select");
        pen.lineWidth = span === chosen ? 2 : 1;
        pen.strokeRect(left, top, Math.max(2, right - left), ROW - 2);
        pen.lineWidth = 1;
      }
    }
    pen.globalAlpha = 1;
  }
  function counterOf(pen, row) {
    pen.fillStyle = colour("accent-soft");
    pen.strokeStyle = colour("accent");
    pen.beginPath();
    let before = 0;
    const y = (value) => row.y + COUNTER - (value / row.most) * (COUNTER - 4);
    pen.moveTo(LABEL, row.y + COUNTER);
    for (const [time, value] of row.points) {
      const at = Math.min(width, Math.max(LABEL, x(time)));
      pen.lineTo(at, y(before)); pen.lineTo(at, y(value));
      before = value;
    }
    pen.lineTo(width, y(before)); pen.lineTo(width, row.y + COUNTER);
    pen.fill();
    pen.stroke();
  }
  const submits = new Map(), arrivals = new Map();
  for (const span of spans) if (span.flow) (span.kind === data.dispatch ? arrivals : submits).set(span.flow, span);
  function arrows(pen) {
    const pairs = [...submits].map(([flow, from]) => [from, arrivals.get(flow)]).filter(([from, to]) => to && to.begin >= view.begin && from.begin <= view.end);
    const few = pairs.length <= 40;
    for (const [from, to] of pairs) {
      const mine = chosen && (chosen === from || chosen === to || (chosen.kind === data.dispatch && from.flow === submissionOf(chosen)));
      if (!few && !mine) continue;
      pen.strokeStyle = colour(mine ? "select" : "edge");
      pen.globalAlpha = mine ? 1 : 0.6;
      const [a, b] = [Math.max(LABEL, x((from.begin + from.end) / 2)), Math.max(LABEL, x(to.begin))];
      const [top, bottom] = [tracks[from.track].y + (from.depth + 1) * ROW - 2, tracks[to.track].y];
      pen.beginPath();
      pen.moveTo(a, top);
      pen.bezierCurveTo(a, (top + bottom) / 2, b, (top + bottom) / 2, b, bottom - 3);
      pen.stroke();
      pen.fillStyle = pen.strokeStyle;
      pen.beginPath(); pen.moveTo(b, bottom); pen.lineTo(b - 3, bottom - 5); pen.lineTo(b + 3, bottom - 5); pen.fill();
    }
    pen.globalAlpha = 1;
  }
  function submissionOf(span) { // dispatches follow the first one of their submission
    const list = tracks[span.track].spans;
    for (let i = list.indexOf(span); i >= 0; i--) if (list[i].flow) return list[i].flow;
    return 0;
  }
  function drawOverview() {
    const tall = 30, pen = prepare(overview, tall);
    pen.fillStyle = colour("raised");
    pen.fillRect(0, 0, width, tall);
    const of = (time) => LABEL + ((time - first) / (last - first)) * (width - LABEL);
    let edge = -1;
    for (const span of spans) {
      const device = span.kind === data.dispatch;
      if (!device && span.kind !== data.step) continue;
      const [left, right] = [of(span.begin), of(span.end)];
      if (device && right < edge + 0.5) continue;
      if (device) edge = right;
      pen.fillStyle = colour(device ? "gpu" : "host");
      pen.fillRect(left, device ? 16 : 5, Math.max(0.6, right - left), 9);
    }
    pen.fillStyle = colour("soft");
    pen.fillText("whole run", 14, tall / 2);
    pen.strokeStyle = colour("select");
    pen.lineWidth = 1.5;
    pen.strokeRect(of(view.begin), 1, Math.max(3, of(view.end) - of(view.begin)), tall - 2);
  }

  // -- moving -----------------------------------------------------------------------------------------------------------
  let waiting = false;
  const redraw = () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; draw(); });
  };
  function look(begin, end) {
    const length = Math.min(Math.max(end - begin, 200), (last - first) * 1.05);
    begin = Math.min(Math.max(begin, first - length * 0.05), last - length * 0.95);
    view = { begin, end: begin + length };
    redraw();
  }
  const zoom = (factor, around = (view.begin + view.end) / 2) =>
    look(around - (around - view.begin) * factor, around + (view.end - around) * factor);
  const move = (share) => look(view.begin + (view.end - view.begin) * share, view.end + (view.end - view.begin) * share);
  const lookAt = (span) => {
    const room = Math.max(span.duration * 0.15, 500);
    look(span.begin - room, span.end + room);
  };
  function select(span, follow) {
    chosen = span;
    if (follow && (span.begin < view.begin || span.end > view.end)) {
      const length = Math.max(view.end - view.begin, span.duration * 1.2);
      look(span.begin - length * 0.2, span.begin + length * 0.8);
    }
    describe(span);
    history.replaceState(null, "", `#span-${span.id}`);
    redraw();
  }
  function describe(span) {
    const list = document.createElement("dl");
    list.className = "facts";
    const add = (name, value) => {
      const [term, fact] = [document.createElement("dt"), document.createElement("dd")];
      term.textContent = name;
      fact.textContent = value;
      list.append(term, fact);
    };
    add("name", span.name);
    add("track", `${tracks[span.track].group}, ${tracks[span.track].name}`);
    add("time", `${show(span.duration)}, from ${show(span.begin)} on`);
    for (const [name, value] of Object.entries(span.args)) {
      const written = name === "bytes" ? `${value.toLocaleString("en")} (${(value / Math.max(1, span.duration)).toFixed(2)} GB/s)` : typeof value === "object" ? JSON.stringify(value) : String(value);
      add(name, written);
    }
    details.replaceChildren(list);
  }
  function neighbour(direction) {
    const list = chosen ? tracks[chosen.track].spans : (tracks.find((track) => track.spans.some((span) => span.kind === data.dispatch)) || tracks[0]).spans;
    let at = chosen ? list.indexOf(chosen) + direction : 0;
    while (at >= 0 && at < list.length && !matches(list[at])) at += direction;
    if (list[at]) select(list[at], true);
  }
  function toStep(direction) {
    const middle = (view.begin + view.end) / 2;
    const current = chosen && chosen.kind === data.step ? chosen.begin : middle;
    const ahead = direction > 0 ? steps.filter((step) => step.begin > current) : steps.filter((step) => step.begin < current).reverse();
    const step = ahead.find((each) => each !== chosen);
    if (step) { select(step); lookAt(step); }
  }
  const actions = {
    fit: () => look(first - (last - first) * 0.02, last + (last - first) * 0.02),
    in: () => zoom(0.6), out: () => zoom(1 / 0.6), "previous-step": () => toStep(-1), "next-step": () => toStep(1),
  };
  for (const button of document.querySelectorAll("[data-do]")) button.addEventListener("click", actions[button.dataset.do]);
  const keys = {
    w: actions.in, "+": actions.in, "=": actions.in, s: actions.out, "-": actions.out, a: () => move(-0.25), d: () => move(0.25),
    ArrowLeft: () => move(-0.1), ArrowRight: () => move(0.1), "0": actions.fit, n: () => neighbour(1), p: () => neighbour(-1),
    f: () => chosen && lookAt(chosen), Escape: () => { chosen = null; redraw(); },
  };
  canvas.addEventListener("keydown", (event) => {
    const action = !event.ctrlKey && !event.metaKey && !event.altKey && keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (action) { action(); event.preventDefault(); }
  });
  function spanAt(event) {
    const box = canvas.getBoundingClientRect(), px = event.clientX - box.left, py = event.clientY - box.top;
    if (px < LABEL) return null;
    const track = tracks.find((each) => py >= each.y && py < each.y + each.depth * ROW);
    if (!track) return null;
    const depth = Math.floor((py - track.y) / ROW), time = timeAt(px), slack = ((view.end - view.begin) / (width - LABEL)) * 2.5;
    let best = null;
    for (let i = firstVisible(track); i < track.spans.length && track.spans[i].begin <= time + slack; i++) {
      const span = track.spans[i];
      if (span.depth === depth && span.end >= time - slack) best = span;
    }
    return best;
  }
  let drag = null;
  canvas.addEventListener("pointerdown", (event) => {
    drag = { x: event.clientX, begin: view.begin, end: view.end, moved: false };
    canvas.setPointerCapture(event.pointerId);
  });
  const tip = Object.assign(document.createElement("div"), { className: "tip", hidden: true });
  document.body.append(tip);
  canvas.addEventListener("pointermove", (event) => {
    if (drag) {
      const by = ((event.clientX - drag.x) / (width - LABEL)) * (drag.end - drag.begin);
      drag.moved ||= Math.abs(event.clientX - drag.x) > 3;
      if (drag.moved) look(drag.begin - by, drag.end - by);
      return;
    }
    const span = spanAt(event);
    if (span !== hover) { hover = span; redraw(); }
    tip.hidden = !span;
    if (span) {
      const lines = [span.name, show(span.duration)];
      if (span.args.kernel) lines.push(span.args.kernel + (span.args.route ? ` (${span.args.route})` : ""));
      tip.textContent = lines.join("\n");
      tip.style.left = Math.min(event.clientX + 14, innerWidth - 300) + "px";
      tip.style.top = event.clientY + 16 + "px";
    }
  });
  canvas.addEventListener("pointerleave", () => { hover = null; tip.hidden = true; redraw(); });
  canvas.addEventListener("pointerup", (event) => {
    const click = drag && !drag.moved;
    drag = null;
    const span = click && spanAt(event);
    if (span) select(span);
  });
  canvas.addEventListener("dblclick", (event) => { const span = spanAt(event); if (span) lookAt(span); });
  canvas.addEventListener("wheel", (event) => {
    if (event.ctrlKey || event.metaKey) {
      zoom(Math.exp(Math.sign(event.deltaY) * Math.min(0.5, Math.abs(event.deltaY) / 250)), timeAt(event.clientX - canvas.getBoundingClientRect().left));
      event.preventDefault();
    } else if (event.deltaX || event.shiftKey) {
      move(((event.deltaX || event.deltaY) / (width - LABEL)));
      event.preventDefault();
    }
  }, { passive: false });
  const jump = (event) => {
    if (event.buttons !== 1) return;
    const box = overview.getBoundingClientRect(), length = view.end - view.begin;
    const time = first + ((event.clientX - box.left - LABEL) / (box.width - LABEL)) * (last - first);
    look(time - length / 2, time + length / 2);
  };
  overview.addEventListener("pointerdown", (event) => { overview.setPointerCapture(event.pointerId); jump(event); });
  overview.addEventListener("pointermove", jump);
  find.addEventListener("input", () => {
    query = find.value.trim().toLowerCase();
    const hits = query ? spans.filter(matches) : [];
    found.textContent = query ? `${hits.length} spans, ${show(hits.reduce((sum, span) => sum + span.duration, 0))} in all` : "";
    redraw();
  });
  find.addEventListener("keydown", (event) => { if (event.key === "Enter") neighbour(event.shiftKey ? -1 : 1); });
  addEventListener("resize", redraw);
  dark.addEventListener("change", redraw);
  // The first look is at a few steps in the middle, where nothing is being warmed up.
  const some = steps.length > 4 ? steps.slice(Math.floor(steps.length / 2), Math.floor(steps.length / 2) + 3) : [];
  if (some.length && last - first > 4 * (some[some.length - 1].end - some[0].begin)) look(some[0].begin - 1000, some[some.length - 1].end + (some[0].end - some[0].begin));
  else actions.fit();
  const asked = /^#span-(\d+)$/.exec(location.hash); // a link to a span
  if (asked && spans[asked[1]]) {
    select(spans[asked[1]]);
    lookAt(spans[asked[1]]);
    canvas.scrollIntoView({ block: "center" });
  }
  document.documentElement.dataset.drawn = String(spans.length);
})();
