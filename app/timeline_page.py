"""A timeline as a page of its own: zoom by wheel, move by dragging, figures under the pointer."""

from __future__ import annotations

import html
import json
from typing import Any

import numpy as np

from app.picture import COLOURS, LABELS, SOURCES
from app.timeline import Column, TimelineView
from codec import FRAME_SECONDS


def timeline_page(view: TimelineView, title: str, *, shortened: bool = False) -> str:
    """HTML that needs nothing else. `shortened`: the call went on longer than the view."""
    data: dict[str, Any] = {
        "frame": FRAME_SECONDS,
        "names": [LABELS[source] for source in SOURCES],
        "colours": [COLOURS[source] for source in SOURCES],
        "packets": {
            "media": _seconds(view.packet_media),
            "delay": _milliseconds(view.packet_delay),
            "late": [int(late) for late in view.too_late()],
        },
        "frames": {
            "media": _seconds(view.media),
            "playout": _milliseconds(view.playout_delay),
            "source": view.source.tolist(),
            "target": _milliseconds(view.target),
            "delay": _milliseconds(view.delay),
            "stretched": _milliseconds(view.stretched),
        },
    }
    # in a script element only its end tag could do harm
    encoded = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("</", "<\\/")
    note = ", the beginning only" if shortened else ""
    return (
        _PAGE.replace("@TITLE@", html.escape(title))
        .replace("@NOTE@", note)
        .replace("@DATA@", encoded)
    )


def _seconds(column: Column) -> list[float]:
    return [round(value, 3) for value in column.tolist()]


