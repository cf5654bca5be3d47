"use strict";

// Images in a page, drawn into canvases: what the page of a reader study and the viewer share.

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

/** The levels that `medjax.report.images.pack` packed: steps modulo 2^16, high bytes before low ones. */
function unpacked(bytes) {
  const count = bytes.length / 2, levels = new Uint16Array(count);
  for (let i = 0, last = 0; i < count; i++) {
    last = (last + (bytes[i] << 8) + bytes[count + i]) & 0xffff;
    levels[i] = last;
  }
  return levels;
}

/** The levels in the text of `medjax.report.images.pack`. */
async function inflated(text) {
  const packed = atob(text), bytes = new Uint8Array(packed.length);
  for (let i = 0; i < packed.length; i++) bytes[i] = packed.charCodeAt(i);
  const stream = new DecompressionStream("deflate"), writer = stream.writable.getWriter();
  const [levels] = await Promise.all([new Response(stream.readable).arrayBuffer(), writer.write(bytes), writer.close()]);
  return unpacked(new Uint8Array(levels));
}

/** The brightness of every level of a range of values, for a window in physical units. */
function brightness([low, high], levels, view) {
  const table = new Uint8ClampedArray(levels + 1);
  for (let i = 0; i <= levels; i++) {
    const value = low + (high - low) * i / levels;
    table[i] = Math.round(255 * (value - view.level + view.width / 2) / view.width);
  }
  return table;
}

/** A plane across an axis of an image of the shape [D, H, W, C]: its size, and where in the image's values its pixels are. */
function plane(shape, axis, index) {
  const steps = [shape[1] * shape[2] * shape[3], shape[2] * shape[3], shape[3]];
  const [row, column] = [0, 1, 2].filter(other => other !== axis);
  return { row, column, rows: shape[row], columns: shape[column], start: index * steps[axis], down: steps[row],
           across: steps[column] };
}

/** The plane upside down. */
const flipped = place => ({ ...place, start: place.start + (place.rows - 1) * place.down, down: -place.down });

/** A canvas of the plane; `write(data, i, from)` puts the colour of the value at `from` to data[i ... i + 3]. */
function painted(place, write) {
  const canvas = document.createElement("canvas"), data = new ImageData(place.columns, place.rows);
  for (let y = 0, i = 0; y < place.rows; y++)
    for (let x = 0, from = place.start + y * place.down; x < place.columns; x++, i += 4, from += place.across)
      write(data.data, i, from);
  canvas.width = place.columns;
  canvas.height = place.rows;
  canvas.getContext("2d").putImageData(data, 0, 0);
  return canvas;
}

/** What `painted` writes of an image in the brightness of a table. */
function shades({ levels, shape }, table) {
  const step = shape[3] === 3 ? 1 : 0;
  return (data, i, from) => {
    for (let c = 0; c < 3; c++) data[i + c] = table[levels[from + c * step]];
    data[i + 3] = 255;
  };
}

/** Gives a canvas as many pixels as its pane has on this screen. */
function sized(canvas, pane) {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.max(1, Math.round(pane.clientWidth * ratio));
  canvas.height = Math.max(1, Math.round(pane.clientHeight * ratio));
}

/** A function that draws once before the next frame, however often it is called. */
function onceAFrame(draw) {
  let waiting = false;
  return () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; draw(); });
  };
}

/** A window that is neither too narrow nor too far from the range of values. */
function limited({ level, width }, [low, high]) {
  const whole = high - low;
  return { width: clamp(width, whole / 500, 2 * whole), level: clamp(level, low - whole / 2, high + whole / 2) };
}

/** The window after the mouse was dragged by so many pixels. */
const dragged = (view, [low, high], across, down) =>
  ({ width: view.width + across * (high - low) / 400, level: view.level + down * (high - low) / 400 });

/** A value of the range for the eye. */
function short(value, [low, high]) {
  return String(high - low > 100 ? Math.round(value) : Number(value.toPrecision(3))).replace("-", "−");
}

/** The window in words. */
const windowText = (view, range, units) =>
  `level ${short(view.level, range)}, width ${short(view.width, range)}${units ? " " + units : ""}`;

/** What keys and buttons do with window and zoom. */
const windowing = (view, change) => ({
  "zoom-in": () => change({ zoom: view().zoom * 1.25 }), "zoom-out": () => change({ zoom: view().zoom / 1.25 }),
  wider: () => change({ width: view().width * 1.15 }), narrower: () => change({ width: view().width / 1.15 }),
  brighter: () => change({ level: view().level - view().width / 20 }),
  darker: () => change({ level: view().level + view().width / 20 }),
});

/** Mouse and fingers in a pane: `on.window`, with Shift, another button or two fingers `on.pan`, by (across, down) pixels;
 *  two fingers `on.zoom`, by a ratio; where it is named `on.tap`, at (x, y) of the pane. */
function gestures(pane, ready, on) {
  const fingers = new Map();
  let moved = 0;
  pane.addEventListener("contextmenu", event => event.preventDefault());
  pane.addEventListener("pointerdown", event => {
    if (fingers.size > 1) return;
    pane.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, [event.clientX, event.clientY]);
    moved = fingers.size > 1 ? Infinity : 0;
  });
  pane.addEventListener("pointermove", event => {
    const before = fingers.get(event.pointerId);
    if (!before || !ready()) return;
    const after = [event.clientX, event.clientY], across = after[0] - before[0], down = after[1] - before[1];
    const other = [...fingers].find(([id]) => id !== event.pointerId)?.[1];
    moved += Math.abs(across) + Math.abs(down);
    fingers.set(event.pointerId, after);
    if (other) {
      const apart = point => Math.max(Math.hypot(point[0] - other[0], point[1] - other[1]), 1);
      on.zoom(apart(after) / apart(before));
      on.pan(across / 2, down / 2);
    } else if (event.shiftKey || event.buttons > 1) {
      on.pan(across, down);
    } else {
      on.window(across, down);
    }
  });
  pane.addEventListener("pointerup", event => {
    if (fingers.delete(event.pointerId) && moved < 4 && on.tap && ready()) {
      const box = pane.getBoundingClientRect();
      on.tap(event.clientX - box.x, event.clientY - box.y);
    }
  });
  pane.addEventListener("pointercancel", event => fingers.delete(event.pointerId));
}
