// The viewer of a report, and its table of samples; it comes after images.js.

// What needs no page: tests run it in node.

/** The samples' numbers (null: none) in order, the worst first or last, those without a number at the end. */
function sorted(values, lowerIsBetter, worstFirst = true) {
  const sign = lowerIsBetter === worstFirst ? -1 : 1;
  return [...values.keys()].sort((a, b) =>
    values[a] === null || values[b] === null ? (values[a] === null) - (values[b] === null) : sign * (values[a] - values[b]) || a - b);
}

/** A number of a table, as `medjax.report.table.texts` has it. */
function written(value, decimals) {
  if (value === null) return "–";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  const tiny = value !== 0 && Math.abs(value) < 10 ** (1 - decimals) && decimals > 4;
  return (tiny || Math.abs(value) >= 1e7 ? value.toExponential(2) : value.toFixed(decimals))
    .replace(/e([+-])(\d)$/, "e$10$2").replaceAll("-", "−");
}

/** A round length, of 1, 2 or 5 times a power of ten: the longest up to `most`. */
function roundLength(most) {
  const decade = 10 ** Math.floor(Math.log10(most));
  return [5, 2, 1].find(step => step * decade <= most * (1 + 1e-9)) * decade;
}

const at = id => document.getElementById(id);

function element(tag, text = "", attributes = {}) {
  const made = document.createElement(tag);
  made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

/** Fills a <select> with words. */
const fill = (select, words) => select.replaceChildren(...words.map((word, i) => element("option", word, { value: i })));

/** Shows the images; returns `go(name)`, which shows a sample by its name. `told(name)` hears which one is shown. */
function viewer(content, table, told) {
  const panes = [...document.querySelectorAll("#stage .pane")], { samples, span, units, levels } = content;
  const colours = content.palette.map(hex => [0, 2, 4].map(i => parseInt(hex.slice(i, i + 2), 16)));
  const decoded = new Map();  // of the sample that is shown
  const loaded = new Promise(done => document.addEventListener("DOMContentLoaded", done));
  const view = { wipe: 0.5, level: 0, width: 1, zoom: 1, overlay: "", opacity: 0.8, axis: 0, cross: false };
  let sample = null, rows = [], images = null, number = -1, preset = -1;

  const volume = () => sample.shape[0] > 1;
  const right = () => rows[view.right], left = () => rows[view.left];
  const sign = text => text.replace("-", "−");

  // Images.

  function decode(code, channels) {
    const shape = [...sample.shape, channels], read = async () => {
      if (!at(`image-${code}`)) await loaded;
      return { levels: await inflated(at(`image-${code}`).textContent), shape };
    };
    if (!decoded.has(code)) decoded.set(code, read());
    return decoded.get(code);
  }

  /** What has to be there for the view: the two images, and for overlays the truth, the mask and the half-width. */
  async function load() {
    const wanted = number, names = new Set([left(), right(), ...(content.truth in sample.images ? [content.truth] : [])]);
    const found = {};
    try {
      for (const row of names) found[row] = await decode(sample.images[row], sample.channels[row]);
      if (sample.mask) found.mask = await decode(sample.mask, 1);
      if (sample.half) found.half = await decode(sample.half.image, 1);
    } catch {
      at("values").textContent = "this browser can't show the images; use a current Chrome, Firefox or Safari";
      return;
    }
    if (number !== wanted || !(left() in found) || !(right() in found)) return;  // another was asked for meanwhile
    images = { rows: found, mask: found.mask, half: found.half };
    draw();
    performance.mark("medjax-drawn");
  }

  const valueOf = (image, from) => {
    let sum = 0;
    for (let c = 0; c < image.shape[3]; c++) sum += image.levels[from * image.shape[3] + c];
    return span[0] + (span[1] - span[0]) * sum / image.shape[3] / levels;
  };

  function errorOf(row, from) {
    const image = images.rows[row], truth = images.rows[content.truth], channels = Math.max(image.shape[3], truth.shape[3]);
    let sum = 0;
    for (let c = 0; c < channels; c++)
      sum += Math.abs(image.levels[image.shape[3] === 1 ? from : 3 * from + c] - truth.levels[truth.shape[3] === 1 ? from : 3 * from + c]);
    return sum / channels / levels * (span[1] - span[0]);
  }

  const halfOf = from => images.half.levels[from] / levels * sample.half.top;

  /** What the overlay shows of a row by place, null where it shows nothing. */
  function overlaid(row) {
    if (view.overlay === "error" && row !== content.truth && content.truth in images.rows) return from => errorOf(row, from);
    if (view.overlay === "half" && row === content.estimate && images.half) return halfOf;
    return null;
  }

  // Drawing.

  /** Where a plane lies in its canvas: [x, y] of its corner, and the size of a voxel. */
  function placed(axis, canvas) {
    const turned = sample.anatomical && axis > 0, place = plane([...sample.shape, 1], axis, view.cursor[axis]);
    const tall = sample.spacing[place.row], wide = sample.spacing[place.column];
    const scale = view.zoom * Math.min(canvas.width / (place.columns * wide), canvas.height / (place.rows * tall));
    const row = view.centre[place.row], size = [wide * scale, tall * scale];
    const corner = [canvas.width / 2 - view.centre[place.column] * size[0],
                    canvas.height / 2 - (turned ? place.rows - row : row) * size[1]];
    return { turned, place: turned ? flipped(place) : place, corner, size, scale };
  }

  function drawPane(pane) {
    const axis = Number(pane.dataset.axis), canvas = pane.querySelector("canvas"), context = canvas.getContext("2d");
    sized(canvas, pane);
    const { turned, place, corner, size, scale } = placed(axis, canvas);
    const whole = [...corner, place.columns * size[0], place.rows * size[1]], edge = view.wipe * canvas.width;
    context.imageSmoothingEnabled = Math.min(...size) < 1;
    for (const [row, from, to] of [[left(), 0, edge], [right(), edge, canvas.width]]) {
      if (from === to) continue;
      const image = images.rows[row], of = image.shape[3], over = overlaid(row);
      const base = { ...place, start: place.start * of, down: place.down * of, across: place.across * of };
      context.save();
      context.beginPath();
      context.rect(from, 0, to - from, canvas.height);
      context.clip();
      context.drawImage(painted(base, shades(image, view.table)), ...whole);
      if (over) {
        context.globalAlpha = view.opacity;
        context.drawImage(painted(place, (data, i, voxel) => {
          if (images.mask && !images.mask.levels[voxel]) return;
          data.set(colours[Math.min(Math.round(255 * over(voxel) / sample.limit), 255)], i);
          data[i + 3] = 255;
        }), ...whole);
      }
      context.restore();
    }
    if (view.cross) {
      const row = view.cursor[place.row], x = corner[0] + (view.cursor[place.column] + 0.5) * size[0];
      const y = corner[1] + ((turned ? place.rows - 1 - row : row) + 0.5) * size[1], gap = Math.max(6, 1.5 * size[0]);
      context.strokeStyle = "rgb(255 210 60 / 80%)";
      context.beginPath();
      for (const [a, b] of [[0, x - gap], [x + gap, canvas.width]]) if (b > a) { context.moveTo(a, y); context.lineTo(b, y); }
      for (const [a, b] of [[0, y - gap], [y + gap, canvas.height]]) if (b > a) { context.moveTo(x, a); context.lineTo(x, b); }
      context.stroke();
    }
    if (sample.in_mm && axis === 0) {
      const length = roundLength(canvas.width / scale / 4), ratio = window.devicePixelRatio || 1;
      context.fillStyle = context.strokeStyle = "#fff";
      context.shadowColor = "#000";
      context.shadowBlur = 3;
      context.fillRect(10 * ratio, canvas.height - 12 * ratio, length * scale, 3 * ratio);
      context.font = `${12 * ratio}px system-ui, sans-serif`;
      context.fillText(`${length} mm`, 10 * ratio, canvas.height - 17 * ratio);
    }
    const [one, other] = pane.querySelectorAll(".name");
    one.textContent = view.wipe > 0.02 ? left() : "";
    other.textContent = view.wipe < 0.98 ? right() : "";
    pane.querySelector(".line").style.left = `${100 * view.wipe}%`;
  }

  function draw() {
    if (!images) return;
    view.table = brightness(span, levels, view);
    for (const pane of panes) if (!pane.hidden) drawPane(pane);
    at("window").textContent = `${windowText(view, span, units)} · zoom ${view.zoom.toFixed(1)}`;
    at("slice").max = sample.shape[view.axis] - 1;
    at("slice").value = view.cursor[view.axis];
    at("wipe").value = 100 * view.wipe;
    at("opacity").value = 100 * view.opacity;
    at("left").value = view.left;
    at("right").value = view.right;
    for (const name of ["error", "half", "cross"])
      document.querySelector(`[data-do=${name}]`).setAttribute("aria-pressed", name === "cross" ? view.cross : view.overlay === name);
    at("scale").hidden = !view.overlay;
    for (const pane of panes) pane.classList.toggle("chosen", Number(pane.dataset.axis) === view.axis);
    values();
  }

  /** What is at the cursor. */
  function values() {
    const [z, y, x] = view.cursor, [, height, width] = sample.shape, from = (z * height + y) * width + x;
    const inFile = sample.anatomical ? [z, height - 1 - y, width - 1 - x] : [z, y, x], parts = [];
    inFile[volume() ? 0 : 1] += sample.first;
    parts.push(volume() ? `slice ${inFile[0]}, row ${inFile[1]}, column ${inFile[2]}` : `row ${inFile[1]}, column ${inFile[2]}`);
    const say = value => sign(span[1] - span[0] > 100 ? value.toFixed(1) : value.toPrecision(3));
    for (const row of new Set([left(), right()])) {
      let text = `${row} ${say(valueOf(images.rows[row], from))}`;
      if (row !== content.truth && content.truth in images.rows && !(images.mask && !images.mask.levels[from]))
        text += `, ${content.error} ${say(errorOf(row, from))}`;
      if (row === content.estimate && images.half) text += `, half-width ${say(halfOf(from))}`;
      parts.push(text);
    }
    at("values").textContent = `${parts.join(" · ")} ${units}`.trim();
  }

  const redraw = onceAFrame(draw);

  // Changes.

  function change(what) {
    if (!images) return;
    Object.assign(view, what);
    Object.assign(view, limited(view, span));
    view.zoom = clamp(view.zoom, 1, 32);
    view.wipe = clamp(view.wipe, 0, 1);
    view.opacity = clamp(view.opacity, 0, 1);
    view.centre = view.zoom === 1 ? sample.shape.map(size => size / 2) : view.centre.map((c, i) => clamp(c, 0, sample.shape[i]));
    view.cursor = view.cursor.map((c, i) => clamp(Math.round(c), 0, sample.shape[i] - 1));
    redraw();
  }

  const first = () => ({ level: (content.window[0] + content.window[1]) / 2, width: content.window[1] - content.window[0], zoom: 1 });
  const shift = (axis, by, of = view.cursor) => of.map((c, i) => i === axis ? c + by : c);

  /** Moves the images by pixels of the page. */
  function pan(pane, across, down) {
    const canvas = pane.querySelector("canvas"), ratio = canvas.width / pane.clientWidth;
    const { turned, place, size } = placed(Number(pane.dataset.axis), canvas);
    const moved = shift(place.column, -across * ratio / size[0], view.centre);
    change({ centre: shift(place.row, (turned ? 1 : -1) * down * ratio / size[1], moved) });
  }

  function tap(pane, x, y) {
    const axis = Number(pane.dataset.axis), canvas = pane.querySelector("canvas"), ratio = canvas.width / pane.clientWidth;
    const { turned, place, corner, size } = placed(axis, canvas), cursor = [...view.cursor];
    const row = Math.floor((y * ratio - corner[1]) / size[1]);
    cursor[place.column] = Math.floor((x * ratio - corner[0]) / size[0]);
    cursor[place.row] = turned ? place.rows - 1 - row : row;
    change({ cursor, axis, cross: true });
  }

  /** Arrow keys: the cursor by a voxel, with Shift the images by a tenth, in the chosen plane. */
  function arrow(across, down, moves) {
    const pane = panes[view.axis], { turned, place } = placed(view.axis, pane.querySelector("canvas"));
    if (moves) return pan(pane, -across * pane.clientWidth / 10, -down * pane.clientHeight / 10);
    change({ cursor: shift(place.row, turned ? -down : down, shift(place.column, across)), cross: true });
  }

  function choose(side, index) {
    if (!sample || index >= rows.length) return;
    view[side] = index;
    numbers();
    load();
  }

  function overlay(name) {
    const there = name === "error" ? content.truth in sample.images && rows.length > 1 : Boolean(sample.half);
    if (there) change({ overlay: view.overlay === name ? "" : name });
    if (view.overlay) at("limit").textContent = `${sample.limit} ${units}`.trim();
  }

  function swap() {
    [view.left, view.right] = [view.right, view.left];
    numbers();
    change({ wipe: view.wipe });
  }

  function reset() {
    preset = -1;
    change({ ...first(), centre: sample.shape.map(size => size / 2) });
  }

  function nextPreset() {
    const found = Object.values(content.presets);
    if (!found.length) return;
    preset = (preset + 1) % found.length;
    change({ level: found[preset][0], width: found[preset][1] });
  }

  /** The sample's numbers, of the two rows. */
  function numbers() {
    const place = table.names.indexOf(sample.name);
    const known = (row, metric) => parsed(table.rows[row]?.[metric.name]?.[place]);
    const some = names => names.filter(row => table.metrics.some(metric => known(row, metric) !== null));
    const shown = some([...new Set([left(), right()])]), chosen = shown.length ? shown : some(Object.keys(table.rows));
    const head = element("tr");
    head.append(element("th"), ...chosen.map(row => element("th", row, { scope: "col" })));
    const lines = table.metrics.filter(metric => chosen.some(row => known(row, metric) !== null)).map(metric => {
      const line = element("tr");
      line.append(element("th", metric.heading, { scope: "row" }),
                  ...chosen.map(row => element("td", written(known(row, metric), metric.decimals))));
      return line;
    });
    at("numbers").replaceChildren(head, ...lines);
    at("numbers").hidden = !lines.length;
  }

  function show(index) {
    if (index < 0 || index >= samples.length || index === number) return;
    const kept = sample ? [left(), right()] : null;
    number = index;
    sample = samples[index];
    images = null;
    decoded.clear();
    rows = Object.keys(sample.images);
    const find = (row, otherwise) => rows.includes(row) ? rows.indexOf(row) : otherwise;
    view.left = find(kept?.[0], 0);
    view.right = find(kept?.[1], find(content.estimate, rows.length - 1));
    fill(at("left"), rows);
    fill(at("right"), rows);
    at("sample").value = index;
    if (!kept) Object.assign(view, first(), { cross: volume() });
    Object.assign(view, { zoom: 1, axis: 0, cursor: sample.shape.map(size => size >> 1), centre: sample.shape.map(size => size / 2) });
    at("stage").classList.toggle("volume", volume());
    for (const pane of panes) pane.hidden = pane.dataset.axis !== "0" && !volume();
    at("slices").hidden = !volume();
    at("viewer").classList.toggle("single", rows.length < 2);
    at("overlays").hidden = sample.limit === null || rows.length < 2;
    document.querySelector("[data-do=half]").hidden = !sample.half;
    if (view.overlay === "half" && !sample.half) view.overlay = "";
    at("limit").textContent = `${sample.limit} ${units}`.trim();
    const cut = sample.shape[volume() ? 0 : 1];
    at("part").textContent = cut === sample.whole ? "" :
      `To keep the page small: ${volume() ? "slices" : "rows"} ${sample.first} to ${sample.first + cut - 1} of ${sample.whole}.`;
    numbers();
    told(sample.name);
    load();
  }

  // What the user does.

  const actions = {
    ...windowing(() => view, change), reset, swap,
    error: () => overlay("error"), half: () => overlay("half"), cross: () => change({ cross: !view.cross }), preset: nextPreset,
    next: () => change({ cursor: shift(view.axis, 1) }), before: () => change({ cursor: shift(view.axis, -1) }),
    plane: () => volume() && change({ axis: (view.axis + 1) % 3 }),
    "wipe-left": () => change({ wipe: view.wipe - 0.05 }), "wipe-right": () => change({ wipe: view.wipe + 0.05 }),
    "less": () => change({ opacity: view.opacity - 0.1 }), "more": () => change({ opacity: view.opacity + 0.1 }),
    "sample-before": () => show(number - 1), "sample-next": () => show(number + 1),
  };
  const keys = { "+": "zoom-in", "=": "zoom-in", "-": "zoom-out", w: "wider", n: "narrower", b: "brighter", d: "darker", c: "preset",
                 r: "reset", "[": "wipe-left", "]": "wipe-right", s: "swap", ",": "sample-before", ".": "sample-next", j: "next",
                 k: "before", v: "plane", x: "cross", e: "error", h: "half", o: "less", p: "more" };
  const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

  document.addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey || !images) return;
    if (event.target.matches("input:not([type=range]), select, textarea")) return;
    const key = event.key.toLowerCase(), digit = event.shiftKey && /^Digit([1-9])$/.exec(event.code)?.[1];
    if (/^[1-9]$/.test(key)) choose("right", Number(key) - 1);
    else if (digit) choose("left", Number(digit) - 1);
    else if (event.key in arrows && event.target === at("stage")) arrow(...arrows[event.key], event.shiftKey);
    else if (key in keys) actions[keys[key]]();
    else return;
    event.preventDefault();
  });

  for (const button of document.querySelectorAll("#viewer [data-do]"))
    button.addEventListener("click", () => images && actions[button.dataset.do]());
  for (const [name, [level, width]] of Object.entries(content.presets)) {
    const button = element("button", name, { type: "button" });
    button.addEventListener("click", () => {
      preset = [...at("presets").children].indexOf(button);
      change({ level, width });
    });
    at("presets").append(button);
  }
  for (const side of ["left", "right"]) at(side).addEventListener("change", () => choose(side, Number(at(side).value)));
  at("sample").addEventListener("change", () => show(Number(at("sample").value)));
  at("wipe").addEventListener("input", () => change({ wipe: at("wipe").value / 100 }));
  at("opacity").addEventListener("input", () => change({ opacity: at("opacity").value / 100 }));
  at("slice").addEventListener("input", () => change({ cursor: view.cursor.map((c, i) => i === view.axis ? Number(at("slice").value) : c) }));

  for (const pane of panes) {
    gestures(pane, () => images, {
      zoom: ratio => change({ zoom: view.zoom * ratio }),
      pan: (across, down) => pan(pane, across, down),
      window: (across, down) => change(dragged(view, span, across, down)),
      tap: (x, y) => tap(pane, x, y),
    });
    pane.addEventListener("wheel", event => {
      if (!images || !(event.ctrlKey || at("stage").contains(document.activeElement))) return;  // the page scrolls
      event.preventDefault();
      const up = event.deltaY < 0;
      if (event.ctrlKey || !volume()) return actions[up ? "zoom-in" : "zoom-out"]();
      change({ cursor: shift(Number(pane.dataset.axis), up ? -1 : 1) });
    }, { passive: false });
    const grip = pane.querySelector(".line i");
    grip.addEventListener("pointerdown", event => {
      event.stopPropagation();
      grip.setPointerCapture(event.pointerId);
    });
    grip.addEventListener("pointermove", event => {
      event.stopPropagation();
      const box = pane.getBoundingClientRect();
      if (grip.hasPointerCapture(event.pointerId)) change({ wipe: (event.clientX - box.x) / box.width });
    });
  }
  document.querySelector("[data-do=error]").textContent = content.error[0].toUpperCase() + content.error.slice(1);
  fill(at("sample"), samples.map(({ name }) => name));
  at("pick").hidden = samples.length < 2;
  at("viewer").hidden = false;
  new ResizeObserver(redraw).observe(at("stage"));
  show(0);
  return name => {
    show(samples.findIndex(one => one.name === name));
    at("viewer").scrollIntoView({ block: "start" });
    at("stage").focus({ preventScroll: true });
  };
}

