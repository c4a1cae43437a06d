// Everything that is not a chart and not the table of call sites.

const Panels = (() => {
  function banner(kind, text) {
    return h("p", { class: "banner", role: "alert" }, h("strong", null, `${kind} `), `${text}.`);
  }

  // The recording as a whole: its command, and whether it is complete.
  function recording(place, data) {
    const { processes } = data;
    const one = processes.length === 1;
    fill(clear(place), null, [
      h("h1", { class: "command" }, data.command || (one && processes[0].command) || "A recording without a command"),
      data.incomplete && banner("This recording is incomplete:", data.incomplete),
      !one && h("p", { class: "facts-line" },
        h("span", null, Format.counted(data.whole.images, "process image")),
        h("span", null, Format.counted(data.whole.allocations, "allocation"), " of ", bytesText(data.whole.allocated), " in all"),
        !data.incomplete && h("span", { class: "good" }, completeText(processes.some((image) => image.running)))),
    ]);
  }

  function completeText(running) {
    return running ? "complete so far" : "complete recording";
  }

  function localTime(ms) {
    const date = new Date(ms);
    return Number.isNaN(date.getTime()) ? "" : `${date.toLocaleString()} (local time)`;
  }

  // The process that is shown.
  function process(place, image, recording) {
    const one = recording.processes.length === 1;
    const complete = image.incomplete === null;
    const own = one && image.incomplete === recording.incomplete;
    const heading = one
      ? image.command !== recording.command && h("p", { class: "command small" }, image.command)
      : h("h2", { class: "command" }, image.command || image.exe);
    fill(clear(place), null, [
      heading,
      !complete && !own && banner("The recording of this process is incomplete:", image.incomplete),
      image.note && banner("Note:", image.note),
      h("p", { class: "facts-line" },
        h("span", { class: complete ? "good" : "bad" }, complete ? completeText(image.running) : "incomplete recording"),
        h("span", { class: image.ended_well ? "" : "bad" }, image.ended),
        h("span", null, image.running ? "ran so far " : "ran ", durationText(image.ran)),
        h("span", null, `pid ${image.pid}`),
        h("span", { title: localTime(image.start_ms) }, `started ${image.start_utc}`),
        image.exe && h("span", { class: "path" }, image.exe)),
    ]);
  }

  function clear(place) {
    place.replaceChildren();
    return place;
  }

  function numbers(place, image, data) {
    const n = image.stats;
    const seconds = image.ran / 1e9;
    const large = (name, value, ...notes) =>
      h("div", { class: "large" }, h("dt", null, name), h("dd", null, h("b", null, value), h("span", null, notes)));
    const small = (name, value, kind) => h("div", { class: kind ?? "" }, h("dt", null, name), h("dd", null, value));
    const warn = (value, kind) => (value > 0 ? kind : "");
    const mean = n.total_allocations ? Math.round(n.total_allocated / n.total_allocations) : 0;
    fill(clear(place), null, [
      h("dl", { class: "numbers" },
        large("peak", bytesText(n.peak_memory), `${Format.counted(n.peak_allocations, "block")}, after ${Format.duration(image.peak_after)}`),
        large("allocated", bytesText(n.total_allocated), `${Format.counted(n.total_allocations, "allocation")}, ${Format.bytes(mean)} on average`),
        large("freed", bytesText(n.total_deallocated), Format.counted(n.total_deallocations, "block")),
        large(image.running ? "live so far" : "live at the end", bytesText(n.active_memory), Format.counted(n.active_allocations, "block"))),
      h("dl", { class: "numbers rest" },
        small("reallocations", Format.count(n.reallocations)),
        small("short-lived", `${Format.count(data.shortLived)} (${Format.percent(data.shortLived, n.total_allocations)})`),
        small("allocations per second", seconds > 0 ? Format.count(Math.round(n.total_allocations / seconds)) : "–"),
        small("threads", Format.count(n.threads)),
        small("failed calls", Format.count(n.failed_allocations), warn(n.failed_allocations, "warn")),
        small("unknown frees", Format.count(n.unknown_frees), warn(n.unknown_frees, "warn")),
        n.inherited_frees > 0 && small("inherited frees", Format.count(n.inherited_frees)),
        small("lost events", Format.count(n.lost_events), warn(n.lost_events, "lost"))),
    ]);
  }

  function lifetimes(place, image, data) {
    const title = h("div", { class: "title" }, h("h2", { id: "lifetimes-title" }, "How long blocks lived"));
    const used = data.histogram.map((row) => row.allocations > 0);
    const rows = data.histogram.slice(Math.max(0, used.indexOf(true)), used.lastIndexOf(true) + 1);
    if (rows.length === 0) {
      place.replaceChildren(title, h("p", { class: "empty" }, "There was no allocation."));
      return;
    }
    const most = rows.reduce((max, row) => Math.max(max, row.allocations), 1);
    const mostBytes = rows.reduce((max, row) => Math.max(max, row.bytes), 1);
    const label = (row) => {
      const before = data.histogram[data.histogram.indexOf(row) - 1]?.upto_ns ?? null;
      if (row.upto_ns === null) return before === null ? "any time" : `${brief(before)} and longer`;
      return before === null ? `under ${brief(row.upto_ns)}` : `${brief(before)} to ${brief(row.upto_ns)}`;
    };
    const line = (row) => h("tr", null,
      h("th", { scope: "row" }, label(row)),
      h("td", { class: "number" }, Format.count(row.allocations)),
      h("td", { class: "number share" }, Format.percent(row.allocations, image.stats.total_allocations)),
      h("td", { class: "wide" }, bar(row.allocations / most, "count")),
      h("td", { class: "number" }, bytesText(row.bytes)),
      h("td", { class: "number share" }, Format.percent(row.bytes, image.stats.total_allocated)),
      h("td", { class: "wide" }, bar(row.bytes / mostBytes, "peak")));
    const head = [["Lifetime"], ["Blocks", "number"], ["of all blocks", "number share"], ["", "wide"],
      ["Bytes", "number"], ["of all bytes", "number share"], ["", "wide"]];
    place.replaceChildren(title, sideways(h("table", { class: "histogram" },
      h("thead", null, h("tr", null, head.map(([name, kind]) => h("th", { scope: "col", class: kind }, name)))),
      h("tbody", null, rows.map(line)))));
  }

  function brief(ns) {
    return Format.duration(ns).replace(/\.0+ /, " ").replace(" 00 s", "").replace(" 00 min", "");
  }

  function folded(place, title, open, table) {
    const body = h("div");
    const part = h("details", { class: "folded", open }, h("summary", null, h("h2", null, title)), body);
    const show = () => part.open && body.childElementCount === 0 && body.append(...table());
    part.addEventListener("toggle", show);
    show();
    place.replaceChildren(part);
  }

  function listing(columns, rows, all, first, row) {
    const body = h("tbody");
    const more = h("div");
    inSteps(rows, first, row, body, more);
    const head = columns.map(([name, kind]) => h("th", { scope: "col", class: kind }, name));
    const rest = all - rows.length;
    return [sideways(h("table", { class: "listing" }, h("thead", null, h("tr", null, head)), body)),
      more, ...(rest > 0 ? [h("p", { class: "note" }, `${Format.count(rest)} more are not in this report.`)] : [])];
  }

  function threads(place, image, data) {
    const row = (thread) => h("tr", null,
      h("td", { class: "number" }, String(thread.id)),
      h("td", null, thread.name ?? h("span", { class: "unknown" }, "unnamed")),
      h("td", { class: "number" }, durationText(thread.start)),
      h("td", { class: "number" }, thread.end === null ? h("span", { class: "unknown" }, image.running ? "still runs" : "to the end") : durationText(thread.end)),
      h("td", { class: "wide" }, span(thread.start, thread.end ?? image.ran, image.ran)));
    place.hidden = data.allThreads === 0;
    folded(place, `Threads (${Format.count(data.allThreads)})`, data.allThreads <= 12, () => listing(
      [["Number", "number"], ["Name"], ["First seen after", "number"], ["Ended after", "number"], ["", "wide"]],
      data.threads, data.allThreads, 50, row));
  }

  // When a thread lived, within the run.
  function span(start, end, whole) {
    const at = (time) => (whole > 0 ? Math.min(100, (time / whole) * 100) : 0);
    return h("span", { class: "bar life", "aria-hidden": "true" },
      h("span", { style: { marginLeft: `${at(start)}%`, width: `${Math.max(0.6, at(end) - at(start))}%` } }));
  }

  // What the variables that the program has named owned.
  function variables(place, data) {
    const text = (name) => name ?? h("span", { class: "unknown" }, "–");
    const row = ({ name, type, scope, numbers: n }) => h("tr", null,
      h("td", { class: "code variable" }, text(name)),
      h("td", { class: "code type" }, type === null ? text(type) : breakable(type)),
      h("td", { class: "code scope" }, text(scope)),
      h("td", { class: "number" }, bytesText(n.peak)),
      h("td", { class: "number" }, Format.count(n.allocations)),
      h("td", { class: "number" }, bytesText(n.allocated)),
      h("td", { class: "number" }, n.active ? [bytesText(n.activeMemory), ` in ${Format.count(n.active)}`] : h("span", { class: "zero" }, "0 B")),
      h("td", { class: "number" }, durationText(n.min)),
      h("td", { class: "number" }, durationText(n.p50)),
      h("td", { class: "number" }, durationText(n.p99)),
      h("td", { class: "number" }, durationText(n.max)));
    place.hidden = data.allVariables === 0;
    folded(place, `Named variables (${Format.count(data.allVariables)})`, true, () => listing(
      [["Name"], ["Type"], ["Scope"], ["Peak", "number"], ["Blocks", "number"], ["Allocated", "number"], ["Still live", "number"],
        ["Shortest life", "number"], ["Median", "number"], ["99 %", "number"], ["Longest", "number"]],
      data.variables, data.allVariables, 20, row));
  }

  function modules(place, data) {
    const row = (module) => h("tr", null,
      h("td", { class: "code" }, module.path),
      h("td", { class: "code build" }, module.buildId ?? h("span", { class: "unknown" }, "none")),
      h("td", { class: "code" }, `0x${module.start}–0x${module.end}`));
    place.hidden = data.allModules === 0;
    folded(place, `Modules (${Format.count(data.allModules)})`, false, () => listing(
      [["Path"], ["Build-id"], ["Addresses"]], data.modules, data.allModules, 50, row));
  }

  function notes(place) {
    const note = (term, text) => [h("dt", null, term), h("dd", null, text)];
    const body = () => [h("dl", { class: "notes" },
      note("Call site", "A place in the program that allocates: of each stack the first frame, seen from the allocation, that is not in the C or C++ runtime, in a standard library's container or in a wrapper such as xmalloc. All stacks with the same one are summed up."),
      note("At peak", "What of a call site was live at the instant at which the whole process had most memory live. These add up to the peak."),
      note("Still live", "Blocks that nobody had freed when the process ended, or so far where it was still running. Not all are leaks: caches and globals live as long as the program."),
      note("Lifetime", "From the allocation to the free or realloc that ended it; to the end of the process, or of the recording, for what was still live. Quantiles are within 5 %."),
      note("Realloc", "Ends one block and begins another, even where the address stays."),
      note("Unknown frees", "Frees of blocks that were never seen allocated."),
      note("Bytes", "What the program asked for, without the allocator's own overhead. Units are binary: 1 KiB is 1,024 bytes."))];
    folded(place, "How to read this", false, body);
  }

  function processes(place, recording, chosen, state, choose) {
    const images = recording.processes;
    place.hidden = images.length < 2;
    if (place.hidden) return;
    const most = images.reduce((max, image) => Math.max(max, image.stats.total_allocated), 1);
    const byAllocated = images.map((_, at) => [at, 0]).sort(([a], [b]) => images[b].stats.total_allocated - images[a].stats.total_allocated || a - b);
    const lines = state.order === "largest" ? byAllocated : recording.tree;
    const row = ([at, depth]) => {
      const image = images[at];
      const link = h("a", {
        href: `#process=${at}`, title: image.command || image.exe, "data-key": `process ${at}`,
        "aria-current": at === chosen ? "true" : null,
      }, h("b", null, Format.fileName(image.exe) || "?"), ` ${withoutProgram(image.command)}`);
      const line = h("tr", { class: at === chosen ? "chosen" : "" },
        h("td", { class: "name", style: { paddingLeft: `calc(8px + ${Math.min(depth, 12)} * var(--step))` } }, link),
        h("td", { class: "number" }, String(image.pid)),
        h("td", { class: image.ended_well ? "ended" : "ended bad" }, image.ended),
        h("td", { class: "number" }, image.incomplete === null ? "" : h("span", { class: "bad", title: image.incomplete }, "incomplete")),
        h("td", { class: "number" }, durationText(image.ran)),
        h("td", { class: "number" }, bytesText(image.stats.peak_memory)),
        h("td", { class: "number" }, bytesText(image.stats.total_allocated)),
        h("td", { class: "share-bar" }, bar(image.stats.total_allocated / most, "allocated")));
      line.addEventListener("click", (event) => {
        if (event.ctrlKey || event.metaKey || event.shiftKey) return;
        event.preventDefault();
        choose({ process: at, open: new Set() });
      });
      return line;
    };
    const head = [["Process"], ["Pid", "number"], ["End", "ended"], ["", "number"], ["Ran", "number"], ["Peak", "number"], ["Allocated", "number"], ["", "share-bar"]];
    const scrolled = place.dataset.order === state.order ? place.querySelector(".picker")?.scrollTop : undefined;
    place.dataset.order = state.order;
    const list = sideways(h("table", { class: "listing" },
      h("thead", null, h("tr", null, head.map(([name, kind]) => h("th", { scope: "col", class: kind }, name)))),
      h("tbody", null, lines.map(row))), "picker");
    place.replaceChildren(
      h("div", { class: "title" }, h("h2", { id: "processes-title" }, "Processes"),
        choice("Order", [["tree", "As a tree"], ["largest", "Largest first"]], state.order, (order) => choose({ order }))),
      list);
    const picker = list.firstChild;
    picker.scrollTop = scrolled ?? 0;
    inView(picker, picker.querySelector("tr.chosen"));
  }

  // Scrolls a list, and nothing else, so far that a row of it is to be seen below the list's head.
  function inView(list, row) {
    if (!row) return;
    const [box, at] = [list.getBoundingClientRect(), row.getBoundingClientRect()];
    const head = list.querySelector("thead").getBoundingClientRect().height;
    if (at.top >= box.top + head && at.bottom <= box.bottom) return;
    list.scrollTop += (at.top + at.bottom - box.top - head - box.bottom) / 2;
  }

  // Programs that were started but could not be recorded.
  function unrecorded(place, recording) {
    const row = ([pid, parent, exe, command, reason]) => h("tr", null,
      h("td", { class: "number" }, String(pid)),
      h("td", { class: "number" }, String(parent)),
      h("td", { class: "code", title: exe }, command || exe),
      h("td", null, reason));
    place.hidden = recording.all_unrecorded === 0;
    folded(place, `Not recorded (${Format.count(recording.all_unrecorded)})`, true, () => listing(
      [["Pid", "number"], ["Parent", "number"], ["Program"], ["Why"]],
      recording.unrecorded, recording.all_unrecorded, 20, row));
  }

  function withoutProgram(command) {
    const space = command.indexOf(" ");
    return space < 0 ? "" : command.slice(space + 1);
  }

  return { recording, process, numbers, lifetimes, threads, variables, modules, notes, processes, unrecorded };
})();
