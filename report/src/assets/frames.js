// What frames are called, and what tells stacks apart that come from one place.

const Frames = (() => {
  const MOST_PARTS = 4;

  function name(frame) {
    return frame?.short ?? (frame ? `0x${frame.address}` : "no stack");
  }

  function line(frame) {
    if (!frame?.file) return null;
    return Format.fileName(frame.file) + (frame.line ? `:${frame.line}` : "");
  }

  function column(frame) {
    const at = line(frame);
    return at && frame.line && frame.column ? `${at}:${frame.column}` : at;
  }

  function place(frame) {
    if (!frame?.file) return null;
    return frame.file + (frame.line ? `:${frame.line}${frame.column ? `:${frame.column}` : ""}` : "");
  }

  // Which row of the list of call sites a frame belongs to.
  function site(frame) {
    return frame ? [frame.name ?? frame.address, frame.file, frame.line, frame.module].join("\n") : "";
  }

  // A stack and the order in which it is compared with others of its site: the telling frame, the callers, then the plumbing
  // further out and further in.
  function member(data, stack) {
    const frames = stack.frames.map((at) => data.frames[at]);
    const outer = frames.slice(stack.telling + 1);
    const first = stack.frame ? [stack.frame] : [];
    const order = [...first, ...outer.filter((frame) => !frame.plumbing), ...outer.filter((frame) => frame.plumbing),
      ...frames.slice(0, Math.max(0, stack.telling)).reverse()];
    return { stack, order, outer: first.length + outer.length, nearest: outer.find((frame) => !frame.plumbing), parts: [] };
  }

  // What it may differ by, nearest first: the column, those frames, and in a second round their bare addresses.
  function trait({ order, outer }, depth) {
    const frame = order[depth % order.length];
    if (!frame || depth >= 2 * order.length) return null;
    if (depth >= order.length) return `${name(frame)} at ${address(frame)}`;
    if (depth === 0) return `at ${column(frame) ?? address(frame)}`;
    return depth < outer ? caller(frame) : `→ ${called(frame)}`;
  }

  function address(frame) {
    return `0x${frame.address}`;
  }

  function called(frame) {
    return (frame.called ??= [name(frame), column(frame)].filter(Boolean).join(" "));
  }

  function caller(frame) {
    return `← ${called(frame)}`;
  }

  function grouped(items, key) {
    const groups = new Map();
    for (const item of items) {
      const at = key(item);
      if (groups.has(at)) groups.get(at).push(item);
      else groups.set(at, [item]);
    }
    return [...groups.values()];
  }

  // Gives each member of a group the traits by which the group falls apart.
  function split(members, depth) {
    const end = members.length > 1 ? 2 * members.reduce((most, { order }) => Math.max(most, order.length), 0) : 0;
    for (; depth < end; depth++) {
      const groups = grouped(members, (one) => trait(one, depth));
      if (groups.length === 1) continue;
      for (const one of members) one.parts.push(trait(one, depth) ?? "no further caller");
      for (const group of groups) split(group, depth + 1);
      return;
    }
  }

  // By stack: the nearest of what makes it another one than those of the same place, and one caller at least.
  function apart(data) {
    if (data.apart) return data.apart;
    data.apart = new Map();
    for (const stacks of grouped(data.stacks, ({ frame }) => site(frame))) {
      const members = stacks.map((stack) => member(data, stack));
      split(members, 0);
      for (const { stack, nearest, parts } of members) {
        if (nearest && !parts.some((part) => part.startsWith("←"))) parts.push(caller(nearest));
        const more = parts.length > MOST_PARTS ? [...parts.slice(0, MOST_PARTS - 1), "…", parts.at(-1)] : parts;
        data.apart.set(stack, more.join(" "));
      }
    }
    return data.apart;
  }

  return { name, line, place, apart };
})();
