// The top call sites and stacks: one table, sorted by any of its numbers, filtered by name, each row
// open to its full stacks.

const Sites = (() => {
  const STEP = 50;
  const MANY_FRAMES = 150;
  const MANY_STACKS = 10;

  const COLUMNS = [
    { key: "peak", name: "At peak", of: "atPeak", text: Format.bytes, exact: Format.exactBytes,
      total: (stats) => stats.peak_memory, hint: "Bytes of it that were live when the process was at its peak" },
    { key: "count", name: "Allocations", of: "allocations", text: Format.count,
      total: (stats) => stats.total_allocations, hint: "Number of allocations" },
    { key: "allocated", name: "Allocated", of: "allocated", text: Format.bytes, exact: Format.exactBytes,
      total: (stats) => stats.total_allocated, hint: "Bytes allocated over the whole run" },
    { key: "live", name: "Still live", of: "activeMemory", text: Format.bytes, exact: Format.exactBytes,
      total: (stats) => stats.active_memory, hint: "Bytes that were live at the end, or so far: leaks, and what lives as long as the program" },
    { key: "short", name: "Short-lived", of: "short", text: Format.count,
      total: (stats, data) => data.shortLived, hint: "Allocations that lived under 1 ms" },
    { key: "mean", name: "Mean life", of: "mean", text: Format.duration, exact: (n) => `${Format.count(n)} ns`,
      total: () => 0, hint: "Mean lifetime; what was live at the end is counted to the end" },
  ];

  class Table {
    constructor(place, image, data, state, changed) {
      Object.assign(this, { place, image, data, state, changed });
      this.found = h("p", { class: "found", role: "status" });
      this.body = h("tbody");
      this.head = h("tr");
      this.foot = h("div");
      place.replaceChildren(this.controls(), this.found,
        sideways(h("table", { class: "sites" }, h("thead", null, this.head), this.body)), this.foot);
      this.draw();
    }

    controls() {
      const search = h("input", {
        type: "search", placeholder: "Filter by function, file or module", "aria-label": "Filter", spellcheck: "false", autocomplete: "off",
        value: this.state.find,
      });
      let timer = 0;
      search.addEventListener("input", () => {
        clearTimeout(timer);
        timer = setTimeout(() => this.set({ find: search.value }), 120);
      });
      this.tabs = h("div", { class: "controls" });
      return h("div", { class: "title" }, h("h2", { id: "sites-title" }, "Where memory comes from"), this.tabs, search);
    }

    set(change) {
      Object.assign(this.state, change);
      this.changed();
      keepingFocus(this.place, () => this.draw());
    }

    sortBy(key) {
      const again = this.state.by === key;
      this.set({ by: key, up: again ? !this.state.up : false });
    }

    column() {
      return COLUMNS.find((column) => column.key === this.state.by) ?? COLUMNS[0];
    }

    draw() {
      const view = [["sites", "Call sites"], ["stacks", "Stacks"]];
      const ranking = COLUMNS.slice(0, 5).map(({ key, name }) => [key, name]);
      this.tabs.replaceChildren(
        choice("Group by", view, this.state.view, (key) => this.set({ view: key, open: new Set() })),
        choice("Rank by", ranking, this.state.by, (key) => this.set({ by: key, up: false })));
      const first = this.state.view === "sites" ? "Call site" : "Stack, by its most telling frame";
      this.head.replaceChildren(h("th", { scope: "col" }, first), ...COLUMNS.map((column) => this.header(column)));
      const rows = this.rows();
      const { of } = this.column();
      this.most = rows.reduce((most, row) => Math.max(most, row.numbers[of]), 1);
      this.tell(rows);
      this.body.replaceChildren();
      this.foot.replaceChildren();
      inSteps(rows, STEP, (row) => this.row(row), this.body, this.foot);
    }

    header(column) {
      const sorted = column.key === this.state.by;
      const order = sorted ? (this.state.up ? "ascending" : "descending") : null;
      return h("th", { scope: "col", "aria-sort": order, class: sorted ? "number sorted" : "number" },
        h("button", { type: "button", "data-key": `sort ${column.key}`, title: column.hint, onclick: () => this.sortBy(column.key) },
          column.name, h("span", { class: "arrow", "aria-hidden": "true" }, sorted ? (this.state.up ? " ↑" : " ↓") : "")));
    }

    rows() {
      const { of } = this.column();
      const sign = this.state.up ? -1 : 1;
      const id = (row) => row.stacks[0]?.id ?? 0;
      const rows = this.data[this.state.view].filter(this.matcher());
      return rows.sort((a, b) => sign * (b.numbers[of] - a.numbers[of]) || id(a) - id(b));
    }

    // Each word must be found in some frame of the stack.
    matcher() {
      const words = this.state.find.toLowerCase().split(/\s+/).filter(Boolean);
      this.words = words;
      if (words.length === 0) return () => true;
      const texts = (this.data.texts ??= this.data.frames.map((frame) =>
        `${frame.name ?? ""}\n${Frames.place(frame) ?? ""}\n${frame.module ?? ""}`.toLowerCase()));
      const hits = words.map((word) => texts.map((text) => text.includes(word)));
      const stack = ({ frames }) => hits.every((hit) => frames.some((at) => hit[at]));
      return (row) => row.stacks.some(stack);
    }

    tell(rows) {
      const sites = this.state.view === "sites";
      const noun = sites ? "call site" : "stack";
      const all = sites ? this.data.allSites : this.data.allStacks;
      const held = this.data[this.state.view].length;
      const filtered = this.words.length > 0 ? `${Format.count(rows.length)} of ${Format.count(held)} match${this.sums(rows)}. ` : "";
      const page = rows.length > STEP ? ` The first ${STEP} are shown: more at the end of the list.` : "";
      const part = (held < all ? `${Format.count(held)} of ${Format.counted(all, noun)} are here: the highest of each column. Totals and shares are over all.`
        : filtered ? "" : `${Format.counted(all, noun)}.`) + page;
      this.found.textContent = all === 0 ? "No stacks were recorded." : filtered + part;
    }

    // What rows come to together.
    sums(rows) {
      if (rows.length === 0) return "";
      const sum = (of) => rows.reduce((all, { numbers }) => all + numbers[of], 0);
      const { peak_memory: peak, total_allocated: allocated, total_allocations: allocations } = this.image.stats;
      const part = (n, whole) => `(${Format.percent(n, whole)})`;
      const [blocks, bytes, atPeak, live] = ["allocations", "allocated", "atPeak", "activeMemory"].map(sum);
      return `: ${Format.counted(blocks, "allocation")} ${part(blocks, allocations)} of ${Format.bytes(bytes)} ${part(bytes, allocated)}, ` +
        `${Format.bytes(atPeak)} at the peak ${part(atPeak, peak)}, ${Format.bytes(live)} still live`;
    }

    row(row) {
      const { frame, numbers } = row;
      const open = this.state.open.has(row.key);
      const button = h("button", { type: "button", class: "site", "aria-expanded": String(open) },
        h("span", { class: frame?.name ? "function" : "function unknown", title: frame?.name }, Frames.name(frame)));
      const below = h("span", { class: "where" },
        Frames.line(frame) && h("span", { title: Frames.place(frame) }, Frames.line(frame)),
        frame?.module && h("span", { class: "module", title: frame.module }, Format.fileName(frame.module)),
        row.allStacks > 1 && h("span", { class: "stacks" }, Format.counted(row.allStacks, "stack")),
        row.allStacks === 1 && this.marks(row.stacks[0]));
      const apart = this.state.view === "stacks" && this.apart(row);
      const line = h("tr", { class: open ? "row open" : "row" }, h("td", { class: "name" }, button, below, apart),
        COLUMNS.map((column) => this.cell(column, numbers)));
      line.addEventListener("click", (event) => {
        if (event.target.closest("button") === button || !String(getSelection())) this.toggle(row, line, button);
      });
      return open ? [line, this.details(row)] : [line];
    }

    // What tells a stack from the others of its place.
    apart(stack) {
      const text = Frames.apart(this.data).get(stack);
      return text && h("span", { class: "apart", title: text }, text);
    }

    cell(column, numbers) {
      const value = numbers[column.of];
      const sorted = column.key === this.state.by;
      const whole = column.total(this.image.stats, this.data);
      const text = h("span", { title: column.exact?.(value), class: value ? "" : "zero" }, column.text(value));
      return h("td", { class: sorted ? "number sorted" : "number" }, text,
        sorted && whole > 0 && [h("span", { class: "share" }, Format.percent(value, whole)), bar(value / this.most, column.key)]);
    }

    toggle(row, line, button) {
      const open = !this.state.open.has(row.key);
      if (open) this.state.open.add(row.key);
      else this.state.open.delete(row.key);
      button.setAttribute("aria-expanded", String(open));
      line.classList.toggle("open", open);
      if (open) line.after(this.details(row));
      else line.nextElementSibling.remove();
      this.changed();
    }

    details(row) {
      const content = [this.facts(row)];
      if (row.allStacks === 1 && row.stacks.length === 1) content.push(this.stack(row.stacks[0]));
      else content.push(this.stackList(row));
      return h("tr", { class: "details" }, h("td", { colspan: COLUMNS.length + 1 }, h("div", { class: "detail" }, content)));
    }

    facts({ numbers: n, allStacks }) {
      const fact = (name, ...value) => [h("dt", null, name), h("dd", null, value)];
      return h("div", { class: "facts" },
        h("dl", null,
          fact("allocated", bytesText(n.allocated), ` in ${Format.counted(n.allocations, "block")}`),
          fact("mean size", bytesText(Math.round(n.allocated / Math.max(1, n.allocations)))),
          fact("freed", bytesText(n.deallocated), ` in ${Format.counted(n.deallocations, "block")}`),
          fact("still live", bytesText(n.activeMemory), ` in ${Format.counted(n.active, "block")}`),
          fact("at the peak", bytesText(n.atPeak), ` (${Format.percent(n.atPeak, this.image.stats.peak_memory)})`),
          allStacks === 1 && fact("own peak", bytesText(n.ownPeak)),
          fact("short-lived", `${Format.count(n.short)} (${Format.percent(n.short, n.allocations)})`)),
        n.allocations > 0 && this.lives(n, allStacks === 1));
    }

    // Lifetimes on a logarithmic line from 100 ns to the length of the run.
    lives(n, quantiles) {
      const end = Math.log(Math.max(this.image.ran, n.max, 1000) / 100);
      const left = (ns) => `${Math.min(100, Math.max(0, (Math.log(Math.max(ns, 100) / 100) / end) * 100))}%`;
      const marks = quantiles
        ? [["shortest", n.min], ["median", n.p50, "strong"], ["90 %", n.p90], ["99 %", n.p99], ["longest", n.max]]
        : [["shortest", n.min], ["mean", n.mean, "strong"], ["longest", n.max]];
      const from = left(n.min);
      return h("div", { class: "lives" },
        h("div", { class: "scale", "aria-hidden": "true" },
          h("span", { class: "range", style: { left: from, right: `calc(100% - ${left(n.max)})` } }),
          marks.map(([name, ns, kind]) => h("span", { class: `mark ${kind ?? ""}`, style: { left: left(ns) }, title: `${name} ${Format.duration(ns)}` }))),
        h("dl", { class: "quantiles" }, marks.map(([name, ns, kind]) =>
          h("div", { class: kind ?? "" }, h("dt", null, name), h("dd", null, durationText(ns))))));
    }

    stackList(row) {
      const { of, text, exact } = this.column();
      const stacks = [...row.stacks].sort((a, b) => b.numbers[of] - a.numbers[of] || a.id - b.id);
      const paths = stacks.map((stack) => this.path(stack));
      const item = (stack, at) => {
        const twin = paths.indexOf(paths[at]) !== paths.lastIndexOf(paths[at]);
        const value = stack.numbers[of];
        const share = of === "mean" ? "" : Format.percent(value, row.numbers[of]);
        const part = h("details", { class: "one" }, h("summary", null,
          h("span", { class: "value", title: exact?.(value) }, text(value)), h("span", { class: "share" }, share),
          h("span", { class: "path" }, paths[at], twin && this.apart(stack)), this.marks(stack)));
        const show = () => part.childElementCount === 1 && part.append(this.stack(stack), this.lives(stack.numbers, true));
        part.addEventListener("toggle", show);
        if (at === 0) {
          part.open = true;
          show();
        }
        return part;
      };
      const list = h("div", { class: "list" });
      const button = h("div");
      inSteps(stacks, MANY_STACKS, item, list, button);
      const note = stacks.length < row.allStacks
        ? `${Format.count(stacks.length)} of ${Format.counted(row.allStacks, "stack")} that meet here, the highest by ${this.column().name.toLowerCase()} first`
        : `${Format.counted(row.allStacks, "stack")} ${row.allStacks === 1 ? "leads" : "lead"} here, by ${this.column().name.toLowerCase()}`;
      return h("div", { class: "stack-list" }, h("p", { class: "note" }, note), list, button);
    }

    // The callers in one line.
    path(stack) {
      const callers = stack.frames.slice(stack.telling + 1).map((at) => this.data.frames[at]).filter((frame) => !frame.plumbing);
      return callers.length ? callers.slice(0, 6).map((frame) => `← ${Frames.name(frame)}`).join(" ") : "no caller known";
    }

    marks(stack) {
      return [
        stack.truncated && h("span", { class: "tag", title: "The outer frames could not be reached" }, "truncated"),
        stack.guessed && h("span", { class: "tag", title: "A frame was found by its frame pointer, without unwind information" }, "guessed"),
      ];
    }

    stack(stack) {
      const list = h("ol", { class: "frames" });
      const button = h("div");
      inSteps(stack.frames, MANY_FRAMES, (index, at) => this.frame(this.data.frames[index], at === stack.telling), list, button);
      return h("div", { class: "stack" }, list, button,
        stack.truncated && h("p", { class: "note" }, "The outer frames are missing: the stack could not be walked further."),
        stack.guessed && h("p", { class: "note" }, "A frame was found by its frame pointer, without unwind information: it may be wrong."));
    }

    frame(frame, telling) {
      const kind = [frame.plumbing && "plumbing", telling && "telling", this.hit(frame) && "hit"].filter(Boolean).join(" ");
      const longer = frame.name !== null && frame.name !== frame.short;
      const name = h("span", { title: longer ? `${frame.name}\n(a click shows it here)` : null }, Frames.name(frame));
      if (!frame.name) name.classList.add("unknown");
      const full = () => {
        if (!String(getSelection())) name.textContent = name.textContent === frame.name ? frame.short : frame.name;
      };
      return h("li", { class: kind, title: `0x${frame.address}` },
        h("span", { class: longer ? "function longer" : "function", onclick: longer && full }, name,
          frame.inlined && h("span", { class: "tag", title: "Inlined into the next frame" }, "inlined")),
        h("span", { class: "source", title: Frames.place(frame) }, Frames.line(frame)),
        h("span", { class: "module", title: frame.module }, frame.module && Format.fileName(frame.module)));
    }

    hit(frame) {
      const text = () => `${frame.name ?? ""}\n${Frames.place(frame) ?? ""}\n${frame.module ?? ""}`.toLowerCase();
      return this.words.length > 0 && this.words.some((word) => text().includes(word));
    }
  }

  function render(place, image, data, state, changed) {
    return new Table(place, image, data, state, changed);
  }

  return { render, COLUMNS };
})();
