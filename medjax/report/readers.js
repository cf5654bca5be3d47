// The page of a reader study; it comes after images.js.

// What needs no page: tests run it in node.

/** One field of a CSV file; names may hold commas and quotes. */
function quoted(value) {
  const text = String(value);
  return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** All answers, by case in the order of the study: {code: {answer, seconds}}. */
function toCsv(study, reader, answers) {
  const lines = study.cases.map(({ code }) =>
    [study.study, reader, code, answers[code].answer, answers[code].seconds.toFixed(1)].map(quoted).join(","));
  return ["study,reader,case,answer,seconds", ...lines].join("\n") + "\n";
}

/** What a key answers; null where it answers nothing. */
function answerOf(key, scale) {
  if (scale === "preference") return { ArrowLeft: "left", ArrowRight: "right", ArrowDown: "none" }[key] ?? null;
  return /^[1-5]$/.test(key) ? key : null;
}

/** How an image is first shown: in the whole window, the middle slice. */
function firstView(study, depth) {
  const [low, high] = study.window;
  return { level: (low + high) / 2, width: high - low, zoom: 1, x: 0, y: 0, slice: Math.floor(depth / 2) };
}

/** The file's name, of letters that every system takes. */
function fileName(study, reader) {
  return `answers-${study.study}-${reader.replace(/[^\p{L}\p{N}]+/gu, "_")}.csv`;
}

function run() {
  const at = id => document.getElementById(id);
  const study = JSON.parse(at("study").textContent);
  const prefix = `medjax-readers:${study.study}:`;
  const panes = [...document.querySelectorAll(".pane")];
  const decoded = new Map();  // of this case and the next
  let reader = "", answers = {}, number = 0, view = null, images = null, since = null, spent = 0;

  // Answers are kept in this browser.

  function store() {
    try {
      localStorage.setItem(prefix + reader, JSON.stringify(answers));
    } catch {
      at("count").title = "this browser keeps nothing: do not close the page before the end";
    }
  }

  function stored(name) {
    try {
      return JSON.parse(localStorage.getItem(prefix + name)) ?? {};
    } catch {
      return {};
    }
  }

  function readers() {
    try {
      return Object.keys(localStorage).filter(key => key.startsWith(prefix)).map(key => key.slice(prefix.length));
    } catch {
      return [];
    }
  }

  // Images.

  function decode(code) {
    if (!decoded.has(code)) decoded.set(code, inflated(at(`image-${code}`).textContent).then(
      levels => ({ levels, ...study.images[code] })));
    return decoded.get(code);
  }

  function draw() {
    if (!images) return;
    const table = brightness(study.window, study.levels, view);
    panes.forEach((pane, i) => {
      const canvas = pane.querySelector("canvas"), image = images[i];
      sized(canvas, pane);
      const [, height, width] = image.shape, [row, column] = image.spacing;
      const scale = view.zoom * Math.min(canvas.width / (width * column), canvas.height / (height * row));
      const wide = width * column * scale, high = height * row * scale, context = canvas.getContext("2d");
      context.imageSmoothingQuality = "high";
      context.drawImage(painted(plane(image.shape, 0, view.slice), shades(image, table)),
                        (canvas.width - wide) / 2 + view.x * wide, (canvas.height - high) / 2 + view.y * high, wide, high);
    });
    const depth = images[0].shape[0];
    at("window").textContent = `${windowText(view, study.window, study.units)} · zoom ${view.zoom.toFixed(1)}`;
    at("slices").hidden = depth < 2;
    at("slider").max = depth - 1;
    at("slider").value = view.slice;
    at("slice").textContent = `slice ${view.slice + 1} of ${depth}`;
  }

  const redraw = onceAFrame(draw);

  function change(what) {
    if (!images) return;
    Object.assign(view, what);
    Object.assign(view, limited(view, study.window));
    view.zoom = clamp(view.zoom, 1, 16);
    const reach = view.zoom > 1 ? 0.5 : 0;
    view.x = clamp(view.x, -reach, reach);
    view.y = clamp(view.y, -reach, reach);
    view.slice = clamp(view.slice, 0, images[0].shape[0] - 1);
    redraw();
  }

  const reset = () => images && change({ ...firstView(study, images[0].shape[0]), slice: view.slice });

  // Cases, and the time that each is looked at.

  function pause() {
    if (since !== null) spent += (performance.now() - since) / 1000;
    since = null;
  }

  function resume() {
    if (images && since === null && !document.hidden) since = performance.now();
  }

  async function show(index) {
    pause();
    number = index;
    images = null;
    at("start").hidden = true;
    at("finish").hidden = index < study.cases.length;
    at("reading").hidden = index >= study.cases.length;
    if (index >= study.cases.length) return at("save").focus();
    const { code, images: codes } = study.cases[index];
    const done = Object.keys(answers).length;
    at("progress").value = done;
    at("count").textContent = `case ${index + 1} of ${study.cases.length}`;
    at("back").disabled = index === 0;
    for (const button of document.querySelectorAll("[data-answer]"))
      button.setAttribute("aria-pressed", String(answers[code]?.answer === button.dataset.answer));
    const next = study.cases[index + 1]?.images ?? [];
    for (const key of decoded.keys()) if (![...codes, ...next].includes(key)) decoded.delete(key);
    let found;
    try {
      found = await Promise.all(codes.map(decode));
    } catch {
      at("count").textContent = "this browser can't show the images; use a current Chrome, Firefox or Safari";
      return;
    }
    if (number !== index) return;  // another case was asked for meanwhile
    images = found;
    const { level, width } = view ?? firstView(study, 1);  // a reader's window stays from case to case
    view = { ...firstView(study, images[0].shape[0]), level, width };
    spent = answers[code]?.seconds ?? 0;
    draw();
    resume();
    next.forEach(decode);
  }

  function answer(value) {
    if (!images) return;
    pause();
    answers[study.cases[number].code] = { answer: value, seconds: spent };
    store();
    document.activeElement?.blur();
    const open = study.cases.findIndex(({ code }, i) => i > number && !(code in answers));
    show(open >= 0 ? open : study.cases.length);
  }

  const back = () => number > 0 && show(Math.min(number, study.cases.length) - 1);

  function begin(name) {
    reader = name.trim();
    at("problem").hidden = reader !== "";
    at("problem").textContent = "Give a name or initials: results are kept apart by them.";
    if (!reader) return;
    answers = stored(reader);
    store();
    const open = study.cases.findIndex(({ code }) => !(code in answers));
    show(open >= 0 ? open : study.cases.length);
  }

  function save() {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([toCsv(study, reader, answers)], { type: "text/csv" }));
    link.download = fileName(study, reader);
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    at("saved").textContent = `Saved as ${link.download} where this browser saves files.`;
  }

  // What the reader does.

  const actions = {
    ...windowing(() => view, change),
    next: () => change({ slice: view.slice + 1 }), before: () => change({ slice: view.slice - 1 }), reset, back,
  };
  const keys = { "+": "zoom-in", "=": "zoom-in", "-": "zoom-out", w: "wider", n: "narrower", b: "brighter", d: "darker",
                 j: "next", k: "before", PageDown: "next", PageUp: "before", r: "reset", Backspace: "back" };

  document.addEventListener("keydown", event => {
    if (at("reading").hidden || event.ctrlKey || event.metaKey || event.altKey) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key, found = answerOf(key, study.scale);
    if (found !== null && event.target.id !== "slider") {
      event.preventDefault();
      if (!event.repeat) answer(found);
    } else if (key in keys && (images || keys[key] === "back")) {
      event.preventDefault();
      actions[keys[key]]();
    }
  });

  for (const button of document.querySelectorAll("[data-answer]"))
    button.addEventListener("click", () => answer(button.dataset.answer));
  for (const button of document.querySelectorAll("[data-do]"))
    button.addEventListener("click", () => (images || button.dataset.do === "back") && actions[button.dataset.do]());
  for (const button of document.querySelectorAll("[data-window]"))
    button.addEventListener("click", () => {
      const [level, width] = study.windows[button.dataset.window];
      change({ level, width });
    });
  at("slider").addEventListener("input", () => change({ slice: Number(at("slider").value) }));
  at("slider").addEventListener("change", () => at("slider").blur());

  for (const pane of panes) {
    gestures(pane, () => images, {
      zoom: ratio => change({ zoom: view.zoom * ratio }),
      pan: (across, down) => {
        const size = Math.min(pane.clientWidth, pane.clientHeight) * view.zoom;
        change({ x: view.x + across / size, y: view.y + down / size });
      },
      window: (across, down) => change(dragged(view, study.window, across, down)),
    });
    pane.addEventListener("wheel", event => {
      event.preventDefault();
      if (!images) return;
      const up = event.deltaY < 0;
      if (images[0].shape[0] > 1 && !event.ctrlKey) actions[up ? "before" : "next"]();
      else actions[up ? "zoom-in" : "zoom-out"]();
    }, { passive: false });
  }

  document.addEventListener("visibilitychange", () => document.hidden ? pause() : resume());
  new ResizeObserver(redraw).observe(at("panes"));
  at("form").addEventListener("submit", event => { event.preventDefault(); begin(at("name").value); });
  at("save").addEventListener("click", save);
  at("again").addEventListener("click", back);
  for (const name of readers()) {
    const button = document.createElement("button");
    button.textContent = `${name} (${Object.keys(stored(name)).length} of ${study.cases.length})`;
    button.addEventListener("click", () => begin(name));
    at("readers").append(button);
    at("resume").hidden = false;
  }
  at("name").focus();
}

if (typeof document === "undefined") module.exports = { toCsv, unpacked, brightness, answerOf, firstView, fileName };
else run();
