// Memory over time: live bytes as an area, the resident set as a line through its samples, live blocks in a strip below.
// Both plots share one time axis and one cursor, whose numbers stand in the legend.

const Timeline = (() => {
  const LEFT = 66;
  const RIGHT = 14;
  const HEIGHT = 250;
  const TOP = 22;
  const STRIP_TOP = 276;
  const STRIP_BOTTOM = 330;
  const FULL_HEIGHT = 352;
  // How often the resident set is read, in ns. What had not changed is not written down again.
  const SAMPLED = 80e6;

  // Powers of two for bytes, 1-2-5 for counts: round labels in their own unit.
  function byteTicks(max) {
    let step = 1;
    while (max / step > 6) step *= 2;
    return ticks(max, step);
  }

  function byteLabel(n) {
    return n === 0 ? "0" : Format.bytes(n).replace(/(\.\d*?)0+ /, "$1 ").replace(". ", " ");
  }

  function countTicks(max, wanted) {
    return ticks(max, Math.max(1, niceStep(max, wanted)));
  }

  function niceStep(max, wanted) {
    const rough = max / wanted;
    const power = 10 ** Math.floor(Math.log10(rough));
    return power * ([1, 2, 5, 10].find((n) => n * power >= rough * 0.999) ?? 10);
  }

  function ticks(max, step) {
    const out = [];
    for (let n = 0; n * step <= max; n++) out.push(n * step);
    return out;
  }

  function timeStep(span, wanted) {
    if (span < 60e9) return niceStep(span, wanted);
    const seconds = [10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400];
    return (seconds.find((n) => (n * 1e9 * wanted) >= span) ?? Math.ceil(span / wanted / 86400e9) * 86400) * 1e9;
  }

  function timeLabel(time, step, span) {
    if (time === 0) return "0";
    if (span >= 60e9) return Format.duration(time).replace(" 00 s", "").replace(" 00 min", "");
    const [unit, name] = [[1e9, "s"], [1e6, "ms"], [1e3, "µs"], [1, "ns"]].find(([n]) => span >= n) ?? [1, "ns"];
    const decimals = Math.max(0, -Math.floor(Math.log10(step / unit) + 1e-9));
    return `${(time / unit).toFixed(decimals)} ${name}`;
  }

  function path(points) {
    return points.map(([x, y], at) => `${at ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
  }

  // Index of the point nearest to a time.
  function nearest(times, time) {
    let low = 0;
    let high = times.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (times[middle] < time) low = middle + 1;
      else high = middle;
    }
    return low > 0 && time - times[low - 1] < times[low] - time ? low - 1 : low;
  }

  // The samples of the resident set as corners of a line. The timeline repeats a sample until the next one, which would draw
  // steps that lag behind the live bytes; what stayed for long is level up to the reading before the next.
  function corners(times, rss) {
    const out = [];
    rss.forEach((value, at) => {
      if (value === null || value === out.at(-1)?.[1]) return;
      const [time, before] = out.at(-1) ?? [];
      if (times[at] - SAMPLED > time + SAMPLED) out.push([times[at] - SAMPLED, before]);
      out.push([times[at], value]);
    });
    if (out.length > 0 && out.at(-1)[0] < times.at(-1)) out.push([times.at(-1), out.at(-1)[1]]);
    return out;
  }

  // Where the line through some corners is at a time; null before the first.
  function between(line, time) {
    const after = line.findIndex(([at]) => at >= time);
    if (after < 0) return line.at(-1)?.[1] ?? null;
    const [t1, v1] = line[after];
    if (t1 === time) return v1;
    if (after === 0) return null;
    const [t0, v0] = line[after - 1];
    return Math.round(v0 + ((v1 - v0) * (time - t0)) / (t1 - t0));
  }

  class Chart {
    constructor(place, image, timeline) {
      Object.assign(this, { place, image, ...timeline, resident: corners(timeline.times, timeline.rss) });
      this.withRss = this.resident.length > 0;
      this.span = Math.max(image.ran, this.times.at(-1), 1);
      this.peak = nearest(this.times, image.peak_after);
      this.at = this.peak;
      this.plot = h("div", { class: "plot" });
      this.legend = h("div", { class: "legend", "aria-live": "polite" });
      place.append(this.legend, this.plot);
      // A resident set far above the live bytes would press their curve flat.
      this.showRss = this.withRss && Math.max(...this.rss) <= 4 * image.stats.peak_memory;
      this.width = 0;
      this.observer = new ResizeObserver(() => this.draw());
      this.observer.observe(this.plot);
      this.draw();
    }

    stop() {
      this.observer.disconnect();
    }

    draw(force = false) {
      const width = Math.max(280, Math.floor(this.plot.clientWidth));
      if (width === this.width && !force) return;
      this.width = width;
      const inner = width - LEFT - RIGHT;
      this.x = (time) => LEFT + (time / this.span) * inner;
      const rssMax = this.showRss ? this.rss.reduce((max, n) => Math.max(max, n ?? 0), 0) : 0;
      const bytesMax = Math.max(this.image.stats.peak_memory, rssMax, 1) * 1.04;
      const blocksMax = Math.max(...this.blocks, 1);
      this.y = (n) => HEIGHT - (n / bytesMax) * (HEIGHT - TOP);
      this.yBlocks = (n) => STRIP_BOTTOM - (n / blocksMax) * (STRIP_BOTTOM - STRIP_TOP);
      const summary = `Live memory over ${Format.duration(this.span)}; the peak is ` +
        `${Format.bytes(this.image.stats.peak_memory)} after ${Format.duration(this.image.peak_after)}. ` +
        "The arrow keys move the cursor.";
      this.svg = s("svg", {
        viewBox: `0 0 ${width} ${FULL_HEIGHT}`, width, height: FULL_HEIGHT, role: "img", tabindex: 0,
        "aria-label": summary,
      });
      this.grid(byteTicks(bytesMax), countTicks(blocksMax, 2), width);
      this.missing(width);
      this.series();
      this.markPeak(width);
      this.cursor = s("g", { class: "cursor" });
      this.svg.append(this.cursor);
      this.listen();
      this.plot.replaceChildren(this.svg);
      this.move(this.at, false);
    }

    grid(bytes, blocks, width) {
      const line = (y, label, kind) => [
        s("line", { class: kind, x1: LEFT, x2: width - RIGHT, y1: y, y2: y }),
        s("text", { x: LEFT - 8, y: y + 4, "text-anchor": "end" }, label),
      ];
      const step = timeStep(this.span, Math.max(2, Math.floor(width / 110)));
      const time = (t) => {
        const x = this.x(t);
        const anchor = t === 0 ? "start" : x > width - 40 ? "end" : "middle";
        return [
          t > 0 && s("line", { class: "grid", x1: x, x2: x, y1: TOP, y2: STRIP_BOTTOM }),
          s("text", { x, y: FULL_HEIGHT - 4, "text-anchor": anchor }, timeLabel(t, step, this.span)),
        ];
      };
      fill(this.svg, null, [
        ticks(this.span, step).map(time),
        bytes.map((n) => line(this.y(n), byteLabel(n), n ? "grid" : "axis")),
        blocks.map((n) => line(this.yBlocks(n), Format.count(n), n ? "grid" : "axis")),
        s("text", { class: "unit", x: LEFT - 8, y: 10, "text-anchor": "end" }, "bytes"),
        s("text", { class: "unit", x: LEFT - 8, y: STRIP_TOP - 8, "text-anchor": "end" }, "blocks"),
      ]);
    }

    series() {
      const { times } = this;
      const area = times.map((time, at) => [this.x(time), this.y(this.bytes[at])]);
      const strip = times.map((time, at) => [this.x(time), this.yBlocks(this.blocks[at])]);
      const closed = (points, floor) =>
        `${path(points)}L${points.at(-1)[0].toFixed(1)} ${floor}L${points[0][0].toFixed(1)} ${floor}Z`;
      fill(this.svg, null, [
        s("path", { class: "area bytes", d: closed(area, HEIGHT) }),
        s("path", { class: "line bytes", d: path(area) }),
        s("path", { class: "area blocks", d: closed(strip, STRIP_BOTTOM) }),
        s("path", { class: "line blocks", d: path(strip) }),
        this.showRss && s("path", { class: "line rss", d: path(this.resident.map(([time, n]) => [this.x(time), this.y(n)])) }),
      ]);
    }

    // What lies behind the end of an incomplete recording.
    missing(width) {
      const since = this.image.incomplete_since;
      if (since === null || since >= this.span) return;
      const x = this.x(since);
      const room = width - RIGHT - x;
      fill(this.svg, null, [
        s("rect", { class: "missing", x, y: TOP, width: room, height: STRIP_BOTTOM - TOP }),
        s("line", { class: "missing-line", x1: x, x2: x, y1: TOP, y2: STRIP_BOTTOM }),
        s("text", { class: "missing-text", x: x + (room > 130 ? 6 : -6), y: HEIGHT - 8,
          "text-anchor": room > 130 ? "start" : "end" }, "events are missing"),
      ]);
    }

    markPeak(width) {
      const { peak_memory: bytes } = this.image.stats;
      if (!bytes) return;
      const [x, y] = [this.x(this.image.peak_after), this.y(bytes)];
      const anchor = x > width - 130 ? "end" : x < LEFT + 70 ? "start" : "middle";
      fill(this.svg, null, [
        s("line", { class: "peak-line", x1: x, x2: x, y1: y, y2: HEIGHT }),
        s("circle", { class: "peak-dot", cx: x, cy: y, r: 4 }),
        s("text", { class: "peak-text", x, y: Math.max(12, y - 9), "text-anchor": anchor }, `peak ${Format.bytes(bytes)}`),
      ]);
    }

    listen() {
      const inside = (event) => {
        const box = this.svg.getBoundingClientRect();
        const time = ((event.clientX - box.left - LEFT) / (this.width - LEFT - RIGHT)) * this.span;
        this.move(nearest(this.times, time), true);
      };
      this.svg.addEventListener("pointermove", inside);
      this.svg.addEventListener("pointerdown", inside);
      this.svg.addEventListener("pointerleave", () => this.move(this.peak, false));
      this.svg.addEventListener("focus", () => this.move(this.at, this.svg.matches(":focus-visible")));
      this.svg.addEventListener("blur", () => this.move(this.peak, false));
      this.svg.addEventListener("keydown", (event) => {
        const step = { ArrowLeft: -1, ArrowRight: 1, PageDown: 25, PageUp: -25, Home: -Infinity, End: Infinity }[event.key];
        if (step === undefined) return;
        event.preventDefault();
        this.move(Math.min(this.times.length - 1, Math.max(0, this.at + step)), true);
      });
    }

    move(at, visible) {
      this.at = at;
      const x = this.x(this.times[at]);
      const dot = (y, kind) => s("circle", { class: kind, cx: x, cy: y, r: 3.5 });
      const rss = between(this.resident, this.times[at]);
      this.cursor.replaceChildren(...(visible ? [
        s("line", { x1: x, x2: x, y1: TOP, y2: STRIP_BOTTOM }),
        dot(this.y(this.bytes[at]), "bytes"),
        dot(this.yBlocks(this.blocks[at]), "blocks"),
        ...(this.showRss && rss !== null ? [dot(this.y(rss), "rss")] : []),
      ] : []));
      this.tell(at, visible, rss);
    }

    tell(at, visible, rss) {
      const item = (kind, name, value) => h("span", { class: `series ${kind}` }, h("i"), `${name} `, h("b", null, value));
      const when = visible || at !== this.peak ? `at ${Format.duration(this.times[at])}` : `at the peak, ${Format.duration(this.image.peak_after)}`;
      const hint = "Read about every 80 ms; the line joins these samples, so what came and went between two of them is not in it";
      const toggle = this.withRss && h("label", { class: "toggle", title: hint },
        h("input", { type: "checkbox", autocomplete: "off", checked: this.showRss, onchange: (event) => {
          this.showRss = event.target.checked;
          this.draw(true);
        } }), "resident set (sampled)");
      this.readout ??= this.legend.appendChild(h("span", { class: "readout" }));
      if (toggle && this.legend.childElementCount < 2) this.legend.append(toggle);
      this.readout.replaceChildren(
        h("span", { class: "when" }, when),
        item("bytes", "live", Format.bytes(this.bytes[at])),
        item("blocks", "blocks", Format.count(this.blocks[at])),
        this.showRss && rss !== null ? item("rss", "resident (sampled)", `≈ ${Format.bytes(rss)}`) : "",
      );
    }
  }

  let current = null;
  function render(place, image, timeline) {
    current?.stop();
    current = null;
    place.replaceChildren(h("div", { class: "title" }, h("h2", { id: "timeline-title" }, "Memory over time")));
    if (timeline.times.length === 0 || image.stats.total_allocations === 0) {
      place.append(h("p", { class: "empty" }, "Nothing was allocated: there is nothing to draw."));
      return;
    }
    current = new Chart(place, image, timeline);
  }

  return { render };
})();
