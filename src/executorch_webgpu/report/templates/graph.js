"use strict";
// Draws graphs of operator calls in layers, from top to bottom. Layers of a model that are alike are drawn once, until
// they are unfolded.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const SVG = "http://www.w3.org/2000/svg", NODE = 44, RANK = 92, SPACE = 26, LETTER = 7.3;
  const FAR = 24, MANY = 8; // ranks that an edge may cross, and readers that a value may have, to be drawn
  const drawings = [];
  const make = (name, attributes = {}, text = null) => {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== null) element.textContent = text;
    return element;
  };
  const html = (name, text = null, className = "") => {
    const element = document.createElement(name);
    if (text !== null) element.textContent = text;
    if (className) element.className = className;
    return element;
  };
  const short = (name) => name.replace(/^(aten|et_vk|et_webgpu|llama)\./, "").replace(/\.(default|Tensor|Scalar|int|self)$/, "");
  const size = (bytes) => {
    const units = ["B", "KiB", "MiB", "GiB"];
    let unit = 0;
    while (bytes >= 1024 && unit < 3) { bytes /= 1024; unit++; }
    return `${Number(bytes.toPrecision(4))} ${units[unit]}`;
  };
  const written = (value) => (value.dtype === "live integer" ? value.dtype : `${value.dtype} [${value.dims.join(", ")}]`);
  const clip = (text, most) => (text.length <= most ? text : text.slice(0, most - 1) + "…");

  // -- what is drawn ----------------------------------------------------------------------------------------------------
  // Nodes are calls by their place in the graph, inputs and outputs. A call of a folded layer stands for those of all.
  function visible(graph, unfolded) {
    const repeats = graph.repeats.map(([start, period, count]) => ({ start, period, count, end: start + period * count }));
    const places = graph.calls.map((_, place) => {
      const repeat = repeats.findIndex((each) => place >= each.start && place < each.end);
      if (repeat < 0) return { shown: place, layer: 0, repeat: -1 };
      const { start, period } = repeats[repeat];
      const layer = Math.floor((place - start) / period);
      return { shown: unfolded.has(repeat) ? place : start + ((place - start) % period), layer, repeat };
    });
    const nodes = new Map();
    const add = (key, more) => { if (!nodes.has(key)) nodes.set(key, { key, before: [], after: [], ...more }); return nodes.get(key); };
    const writer = new Map(), changer = new Map();
    graph.inputs.forEach((id, number) => {
      add(`in${number}`, { kind: "input", value: id, order: -1, label: graph.positions[number] === null ? "from before" : `input ${graph.positions[number]}` });
      writer.set(id, { key: `in${number}` });
    });
    const readers = new Map();
    graph.calls.forEach((call, place) => {
      const { shown } = places[place];
      if (shown === place) add(`c${place}`, { kind: "call", call, place, order: place, repeat: places[place].repeat });
      for (const id of call.reads) readers.set(id, (readers.get(id) || new Set()).add(shown));
    });
    const edges = new Map();
    // Of layers that are folded, equal edges are one: ``slot`` says which result of its call a value is.
    const link = (source, to, id, way) => {
      const from = source.place === undefined ? source.key : `c${places[source.place].shown}`;
      if (from === to) return;
      const slot = source.place === undefined ? 0 : way === "state" ? graph.calls[source.place].writes.length + graph.calls[source.place].changes.indexOf(id) : graph.calls[source.place].writes.indexOf(id);
      const key = `${from} ${to} ${slot}`;
      if (!edges.has(key)) edges.set(key, { from: nodes.get(from), to: nodes.get(to), id, way, slot });
    };
    graph.calls.forEach((call, place) => {
      const here = places[place];
      for (const id of call.reads) {
        const lasting = ["cache", "state"].includes(graph.values[id].kind);
        const source = lasting ? changer.get(id) : writer.get(id);
        if (!source || (readers.get(id).size > MANY && graph.values[id].dtype === "live integer")) continue;
        const there = source.place === undefined ? null : places[source.place];
        if (there && there.repeat >= 0 && there.repeat === here.repeat && !unfolded.has(here.repeat) && there.layer !== here.layer) continue; // to the next layer
        link(source, `c${here.shown}`, id, lasting ? "state" : "value");
      }
      for (const id of call.changes) changer.set(id, { place });
      for (const id of call.writes) writer.set(id, { place });
    });
    graph.outputs.forEach((id, number) => {
      const node = add(`out${number}`, { kind: "output", value: id, order: graph.calls.length, label: `output ${number}` });
      const source = writer.get(id);
      if (source) link(source, node.key, id, "value");
    });
    for (const edge of edges.values()) { edge.from.after.push(edge); edge.to.before.push(edge); }
    return { nodes: [...nodes.values()], edges: [...edges.values()], places, repeats };
  }

  // -- layout -----------------------------------------------------------------------------------------------------------
  // Parts that have nothing to do with each other stand apart: the largest first, small ones in rows below.
  function layOut(graph, drawn) {
    const part = new Map();
    const root = (node) => { while (part.get(node) !== node) node = part.get(node); return node; };
    for (const node of drawn.nodes) part.set(node, node);
    for (const edge of drawn.edges) part.set(root(edge.from), root(edge.to));
    const parts = new Map();
    for (const node of drawn.nodes) parts.set(root(node), [...(parts.get(root(node)) || []), node]);
    let left = 0, top = 0, deep = 0, wide = 1200;
    for (const nodes of [...parts.values()].sort((a, b) => b.length - a.length || a[0].order - b[0].order)) {
      const inside = new Set(nodes), items = layOutPart(graph, nodes, drawn.edges.filter((edge) => inside.has(edge.from)));
      const begin = Math.min(...items.map((item) => item.x - item.width / 2)), end = Math.max(...items.map((item) => item.x + item.width / 2));
      if (left && left + end - begin > wide) [left, top, deep] = [0, top + deep + RANK, 0];
      for (const item of items) [item.x, item.y] = [item.x - begin + left, item.rank * RANK + top];
      deep = Math.max(deep, ...items.map((item) => item.rank * RANK));
      wide = Math.max(wide, end - begin);
      left += end - begin + 2 * SPACE;
    }
  }
  function layOutPart(graph, nodes, edges) {
    const order = [...nodes].sort((a, b) => a.order - b.order);
    for (const node of order) node.rank = node.before.reduce((most, edge) => Math.max(most, (edge.from.rank ?? -1) + 1), 0);
    for (const node of [...order].reverse()) { // as near as possible to what reads it
      if (node.after.length) node.rank = Math.max(node.rank, Math.min(...node.after.map((edge) => edge.to.rank)) - 1);
    }
    for (const node of nodes) {
      node.title = node.kind === "call" ? short(node.call.name) : node.label;
      node.line = node.kind === "call" ? second(node.call) : written(graph.values[node.value]);
      node.width = Math.min(300, Math.max(120, Math.max(node.title.length * LETTER + (node.kind === "call" && node.call.from?.length > 1 ? 38 : 0), node.line.length * 6.5) + 26));
    }
    const ranks = [];
    const put = (item) => (ranks[item.rank] ||= []).push(item);
    order.forEach(put);
    for (const edge of edges) {
      const length = edge.to.rank - edge.from.rank;
      edge.far = length > FAR;
      edge.through = [];
      if (edge.far) continue;
      let before = edge.from;
      for (let rank = edge.from.rank + 1; rank < edge.to.rank; rank++) {
        const bend = { rank, width: 14, bend: true, up: [before], down: [] };
        if (before.bend) before.down = [bend];
        edge.through.push(bend);
        put(bend);
        before = bend;
      }
      if (before.bend) before.down = [edge.to];
    }
    for (let i = 0; i < ranks.length; i++) ranks[i] ||= [];
    for (const node of nodes) {
      const near = node.before.filter((edge) => !edge.far), next = node.after.filter((edge) => !edge.far);
      node.up = near.map((edge) => edge.through[edge.through.length - 1] || edge.from);
      node.down = next.map((edge) => edge.through[0] || edge.to);
    }
    const number = () => ranks.forEach((rank) => rank.forEach((item, place) => (item.at = place / Math.max(1, rank.length))));
    number();
    const middle = (items, otherwise) => items.length ? items.reduce((sum, item) => sum + item.at, 0) / items.length : otherwise;
    for (let sweep = 0; sweep < 8; sweep++) {
      const down = sweep % 2 === 0;
      for (const rank of down ? ranks : [...ranks].reverse()) {
        for (const item of rank) item.wish = middle(down ? item.up : item.down, item.at);
        rank.sort((a, b) => a.wish - b.wish);
        rank.forEach((item, place) => (item.at = (place + 0.5) / rank.length));
      }
    }
    for (const rank of ranks) {
      let x = 0;
      for (const item of rank) { item.x = x + item.width / 2; x += item.width + SPACE; }
      for (const item of rank) item.x -= x / 2;
    }
    for (let sweep = 0; sweep < 14; sweep++) {
      const down = sweep % 2 === 0;
      for (const rank of down ? ranks : [...ranks].reverse()) {
        for (const item of rank) {
          const near = down ? item.up : item.down;
          item.wish = near.length ? near.reduce((sum, other) => sum + other.x, 0) / near.length : item.x;
        }
        spread(rank);
      }
    }
    return ranks.flat();
  }
  // Positions nearest to those wished for that keep the order and do not overlap.
  function spread(rank) {
    const blocks = [];
    let offset = 0;
    rank.forEach((item, place) => {
      if (place) offset += (rank[place - 1].width + item.width) / 2 + SPACE;
      item.offset = offset;
      const weight = item.bend ? 3 : 1;
      blocks.push({ sum: (item.wish - offset) * weight, weight, items: [item] });
      while (blocks.length > 1) {
        const last = blocks[blocks.length - 1], before = blocks[blocks.length - 2];
        if (before.sum / before.weight <= last.sum / last.weight) break;
        blocks.pop();
        before.sum += last.sum;
        before.weight += last.weight;
        before.items.push(...last.items);
      }
    });
    for (const block of blocks) for (const item of block.items) item.x = block.sum / block.weight + item.offset;
  }
  const second = (call) => {
    if (call.alias !== undefined) return `shares memory of %${call.alias}`;
    if (!call.dispatches.length) return call.writes.length ? "on the host, before the step" : "nothing to run";
    if (call.name.includes("elementwise_chain") && call.from) return clip(call.from.map(([, name]) => short(name)).join(", "), 40);
    const kernels = [...new Set(call.dispatches.map((dispatch) => dispatch.kernel))];
    const route = call.route ? `${call.route}: ` : "";
    return clip(route + kernels.join(", "), 40) + (call.dispatches.length > 1 ? ` ×${call.dispatches.length}` : "");
  };

  // -- one graph on the page --------------------------------------------------------------------------------------------
  function Drawing(panel) {
    const graph = data.graphs[panel.dataset.graph];
    const area = panel.querySelector(".drawing"), details = panel.querySelector(".details");
    const search = panel.querySelector("input"), found = panel.querySelector(".found"), fold = panel.querySelector(".fold");
    const svg = make("svg", { "aria-hidden": "true" }), world = make("g");
    svg.append(world);
    area.append(svg);
    const unfolded = new Set();
    let drawn, elements, view = { x: 0, y: 0, scale: 1 }, chosen = null, query = "", hits = [], hit = -1;
    const writers = new Map();
    const readersOf = new Map();
    graph.calls.forEach((call, place) => {
      for (const id of call.writes) writers.set(id, place);
      for (const id of call.reads) readersOf.set(id, [...(readersOf.get(id) || []), place]);
    });

    function draw() {
      drawn = visible(graph, unfolded);
      layOut(graph, drawn);
      world.replaceChildren();
      elements = new Map();
      drawn.repeats.forEach((repeat, number) => {
        const inside = drawn.nodes.filter((node) => node.kind === "call" && node.repeat === number);
        if (!inside.length || unfolded.has(number)) return;
        const left = Math.min(...inside.map((node) => node.x - node.width / 2)) - 24, right = Math.max(...inside.map((node) => node.x + node.width / 2)) + 24;
        const top = Math.min(...inside.map((node) => node.y)) - 34, bottom = Math.max(...inside.map((node) => node.y)) + NODE + 16;
        world.append(make("rect", { class: "frame", x: left, y: top, width: right - left, height: bottom - top, rx: 12 }));
        world.append(make("text", { class: "frame-title", x: left + 12, y: top + 17 }, `${repeat.count} layers alike: the first one of calls ${graph.calls[repeat.start].index} to ${graph.calls[repeat.end - 1].index}`));
      });
      const lines = make("g");
      world.append(lines);
      for (const edge of drawn.edges) line(lines, edge);
      for (const node of drawn.nodes) box(node);
      mark();
      fold.hidden = !graph.repeats.length;
      fold.textContent = unfolded.size ? "Fold layers that are alike" : "Show all layers";
    }
    function line(lines, edge) {
      const outs = edge.from.after, slots = [...new Set(outs.map((each) => each.slot))].sort((a, b) => a - b), place = slots.indexOf(edge.slot), many = slots.length;
      const start = [edge.from.x + (many > 1 ? ((place + 1) / (many + 1) - 0.5) * edge.from.width * 0.8 : 0), edge.from.y + NODE];
      const ins = edge.to.before, slot = ins.indexOf(edge);
      const end = [edge.to.x + (ins.length > 1 ? ((slot + 1) / (ins.length + 1) - 0.5) * edge.to.width * 0.8 : 0), edge.to.y - 4];
      const group = make("g");
      const value = graph.values[edge.id];
      if (edge.far) { // its ends only
        for (const [x, y, text, way] of [[start[0], start[1] + 14, `%${edge.id} ↓`, 1], [end[0], end[1] - 6, `↓ %${edge.id}`, -1]]) {
          group.append(make("text", { class: "tag", x: x - 5, y, "text-anchor": "end" }, text));
          group.append(make("line", { class: "edge", x1: x, x2: x, y1: y, y2: y - way * 14 }));
        }
      } else {
        const points = [start, ...edge.through.map((bend) => [bend.x, bend.y + NODE / 2]), end];
        let path = `M${start}`;
        for (let i = 1; i < points.length; i++) {
          const [a, b] = [points[i - 1], points[i]], half = (a[1] + b[1]) / 2;
          path += `C${a[0]},${half} ${b[0]},${half} ${b}`;
        }
        group.append(make("path", { class: "edge", d: path, ...(edge.way === "state" ? { "stroke-dasharray": "3 3" } : {}) }));
        const hitArea = make("path", { class: "edge-hit", d: path });
        hitArea.append(make("title", {}, `%${edge.id}: ${written(value)}, ${size(value.bytes)}`));
        group.append(hitArea);
        group.append(make("path", { class: "arrowhead", d: `M${end[0] - 3.5},${end[1] - 3}L${end[0] + 3.5},${end[1] - 3}L${end[0]},${end[1] + 3}Z` }));
        if (outs.find((each) => each.slot === edge.slot) === edge && value.dtype !== "live integer") {
          group.append(make("text", { class: "tag", x: start[0] + 5, y: start[1] + 11 + (place % 3) * 10.5 }, clip(`${value.dims.join("×") || "scalar"} ${value.dtype.replace("float", "f").replace("int", "i")}`, 30)));
        }
      }
      lines.append(group);
      edge.element = group.querySelector(".edge");
    }
    function box(node) {
      const kind = node.kind === "call" ? (node.call.changes.length ? " writes" : node.call.alias !== undefined || !node.call.dispatches.length ? " alias" : node.call.from && node.call.from.length > 1 ? " fused" : "") : " end";
      const group = make("g", { class: "node" + kind, transform: `translate(${node.x - node.width / 2},${node.y})` });
      group.append(make("rect", { width: node.width, height: NODE, rx: 7 }), make("rect", { class: "stripe", x: 0.6, y: 7, width: 4, height: NODE - 14, rx: 2 }));
      const room = Math.floor((node.width - 22) / LETTER);
      group.append(make("text", { x: 13, y: 18 }, clip(node.title, room)), make("text", { class: "small", x: 13, y: 34 }, clip(node.line, Math.floor((node.width - 22) / 6.35))));
      if (node.kind === "call" && node.call.from && node.call.from.length > 1) {
        group.append(make("text", { class: "small", x: node.width - 8, y: 18, "text-anchor": "end" }, `${node.call.from.length}→1`));
      }
      group.addEventListener("click", (event) => { if (!moved) select(node.kind === "call" ? node.place : node.key); event.stopPropagation(); });
      world.append(group);
      elements.set(node.key, group);
    }
    const nodeOf = (what) => drawn.nodes.find((node) => node.key === (typeof what === "number" ? `c${drawn.places[what].shown}` : what));
    function mark() {
      const matching = query ? new Set(hits.map((place) => `c${drawn.places[place].shown}`)) : null;
      const current = chosen === null ? null : nodeOf(chosen);
      for (const [key, element] of elements) {
        element.classList.toggle("dim", Boolean(matching) && !matching.has(key));
        element.classList.toggle("chosen", Boolean(current) && current.key === key);
      }
      for (const edge of drawn.edges) edge.element?.classList.toggle("near", Boolean(current) && (edge.from === current || edge.to === current));
    }

    // -- looking and moving ---------------------------------------------------------------------------------------------
    const place = () => world.setAttribute("transform", `translate(${view.x},${view.y}) scale(${view.scale})`);
    function bounds() {
      const xs = drawn.nodes.flatMap((node) => [node.x - node.width / 2, node.x + node.width / 2]), ys = drawn.nodes.map((node) => node.y);
      return { left: Math.min(...xs) - 30, right: Math.max(...xs) + 30, top: Math.min(...ys) - 44, bottom: Math.max(...ys) + NODE + 30 };
    }
    function fit(whole) {
      if (!drawn.nodes.length) return;
      const box = bounds(), [wide, tall] = [area.clientWidth || 900, area.clientHeight || 600];
      const byWidth = wide / (box.right - box.left), byHeight = tall / (box.bottom - box.top);
      const scale = Math.min(1, whole ? Math.min(byWidth, byHeight) : Math.max(byWidth, 0.75));
      const centre = whole || byWidth >= 0.75 ? (box.left + box.right) / 2 : drawn.nodes[0].x;
      view = { scale, x: wide / 2 - centre * scale, y: whole && byHeight < byWidth ? tall / 2 - ((box.top + box.bottom) / 2) * scale : -box.top * scale };
      place();
    }
    function zoom(factor, x = area.clientWidth / 2, y = area.clientHeight / 2) {
      const scale = Math.min(2.5, Math.max(0.04, view.scale * factor));
      view = { scale, x: x - ((x - view.x) * scale) / view.scale, y: y - ((y - view.y) * scale) / view.scale };
      place();
    }
    function centre(node) {
      const [wide, tall] = [area.clientWidth, area.clientHeight], [x, y] = [node.x * view.scale + view.x, (node.y + NODE / 2) * view.scale + view.y];
      if (x > 80 && x < wide - 80 && y > 60 && y < tall - 60) return;
      view = { ...view, x: wide / 2 - node.x * view.scale, y: tall / 2 - node.y * view.scale };
      place();
    }
    let drag = null, moved = false;
    area.addEventListener("pointerdown", (event) => { drag = { x: event.clientX - view.x, y: event.clientY - view.y, from: [event.clientX, event.clientY] }; moved = false; });
    area.addEventListener("pointermove", (event) => {
      if (!drag || !event.buttons) { drag = null; return; }
      if (!moved && Math.hypot(event.clientX - drag.from[0], event.clientY - drag.from[1]) < 4) return;
      if (!moved) area.setPointerCapture(event.pointerId);
      moved = true;
      area.classList.add("moving");
      view = { ...view, x: event.clientX - drag.x, y: event.clientY - drag.y };
      place();
    });
    area.addEventListener("pointerup", () => { drag = null; area.classList.remove("moving"); });
    area.addEventListener("wheel", (event) => {
      const box = area.getBoundingClientRect();
      if (event.ctrlKey || event.metaKey) zoom(Math.exp(-event.deltaY / 400), event.clientX - box.left, event.clientY - box.top);
      else if (document.activeElement === area) { view = { ...view, x: view.x - event.deltaX, y: view.y - event.deltaY }; place(); }
      else return; // the page scrolls, until the drawing has the focus
      event.preventDefault();
    }, { passive: false });
    const step = (direction) => {
      const calls = drawn.nodes.filter((node) => node.kind === "call").map((node) => node.place).sort((a, b) => a - b);
      const current = typeof chosen === "number" ? drawn.places[chosen].shown : null;
      const at = current === null ? (direction > 0 ? 0 : calls.length - 1) : calls.indexOf(current) + direction;
      if (calls[at] !== undefined) select(calls[at]);
    };
    const actions = { fit: () => fit(true), in: () => zoom(1.3), out: () => zoom(1 / 1.3) };
    const keys = { ArrowDown: () => step(1), ArrowUp: () => step(-1), "+": actions.in, "=": actions.in, "-": actions.out, "0": actions.fit, Escape: () => select(null) };
    area.addEventListener("keydown", (event) => {
      const action = !event.ctrlKey && !event.metaKey && keys[event.key];
      if (action) { action(); event.preventDefault(); }
    });
    for (const button of panel.querySelectorAll("[data-do]")) button.addEventListener("click", actions[button.dataset.do]);
    fold.addEventListener("click", () => {
      if (unfolded.size) unfolded.clear();
      else graph.repeats.forEach((_, number) => unfolded.add(number));
      draw();
      fit(false);
    });
    search.addEventListener("input", () => {
      query = search.value.trim().toLowerCase();
      hits = query ? graph.calls.map((_, at) => at).filter((at) => matches(graph.calls[at])) : [];
      hit = -1;
      found.textContent = query ? `${hits.length} of ${graph.calls.length} calls` : "";
      mark();
    });
    search.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || !hits.length) return;
      hit = (hit + (event.shiftKey ? hits.length - 1 : 1)) % hits.length;
      select(hits[hit]);
      found.textContent = `${hit + 1} of ${hits.length}`;
    });
    const matches = (call) =>
      /^%-?\d+$/.test(query)
        ? [...call.reads, ...call.writes].includes(Number(query.slice(1)))
        : [call.name, call.route || "", ...call.dispatches.map((dispatch) => dispatch.kernel), ...(call.from || []).map((source) => source[1])].some((text) => text.toLowerCase().includes(query));

    // -- details --------------------------------------------------------------------------------------------------------
    function select(what) {
      chosen = what;
      mark();
      if (typeof what === "number") history.replaceState(null, "", `#graph-${panel.dataset.graph}/${graph.calls[what].index}`);
      if (what === null) { details.replaceChildren(html("p", "Select a call to see its arguments, kernels and what it was made of.", "hint")); return; }
      centre(nodeOf(what));
      details.replaceChildren(...(typeof what === "number" ? aboutCall(what) : aboutEnd(nodeOf(what))));
      details.scrollTop = 0;
    }
    this.select = select;
    this.writers = writers;
    const heading = (text) => html("h5", text);
    function valueItem(id, end = "") {
      const item = html("li"), value = graph.values[id];
      item.append(html("span", `%${id} ${written(value)}`, "mono"));
      const what = { constant: "constant", cache: "KV cache", state: "buffer", input: "input" }[value.kind];
      const notes = [what, value.bytes ? size(value.bytes) : "", end].filter(Boolean).join(", ");
      if (notes) item.append(html("span", ` ${notes}`, "soft"));
      return item;
    }
    function jump(text, at) {
      const button = html("button", text, "link");
      button.type = "button";
      button.addEventListener("click", () => select(at));
      return button;
    }
    function list(items) { const made = html("ul"); made.append(...items); return made; }
    function aboutEnd(node) {
      const parts = [html("h4", node.label), list([valueItem(node.value)])];
      const others = (readersOf.get(node.value) || []).map((at) => { const item = html("li"); item.append(jump(`${graph.calls[at].index} ${short(graph.calls[at].name)}`, at)); return item; });
      if (others.length && node.kind === "input") parts.push(heading(`Read by ${others.length} calls`), list(others));
      return parts;
    }
    function aboutCall(at) {
      const call = graph.calls[at], where = drawn.places[at], known = data.operators[call.name] || {};
      const parts = [html("h4", `${call.index}  ${call.name}`)];
      const says = (known.says || "").split("\n\n")[0];
      if (says) { // code stands between doubled backticks
        const text = html("p", null, "soft");
        text.append(...says.split("``").map((part, number) => (number % 2 ? html("code", part) : part)));
        parts.push(text);
      }
      if (where.repeat >= 0) {
        const { start, period, count } = drawn.repeats[where.repeat], pick = html("select"), row = html("p", "Layer ");
        for (let layer = 0; layer < count; layer++) pick.append(new Option(`${layer + 1} of ${count}`, layer, false, layer === where.layer));
        pick.setAttribute("aria-label", "Layer");
        pick.addEventListener("change", () => select(start + ((at - start) % period) + Number(pick.value) * period));
        row.append(pick);
        parts.push(row);
      }
      parts.push(heading("Reads"), list(call.reads.map((id) => {
        const item = valueItem(id), source = writers.get(id);
        if (source !== undefined && source !== at) item.append(" from ", jump(`${graph.calls[source].index} ${short(graph.calls[source].name)}`, source));
        return item;
      })));
      parts.push(heading("Writes"), list(call.writes.map((id) => {
        const item = valueItem(id), readers = [...new Set(readersOf.get(id) || [])];
        readers.slice(0, 6).forEach((reader, number) => item.append(number ? ", " : " read by ", jump(`${graph.calls[reader].index} ${short(graph.calls[reader].name)}`, reader)));
        if (readers.length > 6) item.append(` and ${readers.length - 6} more`);
        if (graph.outputs.includes(id)) item.append(" an output");
        return item;
      })));
      if (call.changes.length) parts.push(heading("Changes in place"), list(call.changes.map((id) => valueItem(id))));
      if (call.alias !== undefined) parts.push(html("p", `Its result shares the memory of %${call.alias}, so nothing runs.`));
      if (call.dispatches.length) {
        parts.push(heading(`${call.dispatches.length} dispatch${call.dispatches.length > 1 ? "es" : ""} at the largest sizes${call.route ? `, route ${call.route}` : ""}`));
        for (const dispatch of call.dispatches) {
          const groups = dispatch.grid.reduce((product, n) => product * n, 1), facts = html("dl", null, "facts");
          const fact = (name, text) => { if (text) facts.append(html("dt", name), html("dd", text, "mono")); };
          fact("kernel", dispatch.kernel);
          fact("variant", dispatch.variant);
          fact("workgroups", `${dispatch.grid.join(" × ")}${dispatch.grid[1] * dispatch.grid[2] > 1 ? ` = ${groups.toLocaleString("en")}` : ""}`);
          fact("binds", Object.entries(dispatch.binds).map(([name, what]) => `${name}: ${what}`).join("; "));
          fact("params", dispatch.params);
          fact("overrides", dispatch.overrides);
          parts.push(facts, html("hr"));
        }
        parts.pop();
      }
      if (call.from) {
        parts.push(heading(`Made of ${call.from.length} call${call.from.length > 1 ? "s" : ""} of the program`));
        parts.push(list(call.from.map(([index, name]) => html("li", `${index} ${name}`, "mono"))));
      }
      const facts = html("dl", null, "facts");
      for (const [name, text] of call.args) facts.append(html("dt", name), html("dd", text, "mono"));
      parts.push(heading("Arguments"), facts);
      if (known.reference) {
        parts.push(heading("Reference in float64"), html("p", known.reference, "mono"));
        if (known.source) parts.push(html("pre", known.source));
      }
      return parts;
    }
    draw();
    fit(false);
    addEventListener("resize", () => fit(false));
    this.graph = graph;
  }

  // -- memory -----------------------------------------------------------------------------------------------------------
  function memory(canvas) {
    const { memory: plan } = data.graphs[canvas.dataset.graph], drawing = drawings[canvas.dataset.graph];
    const total = plan.slots.reduce((sum, slot) => sum + slot, 0), LEFT = 92, ALIVE = 84;
    const heights = plan.slots.map((slot) => Math.max(10, (slot / total) * 300));
    const tops = [];
    let height = 8;
    for (const tall of heights) { tops.push(height); height += tall + 3; }
    const base = height + ALIVE + 14, all = base + 24;
    const tip = Object.assign(html("div", null, "tip"), { hidden: true });
    document.body.append(tip);
    const values = data.graphs[canvas.dataset.graph].values, peak = Math.max(...plan.alive, 1);
    const x = (call) => LEFT + (call / (plan.calls + 1)) * (canvas.clientWidth - LEFT - 12);
    function draw() {
      const ratio = devicePixelRatio || 1, width = canvas.clientWidth, style = getComputedStyle(document.documentElement);
      const colour = (name) => style.getPropertyValue("--" + name).trim(), dark = matchMedia("(prefers-color-scheme: dark)").matches;
      canvas.width = width * ratio;
      canvas.height = all * ratio;
      canvas.style.height = all + "px";
      const pen = canvas.getContext("2d");
      pen.scale(ratio, ratio);
      pen.font = "11px ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace";
      pen.textBaseline = "middle";
      plan.slots.forEach((slot, number) => {
        pen.fillStyle = colour("raised");
        pen.fillRect(LEFT, tops[number], width - LEFT - 12, heights[number]);
        if (heights[number] > 9) {
          pen.fillStyle = colour("soft");
          pen.textAlign = "right";
          pen.fillText(size(slot), LEFT - 8, tops[number] + heights[number] / 2);
        }
      });
      pen.textAlign = "left";
      for (const [id, slot, first, last, bytes] of plan.tenants) {
        const tall = Math.max(4, (heights[slot] * bytes) / plan.slots[slot]);
        const [left, right] = [x(first), x(Math.min(last, plan.calls) + 1)];
        pen.fillStyle = `hsl(${(Math.abs(id) * 47) % 360} ${dark ? "34% 46%" : "42% 66%"})`;
        pen.fillRect(left, tops[slot] + heights[slot] - tall, Math.max(1, right - left - 0.6), tall);
        if (right - left > 44 && tall > 12) {
          pen.fillStyle = dark ? "#0d0f12" : "#1d1f23";
          pen.fillText(`%${id}`, left + 4, tops[slot] + heights[slot] - tall / 2);
        }
      }
      pen.beginPath();
      pen.moveTo(x(0), base);
      plan.alive.forEach((bytes, call) => { const y = base - (bytes / peak) * ALIVE; pen.lineTo(x(call), y); pen.lineTo(x(call + 1), y); });
      pen.lineTo(x(plan.alive.length), base);
      pen.fillStyle = colour("accent-soft");
      pen.strokeStyle = colour("accent");
      pen.fill();
      pen.stroke();
      pen.fillStyle = colour("soft");
      pen.textAlign = "right";
      pen.fillText(size(peak), LEFT - 8, base - ALIVE + 5);
      pen.fillText("alive", LEFT - 8, base - ALIVE / 2);
      pen.textAlign = "left";
      pen.fillText("call 0", LEFT, base + 12);
      pen.textAlign = "right";
      pen.fillText(`call ${plan.calls - 1}`, width - 12, base + 12);
    }
    const under = (event) => {
      const box = canvas.getBoundingClientRect(), px = event.clientX - box.left, py = event.clientY - box.top;
      return plan.tenants.find(([, slot, first, last]) => px >= x(first) && px < x(Math.min(last, plan.calls) + 1) && py >= tops[slot] && py < tops[slot] + heights[slot]);
    };
    canvas.addEventListener("pointermove", (event) => {
      const tenant = under(event);
      tip.hidden = !tenant;
      if (!tenant) return;
      const [id, slot, first, last, bytes] = tenant;
      tip.textContent = `%${id} ${values[id] ? written(values[id]) : ""}\n${size(bytes)} in slot ${slot}, ${last >= plan.calls ? `from call ${first} to the end` : `calls ${first} to ${last}`}`;
      tip.style.left = Math.min(event.clientX + 14, innerWidth - 320) + "px";
      tip.style.top = event.clientY + 16 + "px";
    });
    canvas.addEventListener("pointerleave", () => (tip.hidden = true));
    canvas.addEventListener("click", (event) => {
      const tenant = under(event), at = tenant && drawing.writers.get(tenant[0]);
      if (at !== undefined) { drawing.select(at); document.getElementById(`graph-${canvas.dataset.graph}`).scrollIntoView(); }
    });
    addEventListener("resize", draw);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
    draw();
  }
  for (const panel of document.querySelectorAll(".graph")) drawings[panel.dataset.graph] = new Drawing(panel);
  document.querySelectorAll("canvas.memory").forEach(memory);
  const asked = /^#graph-(\d+)\/(\d+)$/.exec(location.hash); // a link to a call
  const at = asked && drawings[asked[1]] ? drawings[asked[1]].graph.calls.findIndex((call) => call.index === Number(asked[2])) : -1;
  if (at >= 0) {
    drawings[asked[1]].select(at);
    document.getElementById(`graph-${asked[1]}`).scrollIntoView();
  }
  document.documentElement.dataset.drawn = String(document.querySelectorAll(".node").length);
})();