def _milliseconds(column: Column) -> list[float | None]:
    return [round(1e3 * value, 1) if np.isfinite(value) else None for value in column.tolist()]


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>@TITLE@</title>
<style>
body { font: 14px system-ui, sans-serif; margin: 16px; color: #222; background: #fff }
h1 { font-size: 16px; margin: 0 0 4px }
p { margin: 4px 0; color: #555 }
#legend span { display: inline-block; margin: 0 14px 4px 0; white-space: nowrap }
#legend i { display: inline-block; width: 14px; height: 10px; margin-right: 5px }
canvas { width: 100%; height: 620px; display: block; cursor: crosshair }
#tip { position: fixed; display: none; background: #fff; border: 1px solid #888; padding: 6px 8px;
  font-size: 13px; pointer-events: none; white-space: pre; box-shadow: 0 1px 4px #0004 }
</style>
<h1>@TITLE@</h1>
<p id="legend"></p>
<canvas id="view"></canvas>
<p>Seconds of speech@NOTE@. Wheel: zoom; drag: move; double click: all of it.
Delays count from when the fastest packet would have come.</p>
<div id="tip"></div>
<script>
"use strict";
const data = @DATA@;
const { packets, frames } = data;
const canvas = document.getElementById("view"), tip = document.getElementById("tip");
const GREY = "#9aa5b1", RED = "#d62728", UP = "#7b3fa0", DOWN = "#00838f", LEFT = 64, RIGHT = 10;
const scaled = frames.stretched.some(ms => ms), total = frames.delay.some(ms => ms !== null);
const largest = list => list.reduce((most, value) => Math.max(most, value), 0);
const least = list => list.reduce((low, value) => Math.min(low, value), 0);
const end = Math.max(largest(frames.media), largest(packets.media)) + data.frame;
let from = 0, to = end;

function legend() {
  const used = new Set(frames.source);
  const entry = (colour, text) => `<span><i style="background:${colour}"></i>${text}</span>`;
  let text = entry(GREY, "packet came");
  if (packets.late.includes(1)) text += entry(RED, "packet came too late");
  text += entry("#111", "target delay (line)");
  data.names.forEach((name, i) => {
    if (!used.has(i)) return;
    const count = frames.source.filter(source => source === i).length;
    text += entry(data.colours[i], `played: ${name} ${count}`);
  });
  if (scaled) text += entry(UP, "stretched") + entry(DOWN, "shortened");
  document.getElementById("legend").innerHTML = text;
}

function nice(span, most) {
  const rough = span / most, power = 10 ** Math.floor(Math.log10(rough));
  return power * [1, 2, 5, 10].find(step => step * power >= rough);
}

function draw() {
  const ratio = devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
  canvas.width = width * ratio; canvas.height = height * ratio;
  const g = canvas.getContext("2d");
  g.scale(ratio, ratio); g.font = "12px system-ui, sans-serif"; g.clearRect(0, 0, width, height);
  const x = media => LEFT + (media - from) / (to - from) * (width - LEFT - RIGHT);
  const seen = media => media + data.frame >= from && media <= to;
  const rows = [{ share: 5 }, { share: 0.5 }];
  if (scaled) rows.push({ share: 1.2 });
  if (total) rows.push({ share: 1.5 });
  const room = height - 24 - 14 * rows.length, sum = rows.reduce((a, row) => a + row.share, 0);
  let top = 4;
  for (const row of rows) {
    row.top = top; row.bottom = top + room * row.share / sum; top = row.bottom + 14;
  }
  const [delays, kinds] = rows, scaling = scaled ? rows[2] : null;
  const ears = total ? rows[rows.length - 1] : null;
  const scale = (row, low, high) => {
    row.y = v => row.bottom - (v - low) / (high - low) * (row.bottom - row.top);
  };
  const axis = (row, low, high, name, marks) => {
    scale(row, low, high);
    const step = nice(high - low, marks);
    g.textAlign = "right"; g.textBaseline = "middle";
    for (let v = Math.ceil(low / step) * step; v <= high; v += step) {
      g.strokeStyle = "#e4e4e4";
      g.beginPath(); g.moveTo(LEFT, row.y(v)); g.lineTo(width - RIGHT, row.y(v)); g.stroke();
      g.fillStyle = "#333"; g.fillText(String(Math.round(v)), LEFT - 6, row.y(v));
    }
    g.save(); g.translate(14, (row.top + row.bottom) / 2); g.rotate(-Math.PI / 2);
    g.textAlign = "center"; g.fillText(name, 0, 0); g.restore();
  };
  const heights = [frames.playout, frames.target, packets.delay];
  const high = 1.05 * Math.max(...heights.map(largest), 1);
  const low = Math.min(...heights.map(least)) - 0.02 * high;
  axis(delays, low, high, "delay, ms", 8);
  scale(kinds, 0, 1);
  if (scaling) {
    const most = 1.1 * largest(frames.stretched.map(Math.abs));
    axis(scaling, -most, most, "scale, ms", 3);
  }
  if (ears) axis(ears, 0, 1.1 * largest(frames.delay.map(v => v || 0)) || 1, "to ear, ms", 3);
  const step = nice(to - from, 12);
  g.textAlign = "center"; g.textBaseline = "top"; g.fillStyle = "#333";
  for (let t = Math.ceil(from / step) * step; t <= to; t += step)
    g.fillText(t.toFixed(step < 0.1 ? 2 : step < 1 ? 1 : 0), x(t), height - 18);
  g.save(); g.beginPath(); g.rect(LEFT, 0, width - LEFT - RIGHT, height - 20); g.clip();
  const wide = Math.max(1, x(from + data.frame) - LEFT);
  packets.media.forEach((media, i) => {
    if (!seen(media)) return;
    g.fillStyle = packets.late[i] ? RED : GREY;
    g.beginPath(); g.arc(x(media) + wide / 2, delays.y(packets.delay[i]), 2.5, 0, 7); g.fill();
  });
  let before = null;
  frames.media.forEach((media, i) => {
    if (!seen(media)) return;
    const left = x(media), colour = data.colours[frames.source[i]];
    g.fillStyle = "#111"; g.fillRect(left, delays.y(frames.target[i]), wide, 1);
    g.fillStyle = colour; g.fillRect(left, delays.y(frames.playout[i]) - 2, wide + 0.5, 4);
    g.fillRect(left, kinds.top, wide + 0.5, kinds.bottom - kinds.top);
    const ms = frames.stretched[i];
    if (scaling && ms) {
      g.fillStyle = ms > 0 ? UP : DOWN;
      const y = scaling.y(ms), zero = scaling.y(0);
      g.fillRect(left, Math.min(y, zero), Math.max(2, wide), Math.abs(y - zero));
    }
    if (ears && frames.delay[i] !== null) {
      const y = ears.y(frames.delay[i]);
      g.fillStyle = "#1f77b4"; g.fillRect(left, y - 1, wide + 0.5, 2);
      if (before !== null) g.fillRect(left, Math.min(y, before), 1, Math.abs(y - before));
      before = y;
    }
  });
  g.restore();
  g.strokeStyle = "#999";
  for (const row of rows)
    g.strokeRect(LEFT, row.top, width - LEFT - RIGHT, row.bottom - row.top);
}

function speechAt(event) {
  const box = canvas.getBoundingClientRect();
  return from + (event.clientX - box.left - LEFT) / (box.width - LEFT - RIGHT) * (to - from);
}

function show(event) {
  const at = speechAt(event);
  let found = frames.media.length - 1;
  while (found >= 0 && !(frames.media[found] <= at && at < frames.media[found] + data.frame))
    found--;
  if (found < 0) { tip.style.display = "none"; return; }
  const number = Math.round(frames.media[found] / data.frame);
  const came = packets.media.findIndex(media => Math.round(media / data.frame) === number);
  const ms = (value, what) => value === null ? "" : `\\n${what} ${value.toFixed(1)} ms`;
  let text = `frame ${number}, ${frames.media[found].toFixed(2)} s\\n`;
  text += `played from: ${data.names[frames.source[found]]}`;
  text += came < 0 ? "\\nits packet never came" : ms(packets.delay[came], "its packet came after");
  text += ms(frames.playout[found], "played after") + ms(frames.target[found], "target");
  text += ms(frames.delay[found], "mouth to ear");
  if (frames.stretched[found]) text += ms(frames.stretched[found], "time scale");
  tip.textContent = text; tip.style.display = "block";
  tip.style.left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8) + "px";
  tip.style.top = event.clientY + 14 + "px";
}

function place(start, span) {
  span = Math.min(end, Math.max(5 * data.frame, span));
  from = Math.min(end - span, Math.max(0, start)); to = from + span; draw();
}

let held = null;
canvas.addEventListener("wheel", event => {
  event.preventDefault();
  const at = speechAt(event), factor = 1.002 ** event.deltaY;
  place(at - (at - from) * factor, (to - from) * factor);
}, { passive: false });
canvas.addEventListener("mousedown", event => { held = { x: event.clientX, from }; });
addEventListener("mouseup", () => { held = null; });
canvas.addEventListener("mousemove", event => {
  if (held) {
    const moved = (event.clientX - held.x) / (canvas.clientWidth - LEFT - RIGHT) * (to - from);
    place(held.from - moved, to - from);
  }
  show(event);
});
canvas.addEventListener("mouseleave", () => { tip.style.display = "none"; });
canvas.addEventListener("dblclick", () => place(0, end));
addEventListener("resize", draw);
legend(); draw();
</script>
</html>
"""
