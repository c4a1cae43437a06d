// Gives names to the rows of arrays that the report's data is made of (see `html/data.rs`).

const Data = (() => {
  const NUMBERS = [
    "allocations", "allocated", "deallocations", "deallocated", "active", "activeMemory", "ownPeak", "atPeak",
    "short", "min", "p50", "p90", "p99", "max", "mean",
  ];

  const VARIABLE = [
    "allocations", "allocated", "active", "activeMemory", "peak", "short", "min", "p50", "p90", "p99", "max", "mean",
  ];

  function numbers(row) {
    return Object.fromEntries(NUMBERS.map((name, at) => [name, row[at]]));
  }

  // Strings come from files that may lie: what would turn a line around or hide in it is made visible.
  const UNSEEN = /[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g;

  function visible(text) {
    return text.replace(UNSEEN, "\ufffd");
  }

  function recording() {
    const each = (_, value) => (typeof value === "string" ? visible(value) : value);
    return JSON.parse(byId("data-recording").textContent, each);
  }

  // The data of one process, read when it is first asked for.
  const read = new Map();
  function process(index) {
    if (!read.has(index)) read.set(index, decode(JSON.parse(byId(`data-${index}`).textContent)));
    return read.get(index);
  }

  function decode(raw) {
    const strings = raw.strings.map(visible);
    const string = (at) => (at === 0 ? null : strings[at]);
    const frames = raw.frames.map(([name, short, file, line, column, module, address, flags]) => ({
      name: string(name),
      short: string(short),
      file: string(file),
      line,
      column,
      module: string(module),
      address,
      inlined: (flags & 1) !== 0,
      plumbing: (flags & 2) !== 0,
    }));
    const stacks = raw.stacks.map(([id, flags, telling, indices, row]) => ({
      key: `s${id}`,
      id,
      truncated: (flags & 1) !== 0,
      guessed: (flags & 2) !== 0,
      telling,
      frames: indices,
      frame: telling < 0 ? null : frames[indices[telling]],
      numbers: numbers(row),
      stacks: null,
      allStacks: 1,
    }));
    for (const stack of stacks) stack.stacks = [stack];
    const sites = raw.sites.map(([frame, allStacks, held, row], at) => ({
      key: `c${at}`,
      frame: frame < 0 ? null : frames[frame],
      numbers: numbers(row),
      stacks: held.map((index) => stacks[index]),
      allStacks,
    }));
    return {
      frames,
      stacks,
      sites,
      allStacks: raw.all_stacks,
      allSites: raw.all_sites,
      shortLived: raw.short_lived,
      timeline: { times: raw.timeline[0], bytes: raw.timeline[1], blocks: raw.timeline[2], rss: raw.timeline[3] },
      histogram: raw.histogram,
      threads: raw.threads.map(([id, name, start, end]) => ({ id, name: string(name), start, end })),
      allThreads: raw.all_threads,
      variables: raw.variables.map(([name, type, scope, row]) => ({
        name: string(name),
        type: string(type),
        scope: string(scope),
        numbers: Object.fromEntries(VARIABLE.map((key, at) => [key, row[at]])),
      })),
      allVariables: raw.all_variables,
      modules: raw.modules.map(([path, buildId, start, end]) => ({
        path: string(path) ?? "",
        buildId: string(buildId),
        start,
        end,
      })),
      allModules: raw.all_modules,
    };
  }

  return { recording, process };
})();