/** A number as the page's JSON has it. */
const parsed = value => value === null || value === undefined ? null : Number(value);

const MOST_LINES = 200;  // of the table at a time

/** The table of samples, sorted and filtered; `go(name)` shows a sample of which there are images, `shown`. Returns `mark(name)`. */
function sampleTable(table, shown, go) {
  const methods = Object.keys(table.rows), has = new Set(shown);
  let order = null, worstFirst = true, current = "";
  fill(at("method"), methods);
  at("method").value = Math.max(methods.indexOf("model"), 0);

  function draw() {
    const scores = table.rows[methods[at("method").value]], wanted = at("filter").value.trim().toLowerCase();
    const metric = table.metrics.find(m => m.name === order), metrics = table.metrics.filter(m => m.name in scores);
    const places = metric && order in scores ? sorted(scores[order].map(parsed), metric.lower_is_better, worstFirst) : [...table.names.keys()];
    const found = places.filter(i => table.names[i].toLowerCase().includes(wanted));
    const head = element("tr");
    head.append(heading("sample", null), ...metrics.map(m => heading(`${m.heading} ${m.arrow}`, m)));
    const lines = found.slice(0, MOST_LINES).map(i => {
      const name = table.names[i], line = element("tr", "", name === current ? { class: "current" } : {});
      const cell = element("th", has.has(name) ? "" : name, { scope: "row" });
      if (has.has(name)) {
        const button = element("button", name, { type: "button", class: "shown", title: "show the images" });
        button.addEventListener("click", () => go(name));
        cell.append(button);
      }
      line.append(cell, ...metrics.map(m => element("td", written(parsed(scores[m.name][i]), m.decimals))));
      return line;
    });
    at("samples").querySelector("thead").replaceChildren(head);
    at("samples").querySelector("tbody").replaceChildren(...lines);
    at("found").textContent = `${lines.length < found.length ? `the first ${lines.length} of ` : ""}${found.length} of ` +
      `${table.names.length} samples, images of ${has.size}`;
  }

  function heading(text, metric) {
    const made = element("th", "", { scope: "col" }), button = element("button", text, { type: "button" });
    const name = metric?.name ?? null;
    if (name === order && metric)
      made.setAttribute("aria-sort", metric.lower_is_better === worstFirst ? "descending" : "ascending");
    button.title = metric ? "sort: worst first, then best first" : "in the order of the data";
    button.addEventListener("click", () => {
      worstFirst = name !== order || !worstFirst;
      order = name;
      draw();
      at("samples").querySelectorAll("thead button")[table.metrics.filter(m => m.name in table.rows[methods[at("method").value]])
        .findIndex(m => m.name === name) + 1].focus();
    });
    made.append(button);
    return made;
  }

  at("method").addEventListener("change", draw);
  at("filter").addEventListener("input", draw);
  draw();
  return name => {
    current = name;
    draw();
  };
}

function page() {
  const content = JSON.parse(at("shown").textContent), table = JSON.parse(at("scores").textContent);
  let go = () => {}, mark = () => {};
  if (at("samples")) mark = sampleTable(table, content.samples.map(({ name }) => name), name => go(name));
  if (content.samples.length) go = viewer(content, table, name => mark(name));
  for (const dot of document.querySelectorAll("[data-sample]")) {
    const name = dot.dataset.sample;
    if (!content.samples.some(sample => sample.name === name)) continue;
    dot.classList.add("shown");
    dot.addEventListener("click", () => go(name));
  }
}

if (typeof document === "undefined") module.exports = { sorted, written, roundLength };
else page();
